"""Challengers that wait: for a person's approval, or for the hours in which the pipeline may change.

One document for each pipeline, `waiting.json`, changed by compare-and-swap. A newer challenger takes the place of one
that waits. What was decided is written down before it is done, so that it is done even when the process dies.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from activities.dependencies import Dependencies
from activities.live import read_champion
from activities.pointing import DoesNotServe, Reason, checked, point_at
from adapters.blobs import BlobConflict, BlobNotFound
from adapters.events import Notice
from adapters.pointer import MoveKind
from models.documents import read_document
from models.errors import RatchetError, bounded
from models.manifest import Manifest

if TYPE_CHECKING:
    from models.promotion import Promotion

type Verdict = Literal["approve", "reject"]
type Outcome = Literal["", "promoted", "rejected", "refused"]
TIMEOUT = "the time-out"


class NothingWaits(RatchetError):
    """No challenger waits under that id."""


class AlreadyDecided(RatchetError):
    """Somebody has decided, or a newer challenger has taken the place."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A challenger that waits, and what became of it. Times are ISO 8601 UTC.

    `id` is its run. It waits until `until`: for an approval, whose time-out then decides as `on_timeout` says, or for
    the window that opens then. `supersedes` is the version that waited until this one took its place.
    """

    id: str
    pipeline: str
    version: int
    mode: Literal["approval", "window"]
    since: str
    until: str
    on_timeout: Verdict
    sentence: str
    verdict: Verdict | None = None
    who: str = ""
    why: str = ""
    outcome: Outcome = ""
    detail: str = ""
    supersedes: int | None = None

    @property
    def open(self) -> bool:
        """Whether it still waits."""
        return self.outcome == ""


def read_waiting(pipeline: str, to: Dependencies) -> tuple[Waiting, str] | None:
    """The latest challenger that waited, with the document's eTag; None when none ever did."""
    try:
        blob = to.blobs.get(_path(pipeline))
    except BlobNotFound:
        return None
    return read_document(Waiting, json.loads(blob.data)), blob.etag


def hold_back(manifest: Manifest, promotion: Promotion, sentence: str, to: Dependencies) -> str | None:
    """Lets a challenger wait if its pipeline says so: a sentence about for what. None when it may go live now."""
    now = to.clock()
    if promotion.mode == "automatic" or (promotion.mode == "window" and promotion.is_open(now)):
        return None
    approval = promotion.mode == "approval"
    until = now + timedelta(hours=promotion.timeout_hours) if approval else promotion.next_opening(now)
    found = read_waiting(manifest.pipeline, to)
    waiting = Waiting(
        id=manifest.run,
        pipeline=manifest.pipeline,
        version=manifest.version,
        mode="approval" if approval else "window",
        since=to.now(),
        until=until.isoformat(timespec="seconds"),
        on_timeout=promotion.on_timeout if approval else "approve",
        sentence=sentence,
        supersedes=found[0].version if found is not None and found[0].open else None,
    )
    if found is not None and found[0].id == waiting.id:
        waiting = found[0]
    else:
        _write(waiting, found[1] if found else None, to)
    if approval:
        _ask(waiting, to)
    what = "approval" if approval else "the promotion window"
    return f"Version {waiting.version} waits for {what}, until {waiting.until}. {sentence}"


def decide(pipeline: str, waiting_id: str, verdict: Verdict, *, who: str, why: str, to: Dependencies) -> Waiting:
    """Approves or rejects what waits under this id, and does it. A repeat of the same verdict finds it done.

    Raises NothingWaits, AlreadyDecided, PointerMoved and what storage raises.
    """
    found = read_waiting(pipeline, to)
    if found is None:
        raise NothingWaits(f"no challenger of {pipeline} waits")
    waiting, etag = found
    if waiting.id != waiting_id:
        raise AlreadyDecided(
            f"{waiting_id} no longer waits: version {waiting.version} (id {waiting.id}) took its place"
        )
    if waiting.verdict is None and waiting.open:
        waiting, etag = _decided(waiting, etag, verdict, who=who, why=why, to=to)
    elif waiting.verdict != verdict:
        by = f"by {waiting.who} ({waiting.why})" if waiting.who else ""
        raise AlreadyDecided(f"version {waiting.version} was decided already: {waiting.verdict} {by}".strip())
    return waiting if not waiting.open else _carry_out(waiting, etag, to)


