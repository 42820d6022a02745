"""Second wave of the fan-out: one clean partition through the feature graph, into a float32 matrix."""

from __future__ import annotations

from activities.contracts import Done, ItemRef
from activities.dependencies import Dependencies


def transform(item: ItemRef, to: Dependencies) -> Done:
    """Computes one partition's matrix and caches it by (graph, partition)."""
    from models.features import compute_matrix
    from models.matrices import matrix_part
    from models.partitions import from_parquet

    workspace = to.workspace(item.pipeline, item.run)
    entry = workspace.read_item("transform", item.batch, item.index)
    graph_key = entry["graph"]
    graph = to.blobs.get(workspace.graph_path(graph_key)).data
    frame = from_parquet(to.blobs.get(workspace.clean_path(entry["key"])).data)
    # Folds hang on the path, not on the eTag: the same files uploaded to another account teach the same model.
    part = matrix_part(compute_matrix(graph, frame, workspace.spec()), frame, key=entry["path"])
    to.blobs.put(workspace.matrix_path(graph_key, entry["key"]), part.to_bytes())
    return Done()
