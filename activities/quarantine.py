"""Where uploads go that cannot be used, or not wholly: beside a report for people, one for programs, and an event."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activities.dependencies import Dependencies
from activities.workspace import PlannedPartition, Workspace, at_once
from adapters.events import Notice

if TYPE_CHECKING:
    from models.partitions import Tally
    from models.quality import Report
    from models.rejection import PartitionRejected


ROWS = "rows.parquet"
"""Rejected rows, each with its number in the file and the reasons."""
MARKDOWN, JSON = "report.md", "report.json"
OURS = frozenset({ROWS, MARKDOWN, JSON})
"""Names that the copy of an upload may not have: somebody may upload what was set aside."""


def set_file_aside(
    workspace: Workspace,
    partition: PlannedPartition,
    rejection: PartitionRejected,
    to: Dependencies,
    upload: Path | None = None,
    rows: Path | None = None,
) -> dict[str, Any]:
    """Copies the file `upload`, if it was read, and its bad `rows`, if they could be told, beside a report.

    The partition's outcome. The upload itself is the user's and stays where it is.
    """
    from models.quality import file_report

    if upload is not None:
        name = f"upload-{partition.name}" if partition.name in OURS else partition.name
        to.blobs.put_file(workspace.quarantine_path(partition.path, partition.key, name), upload)
    if rows is not None:
        to.blobs.put_file(workspace.quarantine_path(partition.path, partition.key, ROWS), rows)
    path = _write(workspace, partition, file_report(rejection, name=partition.path), to)
    told = {"path": partition.path, "reason": str(rejection), "report": path}
    to.tell(Notice("Ratchet.DataQuarantined", workspace.pipeline, partition.key, told))
    return {"state": "quarantined", "code": rejection.code, "reason": str(rejection), "report": path}


def set_rows_aside(
    workspace: Workspace, partition: PlannedPartition, tally: Tally, rows: Path, to: Dependencies
) -> str:
    """Stores the rejected `rows` beside a report, and gives the report's path."""
    from models.quality import rows_report

    kept = partial(to.blobs.put_file, workspace.quarantine_path(partition.path, partition.key, ROWS), rows)
    written = partial(_write, workspace, partition, rows_report(tally, name=partition.path), to)
    report: str = at_once(kept, written)[1]
    reason = f"{tally.rejected:,} of {tally.rows_read:,} rows cannot be used"
    told = {"path": partition.path, "reason": reason, "report": report}
    to.tell(Notice("Ratchet.DataQuarantined", workspace.pipeline, partition.key, told))
    return report


def _write(workspace: Workspace, partition: PlannedPartition, report: Report, to: Dependencies) -> str:
    where = workspace.quarantine_path(partition.path, partition.key, MARKDOWN)
    beside = workspace.quarantine_path(partition.path, partition.key, JSON)
    document = json.dumps(report.document, indent=2).encode()
    at_once(
        partial(to.blobs.put, where, report.markdown.encode(), content_type="text/markdown; charset=utf-8"),
        partial(to.blobs.put, beside, document, content_type="application/json"),
    )
    return where
