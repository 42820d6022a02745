"""Judge challenger and champion on the same rows, none of which taught either of them."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from activities.contracts import Done, RunRef
from activities.dependencies import Dependencies
from activities.export import holdout_frames
from activities.live import Champion, read_champion
from activities.workspace import Workspace
from models.manifest import Signature

if TYPE_CHECKING:
    import numpy as np
    import polars as pl


def evaluate(run: RunRef, to: Dependencies) -> Done:
    """Writes `evaluation.json` (metrics) and `scores.npz` (label and both scores of every judged row)."""
    import numpy as np

    from models.evaluation import evaluate as metrics_of
    from models.evaluation import measure_latency, score
    from models.features import feeds
    from models.partitions import LABEL

    workspace = to.workspace(run.pipeline, run.run)
    spec, dataset, exported = workspace.spec(), workspace.read("dataset.json"), workspace.read("export.json")
    champion = read_champion(to.blobs, run.pipeline)
    uncompared = _uncompared(champion, exported)
    rival = to.blobs.get(champion.manifest.model_path).data if champion is not None and not uncompared else None
    model = to.blobs.get(workspace.challenger_path(exported["sha256"])).data

    labels, challenger_scores, champion_scores = [], [], []
    one_row: Mapping[str, np.ndarray[Any, Any]] = {}
    for entry, frame in holdout_frames(workspace, dataset):
        unseen = _unseen_by(champion, entry, frame)
        if not unseen.height:
            continue
        columns = feeds(unseen, spec)
        one_row = one_row or {name: values[:1] for name, values in columns.items()}
        labels.append(unseen[LABEL].to_numpy())
        challenger_scores.append(score(model, columns, threads=to.threads))
        if champion is not None and rival is not None:
            known = {column.name: columns[column.name] for column in champion.manifest.signature.inputs}
            champion_scores.append(score(rival, known, threads=to.threads))
    truth = np.concatenate(labels) if labels else np.empty(0, np.uint8)
    scores = {"labels": truth, "challenger": _joined(challenger_scores), "champion": _joined(champion_scores)}
    _write_scores(workspace, scores)
    workspace.write(
        "evaluation.json",
        {
            "rows": len(truth),
            "challenger": metrics_of(truth, scores["challenger"]).to_dict(),
            "champion": metrics_of(truth, scores["champion"]).to_dict() if rival is not None else None,
            "champion_version": champion.pointer.champion.version if champion is not None else None,
            "uncompared": uncompared,
            "latency_ms": asdict(measure_latency(model, one_row, time.perf_counter)) if one_row else None,
        },
    )
    return Done(sentence=f"{len(truth):,} rows")


def read_scores(workspace: Workspace) -> dict[str, np.ndarray[Any, Any]]:
    """Labels (uint8 [N]) and scores (float64 [N]; `champion` is empty when there is none to compare with)."""
    import numpy as np

    with np.load(io.BytesIO(workspace.read_bytes("scores.npz")), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _write_scores(workspace: Workspace, scores: Mapping[str, np.ndarray[Any, Any]]) -> None:
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **scores)
    workspace.write_bytes("scores.npz", buffer.getvalue())


def _joined(parts: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.concatenate(parts) if parts else np.empty(0, np.float64)


def _uncompared(champion: Champion | None, exported: dict[str, Any]) -> str:
    """Why the champion cannot be judged on today's rows, or ''. It can when they have all the columns that it reads."""
    if champion is None:
        return ""
    there = Signature.from_dict(exported["signature"]).inputs
    lacking = [column.name for column in champion.manifest.signature.inputs if column not in there]
    if not lacking:
        return ""
    version, columns = champion.pointer.champion.version, ", ".join(lacking)
    return f"the champion (version {version}) cannot be compared: it reads {columns}, which the pipeline no longer has"


def _unseen_by(champion: Champion | None, entry: Mapping[str, Any], frame: pl.DataFrame) -> pl.DataFrame:
    """Rows that did not teach the champion: its lineage says which files it saw, and up to what time.

    A file that was uploaded again under its name counts as seen: it is likely to hold the same rows.
    """
    import polars as pl

    from models.partitions import TIME

    if champion is None:
        return frame
    lineage = champion.manifest.lineage
    if entry["path"] not in {partition.path for partition in lineage.partitions}:
        return frame
    return frame.filter(pl.col(TIME) >= lineage.holdout_from)