def tend(pipeline: str, to: Dependencies) -> Waiting | None:
    """Does what is due: a decision that was not carried out, a time-out, a window that has opened."""
    found = read_waiting(pipeline, to)
    if found is None or not found[0].open:
        return None
    waiting, etag = found
    if waiting.verdict is None:
        if to.clock() < datetime.fromisoformat(waiting.until):
            return None
        why = "nobody decided in time" if waiting.mode == "approval" else "the window is open"
        waiting, etag = _decided(waiting, etag, waiting.on_timeout, who=TIMEOUT, why=why, to=to)
    return _carry_out(waiting, etag, to)


def _decided(
    waiting: Waiting, etag: str, verdict: Verdict, *, who: str, why: str, to: Dependencies
) -> tuple[Waiting, str]:
    decided = replace(waiting, verdict=verdict, who=who, why=why)
    return decided, _write(decided, etag, to)


def _carry_out(waiting: Waiting, etag: str, to: Dependencies) -> Waiting:
    if waiting.verdict == "reject":
        done = replace(waiting, outcome="rejected")
        data = {"run": waiting.id, "version": waiting.version, "who": waiting.who, "why": waiting.why}
        to.tell(Notice("Ratchet.ModelRejected", waiting.pipeline, f"approval-{waiting.id}", data))
    else:
        done = _go_live(waiting, to)
    _write(done, etag, to)
    return done


def _go_live(waiting: Waiting, to: Dependencies) -> Waiting:
    champion = read_champion(to.blobs, waiting.pipeline)
    if champion is not None and any(move.run == waiting.id for move in champion.pointer.moves):
        return replace(waiting, outcome="promoted")
    kind: MoveKind = "approved" if waiting.mode == "approval" else "promoted"
    why = f"{waiting.why}. {waiting.sentence}" if waiting.why else waiting.sentence
    try:
        point_at(checked(waiting.pipeline, waiting.version, to), Reason(kind, waiting.who, why), champion, to)
    except DoesNotServe as exc:
        return replace(waiting, outcome="refused", detail=bounded(exc.reason))
    return replace(waiting, outcome="promoted")


def _ask(waiting: Waiting, to: Dependencies) -> None:
    data = {
        **{name: value for name, value in asdict(waiting).items() if name in ASKED},
        "report": f"{to.url}/api/pipelines/{waiting.pipeline}/runs/{waiting.id}",
        "answer": f"{to.url}/api/pipelines/{waiting.pipeline}/approvals/{waiting.id}",
    }
    to.tell(Notice("Ratchet.ApprovalNeeded", waiting.pipeline, waiting.id, data))


ASKED = frozenset({"id", "version", "since", "until", "on_timeout", "sentence", "supersedes"})


def _path(pipeline: str) -> str:
    return f"models/{pipeline}/waiting.json"


def _write(waiting: Waiting, etag: str | None, to: Dependencies) -> str:
    """The document's eTag. Raises AlreadyDecided when somebody else wrote it in between."""
    path, document = _path(waiting.pipeline), json.dumps(asdict(waiting), indent=2).encode()
    try:
        return to.blobs.put(path, document, if_match=etag, only_new=etag is None, content_type="application/json")
    except BlobConflict as exc:
        # The SDK repeats a write whose answer was lost, and meets its own first one.
        there = to.blobs.get(path)
        if there.data != document:
            raise AlreadyDecided(
                f"version {waiting.version} was decided on by somebody else in the same moment"
            ) from exc
        return there.etag
