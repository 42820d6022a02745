"""The sweep's look at one pipeline: the container against the ledger, and the latest run against both.

The container is read page by page. A look that takes too long stops between two pages and leaves a cursor; the next one
goes on from there, so that a container of any size is compared in the end.
"""

from __future__ import annotations

import bisect
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from activities.dependencies import Dependencies
from activities.judged import Judged, inputs_digest, read_judged
from activities.uploads import TRAINING, is_allowed, is_upload
from activities.workspace import in_parallel, record_path
from adapters.blobs import BlobInfo, BlobNotFound
from adapters.events import Notice
from adapters.ledger import Partition, Sighting
from adapters.specs import UnknownPipeline
from models.errors import bounded

log = logging.getLogger("ratchet.sweep")

RETRY_AFTER = timedelta(minutes=15)
"""How long the sweep leaves a pipeline alone after a failed run: what made it fail seldom goes away in a minute, and
each try costs. A new upload, or a request, starts one at once."""
STRANGERS_CLAIM = timedelta(hours=24)
"""How long a claim of another task hub (another app on the same account) is left alone: whether its run is alive can
only be seen there, and no run takes so long."""
PATIENCE = timedelta(seconds=60)
"""How long one look may list. Far more than 100,000 blobs take; what is left is for the next one."""
JUDGED_STATES = frozenset({"included", "quarantined", "failed"})
UNDER_WAY = frozenset({"pending", "claimed"})


@dataclass(frozen=True, slots=True)
class Findings:
    """What the sweep found.

    `changes`: what the ledger did not have. `due`: partitions to be run now. `claims`: claimed ones. `stale`: the
    latest run was about something else than there is now. `scheduled`: the spec wants a run by now, whatever there is.
    """

    changes: int = 0
    due: int = 0
    claims: tuple[Partition, ...] = ()
    stale: bool = False
    scheduled: bool = False


def look_over(pipeline: str, to: Dependencies) -> Findings:
    """Brings the ledger in line with the container, and says what there is to do."""
    known = {row.path: row for row in to.ledger.rows(pipeline)}
    changes, news = compare(pipeline, known, to)
    now = to.clock()
    rows = list(to.ledger.rows(pipeline)) if changes else list(known.values())
    judged = read_judged(to.blobs, pipeline)
    return Findings(
        changes=changes,
        due=max(news, sum(_is_due(row, now) for row in rows)),
        claims=tuple(row for row in rows if row.state == "claimed"),
        stale=_is_stale(pipeline, rows, judged, now, to),
        scheduled=_is_scheduled(pipeline, judged, now, to),
    )


def compare(pipeline: str, known: dict[str, Partition], to: Dependencies) -> tuple[int, int]:
    """Changes that the ledger did not have, and how many of them are news to be judged.

    `known` is the ledger by path, read before the container: what is uploaded while that is listed is then new to both,
    not missing from one.
    """
    order = sorted(known)
    cursor = _read_cursor(pipeline, to)
    after, token = cursor
    changes = news = 0
    began = to.clock()
    for page in to.blobs.pages(f"{TRAINING}/{pipeline}/", token=token):
        blobs = {info.path.removeprefix(f"{TRAINING}/"): info for info in page.blobs}
        last = max(blobs, default=after) if page.token else ""
        news += _record_unseen(pipeline, blobs, known, to)
        changes += _forget_missing(pipeline, _between(order, after, last), blobs, known, to)
        after = max(after, last)
        if page.token and to.clock() - began > PATIENCE:
            _write_cursor(pipeline, (after, page.token), to)
            log.info("%s: the comparison goes on after %s in the next sweep", pipeline, after)
            return changes + news, news
    if cursor != ("", ""):
        _write_cursor(pipeline, ("", ""), to)
    return changes + news, news


def free(claims: Iterable[Partition], to: Dependencies, *, hub: str) -> int:
    """Gives back the claims of runs that are no more, and tells that these have failed; how many claims that were.
    Another hub's are not ours to judge, unless old.
    """
    freed, reason = 0, "its run ended without settling it"
    for row in claims:
        age = to.clock() - datetime.fromisoformat(row.changed)
        if row.hub in {"", hub} or age >= STRANGERS_CLAIM:
            if not to.blobs.exists(record_path(row.pipeline, row.run)):
                told = {"run": row.run, "outcome": "failed", "sentence": "The run ended without settling its uploads."}
                to.tell(Notice("Ratchet.RunFailed", row.pipeline, row.run, told))
            freed += to.ledger.release(row.pipeline, row.path, run=row.run, reason=reason, now=to.now())
    return freed


