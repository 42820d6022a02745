"""First wave of the fan-out: one partition becomes clean Parquet and a profile, or lands in quarantine."""

from __future__ import annotations

import json
from typing import Any

from activities.contracts import Done, ItemRef
from activities.dependencies import Dependencies
from activities.uploads import TRAINING
from activities.workspace import PlannedPartition, Workspace
from adapters.blobs import BlobConflict, BlobNotFound
from adapters.events import Notice


def validate(item: ItemRef, to: Dependencies) -> Done:
    """Reads, checks and cleans one partition, and stores its outcome under its key.

    The outcome's `state` is clean, quarantined, or gone (the blob was deleted or overwritten since the claim).
    """
    workspace = to.workspace(item.pipeline, item.run)
    partition = PlannedPartition(**workspace.read_item("validate", item.batch, item.index))
    if not to.blobs.exists(workspace.outcome_path(partition.key)):
        outcome = _outcome(workspace, partition, to)
        data = json.dumps(outcome, sort_keys=True, allow_nan=False).encode()
        to.blobs.put(workspace.outcome_path(partition.key), data, content_type="application/json")
    return Done()


def _outcome(workspace: Workspace, partition: PlannedPartition, to: Dependencies) -> dict[str, Any]:
    from models.partitions import PartitionRejected, clean_partition, to_parquet
    from models.profiles import ProfileError, profile

    try:
        data = to.blobs.get(f"{TRAINING}/{partition.path}", if_match=partition.etag).data
    except (BlobConflict, BlobNotFound):
        return {"state": "gone", "reason": "deleted or overwritten after the run had claimed it"}
    spec = workspace.spec()
    name = partition.path.rpartition("/")[2]
    try:
        clean = clean_partition(data, name=name, spec=spec)
        summary = profile(clean.frame, spec)
    except PartitionRejected as exc:
        return _quarantine_file(workspace, partition, data, exc, to)
    except ProfileError as exc:
        rejection = PartitionRejected(name, "too_many_categories", f"cannot be used: {exc}", columns=[exc.column])
        return _quarantine_file(workspace, partition, data, rejection, to)
    outcome: dict[str, Any] = {
        "state": "clean",
        "rows": clean.frame.height,
        "rejected": clean.rejected.height,
        "report": "",
        "profile": summary.to_dict(),
    }
    if clean.rejected.height:
        outcome["report"] = _quarantine_rows(workspace, partition, clean, to)
    to.blobs.put(workspace.clean_path(partition.key), to_parquet(clean.frame))
    return outcome


def _quarantine_file(
    workspace: Workspace, partition: PlannedPartition, data: bytes, rejection: Any, to: Dependencies
) -> dict[str, Any]:
    """Copies the file beside a report. The upload itself is the user's and stays where it is."""
    from models.partitions import file_report

    report = file_report(rejection, name=partition.path)
    name = partition.path.rpartition("/")[2]
    to.blobs.put(workspace.quarantine_path(partition.path, partition.key, name), data)
    path = _write_report(workspace, partition, report.markdown, report.document, to)
    _tell(partition, workspace, path, str(rejection), to)
    return {"state": "quarantined", "code": rejection.code, "reason": str(rejection), "report": path}


def _quarantine_rows(workspace: Workspace, partition: PlannedPartition, clean: Any, to: Dependencies) -> str:
    from models.partitions import rows_report, to_parquet

    report = rows_report(clean, name=partition.path)
    path = workspace.quarantine_path(partition.path, partition.key, "rows.parquet")
    to.blobs.put(path, to_parquet(clean.rejected))
    return _write_report(workspace, partition, report.markdown, report.document, to)


def _write_report(
    workspace: Workspace, partition: PlannedPartition, markdown: str, document: dict[str, Any], to: Dependencies
) -> str:
    where = workspace.quarantine_path(partition.path, partition.key, "report.md")
    to.blobs.put(where, markdown.encode(), content_type="text/markdown; charset=utf-8")
    beside = workspace.quarantine_path(partition.path, partition.key, "report.json")
    to.blobs.put(beside, json.dumps(document, indent=2).encode(), content_type="application/json")
    return where


def _tell(partition: PlannedPartition, workspace: Workspace, report: str, reason: str, to: Dependencies) -> None:
    data = {"path": partition.path, "reason": reason, "report": report}
    to.events.publish(Notice("Ratchet.DataQuarantined", workspace.pipeline, partition.key, data))
