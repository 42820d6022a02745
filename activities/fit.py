"""Merge the partitions' profiles, settle what the dataset is, and fit the feature graph."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from activities.contracts import Fitted, RunRef
from activities.dependencies import Dependencies
from activities.judged import inputs_digest, read_judged
from activities.workspace import INPUTS, PlannedPartition, existing_keys
from models.manifest import HoldoutRule

if TYPE_CHECKING:
    from models.spec import PipelineSpec

SECONDS_A_DAY = 86_400.0
NOTHING_IN_THE_WINDOW = (
    "What is new has no row within the pipeline's window: the last run was made from the same partitions."
)

type Usable = list[tuple[PlannedPartition, dict[str, Any]]]
"""Partitions with rows, each with its outcome."""


def fit(run: RunRef, to: Dependencies) -> Fitted:
    """Writes `dataset.json` and the feature graph, and the batches of matrices that are not cached yet."""
    from models.examples import example_rows
    from models.features import fit_features, signature
    from models.profiles import Profile, merge

    workspace = to.workspace(run.pipeline, run.run)
    spec = workspace.spec()
    plan = workspace.plan()
    outcomes = workspace.read_outcomes(plan)
    inputs = judged_inputs(plan, outcomes, spec.fingerprint)
    usable = _within_window(
        [
            (partition, outcome)
            for partition, outcome in zip(plan, outcomes, strict=True)
            if outcome["state"] == "clean" and outcome["rows"]
        ],
        spec,
    )
    dataset = inputs_digest([(partition.path, partition.etag) for partition, _ in usable], spec.fingerprint)
    workspace.write(INPUTS, {"inputs": inputs, "dataset": dataset if usable else ""})
    if not usable:
        return Fitted("nothing_to_do", "No usable partition: nothing to train on.")
    judged = read_judged(to.blobs, run.pipeline)
    if not run.force and judged.inputs == inputs:
        return Fitted("nothing_to_do", "No new usable partition: there is nothing that the last run did not have.")
    if not run.force and judged.dataset == dataset:
        return Fitted("nothing_to_do", NOTHING_IN_THE_WINDOW)

    merged = merge(Profile.from_dict(outcome["profile"]) for _, outcome in usable)
    graph = fit_features(merged, spec)
    graph_key = hashlib.sha256(graph).hexdigest()[:40]
    to.blobs.put(workspace.graph_path(graph_key), graph)
    partitions = [_entry(partition, outcome) for partition, outcome in usable]
    rule = _holdout(spec, newest=max(entry["time_max"] for entry in partitions))
    workspace.write(
        "dataset.json",
        {
            "id": dataset,
            "spec": spec.fingerprint,
            "data": spec.data_fingerprint,
            "graph": graph_key,
            "rows": merged.rows,
            "classes": merged.classes,
            "holdout": asdict(rule),
            "holdout_from": rule.since,
            "partitions": partitions,
            "example": example_rows(merged, {column.name: column.kind for column in signature(spec).inputs}),
        },
    )
    known = existing_keys(to.blobs, workspace.matrices_prefix(graph_key))
    todo = [{"graph": graph_key, **entry} for entry in partitions if entry["key"] not in known]
    return Fitted(todo=len(todo), batches=workspace.write_batches("transform", todo))


def judged_inputs(plan: list[PlannedPartition], outcomes: list[dict[str, Any]], spec_fingerprint: str) -> str:
    """The digest of every partition that is included, also of one that has no row left."""
    clean = [
        (partition.path, partition.etag)
        for partition, outcome in zip(plan, outcomes, strict=True)
        if outcome["state"] == "clean"
    ]
    return inputs_digest(clean, spec_fingerprint)


def _within_window(usable: Usable, spec: PipelineSpec) -> Usable:
    """The partitions that the spec's window reaches, by path: the last ones, or those with any row that is new enough.

    A partition that reaches into the holdout, or into the days before it, is within a window of days.
    """
    newest_first = sorted(usable, key=lambda pair: (pair[1]["profile"]["time_max"], pair[0].path), reverse=True)
    if spec.window.partitions is not None:
        return sorted(newest_first[: spec.window.partitions], key=lambda pair: pair[0].path)
    if spec.window.days is not None and usable:
        end = _holdout(spec, newest=newest_first[0][1]["profile"]["time_max"]).since
        end = end or newest_first[0][1]["profile"]["time_max"]
        begin = end - spec.window.days * SECONDS_A_DAY
        return [pair for pair in usable if pair[1]["profile"]["time_max"] >= begin]
    return usable


def _holdout(spec: PipelineSpec, *, newest: float) -> HoldoutRule:
    given = spec.holdout
    if given.by == "time":
        return HoldoutRule("time", newest - given.days * SECONDS_A_DAY)
    return HoldoutRule(given.by, fraction=given.fraction, column=given.column or "")


def _entry(partition: PlannedPartition, outcome: dict[str, Any]) -> dict[str, Any]:
    return {
        "path": partition.path,
        "etag": partition.etag,
        "key": partition.key,
        # Outcomes from before it was kept have none.
        "content": outcome.get("content", ""),
        "rows": outcome["rows"],
        "time_min": outcome["profile"]["time_min"],
        "time_max": outcome["profile"]["time_max"],
    }
