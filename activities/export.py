"""One ONNX graph from raw columns to probabilities, and the proof that it is the model that was trained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from activities.contracts import Done, RunRef
from activities.dependencies import Dependencies
from activities.workspace import Workspace
from models.manifest import HoldoutRule

if TYPE_CHECKING:
    import numpy as np
    import polars as pl


def export(run: RunRef, to: Dependencies) -> Done:
    """Writes the challenger's graph by its hash, and `export.json`: signature, opset, golden rows, parity.

    A model that ONNX cannot express exactly ends the run; so does a graph that answers any row in another way.
    """
    from models.export import ExportError, opset_of
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
        for _, frame, _ in holdout_frames(workspace, dataset):
            yield feeds(frame, spec)

    held = batches()
    examples = next(held, None)
    if examples is None:
        return Done("nothing_to_do", "The holdout has no row: there is nothing to judge a model by.")
    rows = chain([examples], held)
    parity = check_parity(model, booster, features_graph, rows, columns=spec.feature_columns, kind=spec.export)
    workspace.write(
        "export.json",
        {
            "sha256": sha256,
            "bytes": len(model),
            "signature": asdict(shape),
            "opset": opset_of(model),
            "golden": asdict(golden_rows(model, examples)),
            "parity": parity.to_dict(),
        },
    )
    if not parity.passed:
        return Done("failed", f"Not promoted: {parity.sentence()}")
    return Done(sentence=f"{len(model) / 1e6:.1f} MB")


def holdout_frames(
    workspace: Workspace, dataset: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], pl.DataFrame, np.ndarray[Any, Any]]]:
    """The held out rows, some at a time, with their partition's entry and the rows' folds, by path."""
    from models.matrices import row_folds
    from models.parquet import row_groups
    from models.partitions import TIME

    rule = HoldoutRule(**dataset["holdout"])
    for entry in dataset["partitions"]:
        if rule.by == "time" and entry["time_max"] < rule.since:
            continue
        with TemporaryDirectory(prefix="ratchet-", ignore_cleanup_errors=True) as folder:
            file = Path(folder) / "clean"
            workspace.blobs.get_file(workspace.clean_path(entry["key"]), file)
            before = 0
            for frame in row_groups(file):
                folds = row_folds(frame, key=entry["path"], before=before)
                before += frame.height
                held = rule.holds(frame[TIME].to_numpy(), folds)
                if held.any():
                    yield entry, frame.filter(held), folds[held]
