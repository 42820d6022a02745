"""Look at what waits in the ledger, and claim it for a run."""

from __future__ import annotations

import logging
import unicodedata
from dataclasses import asdict

from activities.contracts import Claimed, RetrainRequest, RunRef, Uploads
from activities.dependencies import Dependencies
from activities.workspace import PlannedPartition, existing_keys, in_parallel, partition_key
from adapters.blobs import MAX_NAME_CHARACTERS, BlobNotFound
from adapters.events import Notice
from adapters.ledger import Claim, Partition
from adapters.specs import UnknownPipeline

log = logging.getLogger("ratchet.uploads")

TRAINING = "training"
"""The container that users upload to. The app never writes to it."""
CLAIMED = "claimed.json"
"""A run's answer to the claim, once its plan is whole."""
CONTROLS = frozenset({"Cc", "Cs"})
"""Unicode's categories: control characters, and halves of characters."""


def is_upload(path: str) -> bool:
    """Whether a blob of the training container is a partition: names that end in a slash only stand for folders."""
    return not path.endswith("/")


def is_allowed(path: str) -> bool:
    """Whether an upload may be called so. Names that storage would not take, that mean another place, or that would
    break up a log come from nobody's upload."""
    controls = any(unicodedata.category(character) in CONTROLS for character in path)
    return not controls and len(path) <= MAX_NAME_CHARACTERS and not {".", ".."} & set(path.split("/"))


def look(request: RetrainRequest, to: Dependencies) -> Uploads:
    """How much is pending, and since when; or what is wrong with the pipeline's file."""
    from models.spec import SpecError

    try:
        spec = to.specs.load(request.pipeline)
    except (SpecError, UnknownPipeline) as exc:
        # No error of the run's: trying again does not help, mending the file does.
        log.warning("%s cannot be retrained: %s", request.pipeline, exc)
        return Uploads(problem=str(exc))
    changed = [row.changed for row in to.ledger.rows(request.pipeline, ("pending",))]
    return Uploads(
        pending=len(changed),
        oldest=min(changed, default=""),
        newest=max(changed, default=""),
        quiet_seconds=spec.quiet.seconds,
        longest_wait_seconds=spec.quiet.longest_wait_seconds,
    )


def claim(run: RunRef, to: Dependencies) -> Claimed:
    """Claims every partition that this run has to judge, and writes the run's plan.

    Those are the pending ones, and all that were judged by another data contract than the pipeline's file has now. The
    blob itself says which eTag is current: a late or stale event cannot make the run read something old. A repeat keeps
    what an earlier try has claimed; once one has come to its end, the plan is made, and others may be at work on it.
    """
    workspace = to.workspace(run.pipeline, run.run)
    if (made := workspace.read_if_there(CLAIMED)) is not None:
        return Claimed.from_dict(made)
    fingerprint = to.specs.load(run.pipeline).data_fingerprint
    workspace.write("run.json", {"spec": to.specs.text(run.pipeline), "started": run.started})
    rows = list(to.ledger.rows(run.pipeline, ("pending", "claimed", "included", "quarantined", "failed")))
    mine = [row for row in rows if row.state == "claimed" and row.run == run.run]
    open_rows = [
        row for row in rows if row.state == "pending" or (row.state != "claimed" and row.contract != fingerprint)
    ]
    claimed = in_parallel(lambda row: _claim_one(row, run, fingerprint, to), open_rows)
    kept = [row for row in rows if row.state == "included" and row.contract == fingerprint]
    partitions = [
        PlannedPartition(row.path, row.etag, row.size, partition_key(row.path, row.etag, fingerprint), new)
        for group, new in ((mine, True), (claimed, True), (kept, False))
        for row in group
        if row is not None
    ]
    partitions.sort(key=lambda partition: partition.path)
    known = existing_keys(to.blobs, workspace.outcomes_prefix())
    todo = [asdict(partition) for partition in partitions if partition.key not in known]
    batches = workspace.write_batches("validate", todo)
    workspace.write("plan.json", [asdict(partition) for partition in partitions])
    started = {"run": run.run, "partitions": len(partitions), "new": sum(partition.new for partition in partitions)}
    to.tell(Notice("Ratchet.RunStarted", run.pipeline, run.run, started))
    answer = Claimed(todo=len(todo), batches=batches)
    workspace.write(CLAIMED, answer.to_dict())
    return answer


def _claim_one(row: Partition, run: RunRef, contract: str, to: Dependencies) -> Partition | None:
    try:
        blob = to.blobs.head(f"{TRAINING}/{row.path}")
    except BlobNotFound:
        to.ledger.forget(row.pipeline, row.path, sequencer="", now=to.now())
        return None
    return to.ledger.claim(row, Claim(run.run, blob.etag, blob.size, contract, run.hub), now=to.now())
