"""End a run: settle the claims in the ledger, write the run's record, tell who listens."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

from activities.contracts import Finish, Settled
from activities.costs import cost_of, figures_of, steps_of
from activities.dependencies import Dependencies
from activities.judged import Judged, write_failure, write_judged
from activities.quarantine import set_file_aside
from activities.workspace import INPUTS, OUTRUN, PlannedPartition, Workspace, record_path
from adapters.blobs import BlobConflict
from adapters.events import EventType, Notice
from adapters.ledger import MAX_ATTEMPTS, Partition, Settlement
from adapters.registry import RegistryError

log = logging.getLogger("ratchet.registry")
FAILURES = frozenset({"failed", "cancelled"})
"""Outcomes of which Ratchet.RunFailed tells. Of all others, Ratchet.RunFinished does."""


def settle(finish: Finish, to: Dependencies) -> Settled:
    """Included or quarantined: each claimed partition gets its state, and the record says how the run ended."""
    workspace = to.workspace(finish.pipeline, finish.run)
    claimed = [partition for partition in workspace.plan() if partition.new]
    outcomes = workspace.read_outcomes(claimed)
    for partition, outcome in zip(claimed, outcomes, strict=True):
        _settle_one(finish, partition, outcome, to)
    outrun = workspace.read_if_there(OUTRUN) is not None
    if not outrun:
        write_judged(to.blobs, finish.pipeline, Judged(**workspace.read(INPUTS), run=finish.run, at=to.now()))
    _write_record(finish, workspace, list(zip(claimed, outcomes, strict=True)), to)
    if finish.outcome == "kept":
        version = workspace.read("version.json")["version"]
        why = {"run": finish.run, "version": version, "who": f"run {finish.run}", "why": finish.sentence}
        to.tell(Notice("Ratchet.ModelRejected", finish.pipeline, finish.run, why))
    _tell_end(finish.outcome, finish.sentence, finish, to)
    _measure(finish, workspace, to)
    return Settled(_pending(finish.pipeline, to), stale=outrun)


def abandon(finish: Finish, to: Dependencies) -> Settled:
    """After a failure: gives the claims back, so that the next run takes them, and records why this one failed."""
    workspace = to.workspace(finish.pipeline, finish.run)
    plan = {partition.path: partition for partition in workspace.plan_if_there()}
    for row in list(to.ledger.rows(finish.pipeline, ("claimed",))):
        if row.run == finish.run:
            _give_back(row, plan.get(row.path), finish, to)
    write_failure(to.blobs, finish.pipeline, at=to.now())
    try:
        _write_record(finish, workspace, [], to, only_new=True)
    except BlobConflict:
        # Settling has come as far as the record, which says how the run ended.
        record = json.loads(to.blobs.get(record_path(finish.pipeline, finish.run)).data)
        _tell_end(record["outcome"], record["sentence"], finish, to)
    else:
        _tell_end(finish.outcome, finish.sentence, finish, to)
    return Settled(_pending(finish.pipeline, to))


def _give_back(row: Partition, planned: PlannedPartition | None, finish: Finish, to: Dependencies) -> None:
    """A partition without an outcome is what the run may have failed over; after its attempts it gets one."""
    workspace = to.workspace(finish.pipeline, finish.run)
    blamed = planned is not None and not workspace.is_judged(planned.key)
    if planned is not None and blamed and row.attempts + 1 >= MAX_ATTEMPTS:
        from models.rejection import PartitionRejected

        why = f"could not be processed in {MAX_ATTEMPTS} runs; the last one said: {finish.sentence}"
        rejection = PartitionRejected(planned.name, "not_processed", why)
        workspace.write_outcome(planned.key, set_file_aside(workspace, planned, rejection, to))
    to.ledger.release(row.pipeline, row.path, run=finish.run, reason=finish.sentence, now=to.now(), blamed=blamed)


def _settle_one(finish: Finish, partition: PlannedPartition, outcome: dict[str, Any], to: Dependencies) -> None:
    now = to.now()
    if outcome["state"] == "gone":
        # The new upload, if there is one, has its own row change; only a claim that still stands is given back.
        to.ledger.release(finish.pipeline, partition.path, run=finish.run, reason=outcome["reason"], now=now)
        return
    included = outcome["state"] == "clean"
    settlement = Settlement(
        partition.path, partition.etag, "included" if included else "quarantined", outcome.get("reason", "")
    )
    to.ledger.settle(finish.pipeline, settlement, run=finish.run, now=now)


def _write_record(
    finish: Finish,
    workspace: Workspace,
    claimed: Iterable[tuple[PlannedPartition, dict[str, Any]]],
    to: Dependencies,
    *,
    only_new: bool = False,
) -> None:
    evaluation, decision = workspace.read_if_there("evaluation.json"), workspace.read_if_there("decision.json")
    version, dataset = workspace.read_if_there("version.json"), workspace.read_if_there("dataset.json")
    record = {
        "run": finish.run,
        "pipeline": finish.pipeline,
        "started": finish.started,
        "finished": to.now(),
        "outcome": finish.outcome,
        "sentence": finish.sentence,
        "partitions": [_partition_entry(partition, outcome) for partition, outcome in claimed],
        "dataset": {name: dataset[name] for name in ("id", "rows", "classes", "holdout")} if dataset else None,
        "challenger": (
            {"version": version["version"], "metrics": evaluation["challenger"]} if version and evaluation else None
        ),
        "champion": (
            {"version": evaluation["champion_version"], "metrics": evaluation["champion"]}
            if evaluation and evaluation["champion"]
            else None
        ),
        "judged_rows": evaluation["rows"] if evaluation else 0,
        "slices": evaluation["slices"] if evaluation else [],
        "decision": decision,
        "steps": steps_of(finish, to.pricing),
        "cost": cost_of(finish, to.pricing),
    }
    data = json.dumps(record, indent=2, allow_nan=False).encode()
    path = record_path(finish.pipeline, finish.run)
    to.blobs.put(path, data, only_new=only_new, content_type="application/json")


def _partition_entry(partition: PlannedPartition, outcome: dict[str, Any]) -> dict[str, Any]:
    states = {"clean": "included", "quarantined": "quarantined", "gone": "gone"}
    return {
        "path": partition.path,
        "etag": partition.etag,
        "state": states[outcome["state"]],
        "rows": outcome.get("rows", 0),
        "rejected": outcome.get("rejected", 0),
        "left_out": outcome.get("left_out", 0),
        "reason": outcome.get("reason", ""),
        "report": outcome.get("report", ""),
    }


def _tell_end(outcome: str, sentence: str, finish: Finish, to: Dependencies) -> None:
    event: EventType = "Ratchet.RunFailed" if outcome in FAILURES else "Ratchet.RunFinished"
    data = {"run": finish.run, "outcome": outcome, "sentence": sentence}
    to.tell(Notice(event, finish.pipeline, finish.run, data))


def _measure(finish: Finish, workspace: Workspace, to: Dependencies) -> None:
    """Adds to the version what the run took and cost. The record has it too: a registry that is away ends no run."""
    version = workspace.read_if_there("version.json")
    if version is None:
        return
    figures = figures_of(finish, to.pricing)
    try:
        to.registry().measured(finish.pipeline, version["version"], figures, at=finish.started)
    except RegistryError as exc:
        log.warning("%s: the registry does not have the costs of run %s: %s", finish.pipeline, finish.run, exc)


def _pending(pipeline: str, to: Dependencies) -> int:
    return sum(1 for _ in to.ledger.rows(pipeline, ("pending",)))
