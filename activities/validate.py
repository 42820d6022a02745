"""First wave of the fan-out: one partition becomes clean Parquet and a profile, or lands in quarantine."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from activities.contracts import Done, ItemRef
from activities.dependencies import Dependencies
from activities.quarantine import set_file_aside, set_rows_aside
from activities.uploads import TRAINING
from activities.workspace import PlannedPartition, Workspace
from adapters.blobs import BlobArchived, BlobConflict, BlobNotFound

MAX_FILE_BYTES = 1024**3
"""Largest upload that is read: it is read whole, and a worker has some gigabytes."""
CLOCKS_DIFFER = timedelta(days=1)
"""How far ahead of the run a row may be: whoever wrote it may live ahead of UTC and not have said so."""


def validate(item: ItemRef, to: Dependencies) -> Done:
    """Reads, checks and cleans one partition, and stores its outcome under its key.

    The outcome's `state` is clean or quarantined; or gone (the blob was deleted or overwritten since the claim), which
    holds for this run only.
    """
    workspace = to.workspace(item.pipeline, item.run)
    partition = PlannedPartition(**workspace.read_item("validate", item.batch, item.index))
    if workspace.is_judged(partition.key):
        return Done()
    if partition.size > MAX_FILE_BYTES:
        from models.reading import PartitionRejected

        rejection = PartitionRejected(partition.name, "too_large", f"has {partition.size:,} bytes; it was not read")
        workspace.write_outcome(partition.key, set_file_aside(workspace, partition, rejection, to))
        return Done()
    try:
        data = to.blobs.get(f"{TRAINING}/{partition.path}", if_match=partition.etag).data
    except (BlobConflict, BlobNotFound):
        workspace.write_gone(partition.key, "deleted or overwritten after the run had claimed it")
        return Done()
    except BlobArchived as exc:
        from models.reading import PartitionRejected

        rejection = PartitionRejected(partition.name, "not_readable", f"cannot be read: {exc}")
        workspace.write_outcome(partition.key, set_file_aside(workspace, partition, rejection, to))
        return Done()
    workspace.write_outcome(partition.key, _outcome(workspace, partition, data, to))
    return Done()


def _outcome(workspace: Workspace, partition: PlannedPartition, data: bytes, to: Dependencies) -> dict[str, Any]:
    from models.partitions import clean_partition, to_parquet
    from models.profiles import ProfileError, profile
    from models.reading import PartitionRejected

    spec = workspace.spec()
    name = partition.name
    try:
        clean = clean_partition(data, name=name, spec=spec, latest=workspace.started() + CLOCKS_DIFFER)
        summary = profile(clean.frame, spec)
    except PartitionRejected as exc:
        return set_file_aside(workspace, partition, exc, to, data)
    except ProfileError as exc:
        rejection = PartitionRejected(name, "too_many_categories", f"cannot be used: {exc}", columns=[exc.column])
        return set_file_aside(workspace, partition, rejection, to, data)
    report = set_rows_aside(workspace, partition, clean, to) if clean.rejected.height else ""
    to.blobs.put(workspace.clean_path(partition.key), to_parquet(clean.frame))
    return {
        "state": "clean",
        "rows": clean.frame.height,
        "rejected": clean.rejected.height,
        "left_out": clean.left_out,
        "report": report,
        "profile": summary.to_dict(),
    }
