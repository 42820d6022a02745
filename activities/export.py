"""One ONNX graph from raw columns to probabilities, and the proof that it is the model that was trained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from activities.contracts import Done, RunRef
from activities.dependencies import Dependencies
from activities.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    import polars as pl


def export(run: RunRef, to: Dependencies) -> Done:
    """Writes the challenger's graph by its hash, and `export.json`: signature, golden rows, parity.

    A model that ONNX cannot express exactly ends the run.
    """
    from models.export import ExportError
    from models.export import export as export_graph
    from models.features import feeds, signature
    from models.golden import golden_rows
    from models.parity import check_parity

    workspace = to.workspace(run.pipeline, run.run)
    spec, dataset = workspace.spec(), workspace.read("dataset.json")
    booster = workspace.read_bytes("booster.txt").decode()
    features_graph = to.blobs.get(workspace.graph_path(dataset["graph"])).data
    shape = signature(spec)
    try:
        model = export_graph(booster, features_graph, shape, kind=spec.export)
    except ExportError as exc:
        return Done("failed", f"Not promoted: {exc}")
    sha256 = hashlib.sha256(model).hexdigest()
    to.blobs.put(workspace.challenger_path(sha256), model)

    def batches() -> Iterator[dict[str, np.ndarray[Any, Any]]]:
        for _, frame in holdout_frames(workspace, dataset):
            yield feeds(frame, spec)

    parity = check_parity(model, booster, features_graph, batches(), kind=spec.export)
    workspace.write(
        "export.json",
        {
            "sha256": sha256,
            "bytes": len(model),
            "signature": asdict(shape),
            "golden": asdict(golden_rows(model, next(batches()))),
            "parity": parity.to_dict(),
        },
    )
    return Done(sentence=f"{len(model) / 1e6:.1f} MB")


def holdout_frames(workspace: Workspace, dataset: dict[str, Any]) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """The rows of each partition that are at or after `holdout_from`, with the partition's entry, by path."""
    import polars as pl

    from models.partitions import TIME, from_parquet

    since = dataset["holdout_from"]
    for entry in dataset["partitions"]:
        if entry["time_max"] >= since:
            frame = from_parquet(workspace.blobs.get(workspace.clean_path(entry["key"])).data)
            yield entry, frame.filter(pl.col(TIME) >= since)
