"""Second wave of the fan-out: one clean partition through the feature graph, into a float32 matrix."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from activities.contracts import Done, ItemRef
from activities.dependencies import Dependencies
from activities.workspace import Workspace

if TYPE_CHECKING:
    from models.features import FeatureRows

GRAPHS_KEPT = 4
"""Runs whose graph a process keeps ready: to open it takes longer than a small partition."""


def transform(item: ItemRef, to: Dependencies) -> Done:
    """Computes one partition's matrix and caches it by (graph, partition)."""
    from models.matrices import MatrixWriter, matrix_part, pack
    from models.parquet import row_groups

    workspace = to.workspace(item.pipeline, item.run)
    entry = workspace.read_item("transform", item.batch, item.index)
    graph_key = entry["graph"]
    features = _features(workspace, graph_key)
    with TemporaryDirectory(prefix="ratchet-", ignore_cleanup_errors=True) as folder:
        clean, matrix, packed = (Path(folder) / name for name in ("clean", "matrix", "packed"))
        to.blobs.get_file(workspace.clean_path(entry["key"]), clean)
        with matrix.open("wb") as stream:
            writer = MatrixWriter(stream, rows=entry["rows"], columns=features.width)
            before = 0
            for frame in row_groups(clean):
                # Folds hang on the path, not on the eTag: the same files in another account teach the same model.
                writer.add(matrix_part(features.compute(frame), frame, key=entry["path"], before=before))
                before += frame.height
        pack(matrix, packed)
        to.blobs.put_file(workspace.matrix_path(graph_key, entry["key"]), packed)
    return Done()


@lru_cache(maxsize=GRAPHS_KEPT)
def _features(workspace: Workspace, graph: str) -> FeatureRows:
    from models.features import FeatureRows

    return FeatureRows(workspace.blobs.get(workspace.graph_path(graph)).data, workspace.spec())
