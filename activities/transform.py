"""Second wave of the fan-out: one clean partition through the feature graph, into a float32 matrix."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from activities.contracts import Done, ItemRef
from activities.dependencies import Dependencies


def transform(item: ItemRef, to: Dependencies) -> Done:
    """Computes one partition's matrix and caches it by (graph, partition)."""
    from models.features import FeatureRows
    from models.matrices import MatrixWriter, matrix_part
    from models.parquet import row_groups

    workspace = to.workspace(item.pipeline, item.run)
    entry = workspace.read_item("transform", item.batch, item.index)
    graph_key = entry["graph"]
    features = FeatureRows(to.blobs.get(workspace.graph_path(graph_key)).data, workspace.spec())
    with TemporaryDirectory(prefix="ratchet-", ignore_cleanup_errors=True) as folder:
        clean, matrix = Path(folder) / "clean", Path(folder) / "matrix"
        to.blobs.get_file(workspace.clean_path(entry["key"]), clean)
        with matrix.open("wb") as stream:
            writer = MatrixWriter(stream, rows=entry["rows"], columns=features.width)
            before = 0
            for frame in row_groups(clean):
                # Folds hang on the path, not on the eTag: the same files in another account teach the same model.
                writer.add(matrix_part(features.compute(frame), frame, key=entry["path"], before=before))
                before += frame.height
        to.blobs.put_file(workspace.matrix_path(graph_key, entry["key"]), matrix)
    return Done()
