"""First wave of the fan-out: one partition becomes clean Parquet and a profile, or lands in quarantine."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from activities.contracts import Done, ItemRef
from activities.dependencies import Dependencies
from activities.quarantine import set_file_aside, set_rows_aside
from activities.uploads import TRAINING
from activities.workspace import PlannedPartition, Workspace, at_once
from adapters.blobs import BlobArchived, BlobConflict, BlobNotFound

if TYPE_CHECKING:
    from models.spec import PipelineSpec

MAX_FILE_BYTES = 2 * 1024**3
"""Largest upload that is read: a worker's temporary disk holds it beside what is made of it."""
CLOCKS_DIFFER = timedelta(days=1)
"""How far ahead of the run a row may be: whoever wrote it may live ahead of UTC and not have said so."""
RUNS_KEPT = 32
"""Runs whose spec a process remembers: each of their partitions asks for it."""


def validate(item: ItemRef, to: Dependencies) -> Done:
    """Reads, checks and cleans one partition, and stores its outcome under its key.

    The outcome's `state` is clean or quarantined; or gone (the blob was deleted or overwritten since the claim), which
    holds for this run only. A repeat writes the same again: to ask first would cost every partition two requests.
    """
    workspace = to.workspace(item.pipeline, item.run)
    partition = PlannedPartition(**workspace.read_item("validate", item.batch, item.index))
    if partition.size > MAX_FILE_BYTES:
        from models.rejection import PartitionRejected

        rejection = PartitionRejected(partition.name, "too_large", f"has {partition.size:,} bytes; it was not read")
        workspace.write_outcome(partition.key, set_file_aside(workspace, partition, rejection, to))
        return Done()
    with TemporaryDirectory(prefix="ratchet-", ignore_cleanup_errors=True) as folder:
        upload = Path(folder) / "upload"
        try:
            to.blobs.get_file(f"{TRAINING}/{partition.path}", upload, if_match=partition.etag)
        except (BlobConflict, BlobNotFound):
            workspace.write_gone(partition.key, "deleted or overwritten after the run had claimed it")
            return Done()
        except BlobArchived as exc:
            from models.rejection import PartitionRejected

            rejection = PartitionRejected(partition.name, "not_readable", f"cannot be read: {exc}")
            workspace.write_outcome(partition.key, set_file_aside(workspace, partition, rejection, to))
            return Done()
        workspace.write_outcome(partition.key, _outcome(workspace, partition, upload, to))
    return Done()


def _outcome(workspace: Workspace, partition: PlannedPartition, upload: Path, to: Dependencies) -> dict[str, Any]:
    from models.cleaning import clean_file
    from models.profiles import ProfileError
    from models.rejection import PartitionRejected

    name, clean, rejected = partition.name, upload.with_name("clean"), upload.with_name("rejected")
    spec, latest = _rules(workspace)
    try:
        cleaned = clean_file(upload, clean=clean, rejected=rejected, name=name, spec=spec, latest=latest)
    except PartitionRejected as exc:
        rows = rejected if exc.tally is not None else None
        return set_file_aside(workspace, partition, exc, to, upload, rows)
    except ProfileError as exc:
        rejection = PartitionRejected(name, "too_many_categories", f"cannot be used: {exc}", columns=[exc.column])
        return set_file_aside(workspace, partition, rejection, to, upload)
    tally = cleaned.tally
    report, store = "", partial(to.blobs.put_file, workspace.clean_path(partition.key), clean)
    if tally.rejected:
        _, report = at_once(store, partial(set_rows_aside, workspace, partition, tally, rejected, to))
    else:
        store()
    with upload.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "state": "clean",
        "content": content,
        "rows": tally.clean,
        "rejected": tally.rejected,
        "left_out": tally.left_out,
        "report": report,
        "profile": cleaned.profile.to_dict(),
    }


@lru_cache(maxsize=RUNS_KEPT)
def _rules(workspace: Workspace) -> tuple[PipelineSpec, datetime]:
    """The run's spec, and how late a row may be. No file of a run is read before both are settled."""
    return workspace.spec(), workspace.started() + CLOCKS_DIFFER