def _record_unseen(pipeline: str, blobs: dict[str, BlobInfo], known: dict[str, Partition], to: Dependencies) -> int:
    new, changed = list[Sighting](), list[Sighting]()
    for path, blob in blobs.items():
        row = known.get(path)
        if is_upload(path) and not is_allowed(path):
            log.warning("%s: %r is no name for an upload; it is left out", pipeline, bounded(path, 200))
        elif is_upload(path) and (row is None or row.etag != blob.etag or row.state == "removed"):
            (new if row is None else changed).append(Sighting(path, blob.etag, blob.size))
    seen = in_parallel(lambda sighting: to.ledger.see(pipeline, sighting, now=to.now()), changed)
    return to.ledger.see_all(pipeline, new, now=to.now()) + sum(seen)


def _forget_missing(
    pipeline: str, paths: Sequence[str], blobs: dict[str, BlobInfo], known: dict[str, Partition], to: Dependencies
) -> int:
    unseen = [path for path in paths if path not in blobs and known[path].state != "removed"]

    def forgotten(path: str) -> bool:
        # Asked for itself: it may have been put back since the listing went past its name.
        there = to.blobs.exists(f"{TRAINING}/{path}")
        return not there and to.ledger.forget(pipeline, path, sequencer="", now=to.now())

    return sum(in_parallel(forgotten, unseen))


def _between(order: list[str], after: str, last: str) -> Sequence[str]:
    """The paths behind `after` up to `last`, or to the end when that is ''."""
    return order[bisect.bisect_right(order, after) : bisect.bisect_right(order, last) if last else len(order)]


def _is_due(row: Partition, now: datetime) -> bool:
    """Whether a partition waits for a run. One that a failed run gave back (with a reason) waits a while first."""
    if row.state != "pending":
        return False
    return not row.reason or now - datetime.fromisoformat(row.changed) >= RETRY_AFTER


def _is_stale(pipeline: str, rows: list[Partition], judged: Judged, now: datetime, to: Dependencies) -> bool:
    from models.spec import SpecError

    try:
        spec = to.specs.load(pipeline)
    except (SpecError, UnknownPipeline):
        return False  # there is nothing to run before it is mended, and the status says so
    if judged.failed_at and now - datetime.fromisoformat(judged.failed_at) < RETRY_AFTER:
        return False
    if any(row.state in UNDER_WAY for row in rows):
        return False  # they are judged first, by whoever has them
    settled = [row for row in rows if row.state in JUDGED_STATES]
    newest = max((datetime.fromisoformat(row.changed) for row in rows), default=now)
    if not settled or now - newest < timedelta(seconds=spec.quiet.seconds):
        return False
    if any(row.contract != spec.data_fingerprint for row in settled):
        return True
    included = [(row.path, row.etag) for row in settled if row.state == "included"]
    return inputs_digest(included, spec.fingerprint) != judged.inputs


def _is_scheduled(pipeline: str, judged: Judged, now: datetime, to: Dependencies) -> bool:
    from models.spec import SpecError

    try:
        schedule = to.specs.load(pipeline).schedule
    except (SpecError, UnknownPipeline):
        return False
    if schedule is None or not judged.at:
        return False
    latest = max(judged.at, judged.failed_at)
    return now - datetime.fromisoformat(latest) >= timedelta(hours=schedule.hours)


def _cursor_path(pipeline: str) -> str:
    return f"features/{pipeline}/sweep.json"


def _read_cursor(pipeline: str, to: Dependencies) -> tuple[str, str]:
    """Up to which path the look before has come, and storage's token for the next page."""
    try:
        document = json.loads(to.blobs.get(_cursor_path(pipeline)).data)
    except BlobNotFound:
        return "", ""
    return str(document["after"]), str(document["token"])


def _write_cursor(pipeline: str, cursor: tuple[str, str], to: Dependencies) -> None:
    document = json.dumps({"after": cursor[0], "token": cursor[1]}).encode()
    to.blobs.put(_cursor_path(pipeline), document, content_type="application/json")
