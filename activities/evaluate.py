"""Judge challenger and champion on the same rows, none of which taught either of them."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from activities.contracts import Done, RunRef
from activities.dependencies import Dependencies
from activities.export import holdout_frames
from activities.live import read_champion, read_champions_manifest
from activities.workspace import Workspace
from models.manifest import HoldoutRule, Lineage, LineagePartition, Manifest, Signature

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from models.evaluation import Yardstick
    from models.spec import PipelineSpec


def evaluate(run: RunRef, to: Dependencies) -> Done:
    """Writes `evaluation.json` (metrics) and `scores.npz` (label and both models' answers of every judged row)."""
    from models.evaluation import evaluate as metrics_of
    from models.evaluation import yardstick
    from models.scoring import measure_latency

    workspace = to.workspace(run.pipeline, run.run)
    spec, dataset, exported = workspace.spec(), workspace.read("dataset.json"), workspace.read("export.json")
    live = read_champion(to.blobs, run.pipeline)
    champion = read_champions_manifest(live, to.blobs) if live is not None else None
    uncompared = _uncompared(champion, exported)
    rival = to.blobs.get(champion.model_path).data if champion is not None and not uncompared else None
    model = to.blobs.get(workspace.challenger_path(exported["sha256"])).data
    judged = _Judged(spec, champion, model, rival, to.threads)
    # Where the champion is not compared, what it has seen does not matter.
    taught = _Taught(champion.lineage, dataset) if champion is not None and rival is not None else None
    holdout_rows = 0
    for entry, frame, folds in holdout_frames(workspace, dataset):
        holdout_rows += frame.height
        unseen = taught.leaves(entry, frame, folds) if taught is not None else folds >= 0.0
        if unseen.any():
            judged.add(frame.filter(unseen), folds[unseen])
    scores, by = judged.scores(), yardstick(spec)
    _write_scores(workspace, scores)
    metrics = metrics_of(scores["labels"], scores["challenger"], by)
    workspace.write(
        "evaluation.json",
        {
            "rows": metrics.rows,
            "holdout_rows": holdout_rows,
            "vanished_rows": taught.vanished_rows if taught is not None else 0,
            "challenger": metrics.to_dict(),
            "champion": metrics_of(scores["labels"], scores["champion"], by).to_dict() if rival is not None else None,
            "champion_version": champion.version if champion is not None else None,
            "uncompared": uncompared,
            "slices": judged.slices(by, scores),
            "latency_ms": asdict(measure_latency(model, judged.one_row, time.perf_counter)) if judged.one_row else None,
        },
    )
    return Done(sentence=f"{metrics.rows:,} rows")


@dataclass(slots=True)
class _Judged:
    """The rows that both models were asked, partition after partition, and their answers."""

    spec: PipelineSpec
    champion: Manifest | None
    model: bytes
    rival: bytes | None
    threads: int
    one_row: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    arrays: dict[str, list[np.ndarray[Any, Any]]] = field(default_factory=dict)
    sliced: dict[str, list[pl.Series]] = field(default_factory=dict)

    def add(self, frame: pl.DataFrame, folds: np.ndarray[Any, Any]) -> None:
        from models.features import feeds
        from models.labels import class_texts
        from models.partitions import LABEL
        from models.scoring import score

        columns = feeds(frame, self.spec)
        self.one_row = self.one_row or {name: values[:1] for name, values in columns.items()}
        added = {"labels": frame[LABEL].to_numpy(), "groups": folds}
        added["challenger"] = score(self.model, columns, threads=self.threads)
        if self.champion is not None and self.rival is not None:
            known = {column.name: columns[column.name] for column in self.champion.signature.inputs}
            added["champion"] = score(self.rival, known, threads=self.threads)
        for name, array in added.items():
            self.arrays.setdefault(name, []).append(array)
        for name in self.spec.slices:
            self.sliced.setdefault(name, []).append(class_texts(frame[name]).fill_null(""))

    def scores(self) -> dict[str, np.ndarray[Any, Any]]:
        """All of it end to end; without a rival `champion` is empty."""
        import numpy as np

        empty = {"labels": np.empty(0), "groups": np.empty(0), "challenger": np.empty((0, 1)), "champion": np.empty(0)}
        return empty | {name: np.concatenate(parts) for name, parts in self.arrays.items()}

    def slices(self, by: Yardstick, scores: Mapping[str, np.ndarray[Any, Any]]) -> list[dict[str, Any]]:
        import polars as pl

        from models.evaluation import evaluate_slices

        theirs = scores["champion"] if self.rival is not None else None
        gate = self.spec.gate
        decisive = gate.slice_minimum_rows if gate.slice_loss is not None else None
        found = [
            evaluate_slices(
                name, pl.concat(values), scores["labels"], scores["challenger"], theirs, by, decisive_rows=decisive
            )
            for name, values in self.sliced.items()
        ]
        return [part.to_dict() for parts in found for part in parts]


def read_scores(workspace: Workspace) -> dict[str, np.ndarray[Any, Any]]:
    """Labels [N] and each model's answers (float64 [N, K]; `champion` is empty when there is none to compare with)."""
    import numpy as np

    with np.load(io.BytesIO(workspace.read_bytes("scores.npz")), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _write_scores(workspace: Workspace, scores: Mapping[str, np.ndarray[Any, Any]]) -> None:
    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **scores)
    workspace.write_bytes("scores.npz", buffer.getvalue())


def _uncompared(champion: Manifest | None, exported: dict[str, Any]) -> str:
    """Why the champion cannot be judged on today's rows, or ''.

    It can when they have all the columns that it reads, and it answers the same question.
    """
    if champion is None:
        return ""
    version, theirs = champion.version, champion.signature
    ours = Signature.from_dict(exported["signature"])
    if theirs.task != ours.task or not _same_question(theirs, ours):
        what = f"a {theirs.task} model" if theirs.task != ours.task else "of other classes"
        return f"the champion (version {version}) cannot be compared: it is {what}"
    lacking = [column.name for column in theirs.inputs if column not in ours.inputs]
    if not lacking:
        return ""
    columns = ", ".join(lacking)
    return f"the champion (version {version}) cannot be compared: it reads {columns}, which the pipeline no longer has"


def _same_question(theirs: Signature, ours: Signature) -> bool:
    """Whether a probability in the same place is of the same. The two classes of a binary model may have got other
    names, but not each other's: then it is of the opposite."""
    if theirs.task != "binary":
        return theirs.classes == ours.classes
    renamed = theirs.positive not in ours.classes and ours.positive not in theirs.classes
    return theirs.positive == ours.positive or renamed


class _Taught:
    """What a champion has seen: its lineage says which files, and what it held out of them.

    A file is known by its path, and where that is new, by its content: a renamed blob holds the same rows. One that was
    uploaded again under its name counts as seen: it is likely to hold the same rows. A row's fold tells whether it was
    held out only in the same file under the same path, cleaned by the same contract; a group's fold does wherever the
    group is.
    """

    def __init__(self, lineage: Lineage, dataset: Mapping[str, Any]) -> None:
        self._rule, self._ours = lineage.rule, HoldoutRule(**dataset["holdout"])
        self._same_contract = lineage.data == dataset["data"]
        self._by_path = {partition.path: partition for partition in lineage.partitions}
        self._by_content = {partition.content: partition for partition in lineage.partitions if partition.content}
        there = {entry[name] for entry in dataset["partitions"] for name in ("path", "content") if name in entry}
        gone = [each for each in lineage.partitions if not {each.path, each.content or each.path} & there]
        new = any(self._known(entry) is None for entry in dataset["partitions"])
        self.vanished_rows = sum(each.rows for each in gone) if new and self._rule.by == "hash" else 0
        """Rows of files that are no longer there, where new ones may hold the same rows and nothing tells."""

    def leaves(
        self, entry: Mapping[str, Any], frame: pl.DataFrame, folds: np.ndarray[Any, Any]
    ) -> np.ndarray[Any, Any]:
        """Boolean [N]: the rows of a file that did not teach it."""
        from models.partitions import TIME

        rule, everything, known = self._rule, folds >= 0.0, self._known(entry)
        by_group = rule.by == "group" and (self._ours.by, self._ours.column) == ("group", rule.column)
        if known is None and not by_group:
            return everything
        if rule.by == "group" and not by_group:
            return ~everything
        if rule.by == "hash" and known is not None:
            same_file = (known.path, known.etag) == (entry["path"], entry["etag"])
            if not same_file or not self._same_contract:
                return ~everything
        held_out: np.ndarray[Any, Any] = rule.holds(frame[TIME].to_numpy(), folds)
        return held_out

    def _known(self, entry: Mapping[str, Any]) -> LineagePartition | None:
        return self._by_path.get(entry["path"]) or self._by_content.get(entry.get("content", ""))
