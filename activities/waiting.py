"""Challengers that wait: for a person's approval, or for the hours in which the pipeline may change.

A newer challenger takes the place of one that waits. What was decided is written down before it is done
(activities/held.py), so that it is done even when the process dies.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from activities.dependencies import Dependencies
from activities.held import AlreadyDecided, NothingWaits, Verdict, Waiting, read_waiting, write_waiting
from activities.live import Champion, read_champion
from activities.pointing import DoesNotServe, Reason, checked, point_at
from adapters.events import Notice
from models.errors import bounded

if TYPE_CHECKING:
    from models.promotion import Promotion

__all__ = ["AlreadyDecided", "Challenger", "NothingWaits", "Waiting", "decide", "hold_back", "read_waiting", "tend"]

TIMEOUT = "the time-out"


@dataclass(frozen=True, slots=True)
class Challenger:
    """A version that the gate let through in `run`, which need not be the run that made it; `sentence` says why."""

    pipeline: str
    run: str
    version: int
    sentence: str


def hold_back(challenger: Challenger, promotion: Promotion, champion: Champion | None, to: Dependencies) -> str | None:
    """Lets a challenger wait if its pipeline says so: a sentence about for what. None when it may go live now.

    A repeat finds it there. Raises AlreadyDecided when somebody else decided about the former one in the same moment.
    """
    now = to.clock()
    if promotion.mode == "automatic" or (promotion.mode == "window" and promotion.is_open(now)):
        return None
    approval = promotion.mode == "approval"
    found = read_waiting(challenger.pipeline, to)
    if found is not None and found[0].id == challenger.run:
        waiting = found[0]
    else:
        until = now + timedelta(hours=promotion.timeout_hours) if approval else promotion.next_opening(now)
        waiting = Waiting(
            id=challenger.run,
            pipeline=challenger.pipeline,
            version=challenger.version,
            mode="approval" if approval else "window",
            since=to.now(),
            until=until.isoformat(timespec="seconds"),
            on_timeout=promotion.on_timeout if approval else "approve",
            sentence=challenger.sentence,
            supersedes=found[0].version if found is not None and found[0].open else None,
            generation=champion.pointer.generation if champion else 0,
        )
        write_waiting(waiting, found[1] if found else None, to)
    if waiting.mode == "approval" and waiting.open:
        _ask(waiting, to)
    what = "approval" if waiting.mode == "approval" else "the promotion window"
    return f"Version {waiting.version} waits for {what}, until {waiting.until}. {waiting.sentence}"


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
            f"{waiting_id} does not wait now: the latest that did is version {waiting.version} (id {waiting.id})"
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
        if not waiting.is_due(to.clock()):
            return None
        why = "nobody decided in time" if waiting.mode == "approval" else "the window is open"
        waiting, etag = _decided(waiting, etag, waiting.on_timeout, who=TIMEOUT, why=why, to=to)
    return _carry_out(waiting, etag, to)


def _decided(
    waiting: Waiting, etag: str, verdict: Verdict, *, who: str, why: str, to: Dependencies
) -> tuple[Waiting, str]:
    decided = replace(waiting, verdict=verdict, who=who, why=why)
    return decided, write_waiting(decided, etag, to)


def _carry_out(waiting: Waiting, etag: str, to: Dependencies) -> Waiting:
    if waiting.verdict == "reject":
        done = replace(waiting, outcome="rejected")
        data = {"run": waiting.id, "version": waiting.version, "who": waiting.who, "why": waiting.why}
        to.tell(Notice("Ratchet.ModelRejected", waiting.pipeline, f"approval-{waiting.id}", data))
    else:
        done = _go_live(waiting, to)
    write_waiting(done, etag, to)
    return done


def _go_live(waiting: Waiting, to: Dependencies) -> Waiting:
    champion = read_champion(to.blobs, waiting.pipeline)
    reason = _reason(waiting)
    if champion is not None and _is_done(waiting, reason, champion):
        return replace(waiting, outcome="promoted")
    try:
        point_at(checked(waiting.pipeline, waiting.version, to), reason, champion, to)
    except DoesNotServe as exc:
        return replace(waiting, outcome="refused", detail=bounded(exc.reason))
    return replace(waiting, outcome="promoted")


def _reason(waiting: Waiting) -> Reason:
    why = f"{waiting.why}. {waiting.sentence}" if waiting.why else waiting.sentence
    return Reason("approved" if waiting.mode == "approval" else "promoted", waiting.who, why)


def _is_done(waiting: Waiting, reason: Reason, champion: Champion) -> bool:
    """Whether the version is live, or was after it began to wait by this very decision, which moved on since."""
    pointer = champion.pointer
    return pointer.champion.version == waiting.version or any(
        move.generation > waiting.generation
        and (move.version, move.kind, move.who) == (waiting.version, reason.kind, reason.who)
        and move.why.startswith(reason.why)
        for move in pointer.moves
    )


def _ask(waiting: Waiting, to: Dependencies) -> None:
    data = {
        **{name: value for name, value in asdict(waiting).items() if name in ASKED},
        "report": f"{to.url}/api/pipelines/{waiting.pipeline}/runs/{waiting.id}",
        "answer": f"{to.url}/api/pipelines/{waiting.pipeline}/approvals/{waiting.id}",
    }
    to.tell(Notice("Ratchet.ApprovalNeeded", waiting.pipeline, waiting.id, data))


ASKED = frozenset({"id", "version", "since", "until", "on_timeout", "sentence", "supersedes"})
