"""Challengers that wait: for a person's approval, or for the hours in which the pipeline may change.

A newer challenger takes the place of one that waits. What was decided is written down before it is done
(activities/held.py), so that it is done even when the process dies.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from activities.admission import Candidate, Objection, admit
from activities.aligned import read_aligned
from activities.dependencies import Dependencies
from activities.held import AlreadyDecided, Fate, Found, NothingWaits, Verdict, Waiting, read_waiting, write_waiting
from activities.judged import judge_anew
from activities.live import Champion, read_champion
from activities.pointing import PointerMoved, Reason, point_at
from adapters.events import Notice
from adapters.pointer import HISTORY_LENGTH
from models.errors import bounded

if TYPE_CHECKING:
    from models.promotion import Promotion

__all__ = [
    "AlreadyDecided",
    "Challenger",
    "NothingWaits",
    "Waiting",
    "decide",
    "finish_decided",
    "hold_back",
    "read_waiting",
    "tend",
]

TIMEOUT = "the time-out"
MOST_LOOKS = 5
"""At a pointer that somebody else moves each time. What was decided stands, and is done at the next look."""


@dataclass(frozen=True, slots=True)
class Challenger:
    """A candidate that the gate let through in `run`, which need not be the run that made it; `sentence` says why."""

    run: str
    candidate: Candidate
    sentence: str


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a challenger waits for; the fields of Waiting."""

    mode: Literal["approval", "window"]
    until: str
    on_timeout: Verdict


def _terms(promotion: Promotion, now: datetime) -> _Terms | None:
    """None when a challenger may go live now."""
    if promotion.mode == "approval":
        until = now + timedelta(hours=promotion.timeout_hours)
        return _Terms("approval", until.isoformat(timespec="seconds"), promotion.on_timeout)
    if promotion.mode == "automatic" or promotion.is_open(now):
        return None
    return _Terms("window", promotion.next_opening(now).isoformat(timespec="seconds"), "approve")


def finish_decided(pipeline: str, to: Dependencies) -> Found | None:
    """The latest challenger that waited; what was decided about it is done by now. None when none ever did."""
    found = read_waiting(pipeline, to)
    if found is None or not found[0].open or found[0].verdict is None:
        return found
    _carry_out(*found, to)
    return read_waiting(pipeline, to)


def hold_back(
    challenger: Challenger, promotion: Promotion, found: Found | None, champion: Champion | None, to: Dependencies
) -> str | None:
    """Lets a challenger wait if its pipeline says so: a sentence about for what. None when it may go live now.

    It takes the place of the one that was `found` before the champion was read. A repeat finds it there. Raises
    AlreadyDecided when somebody decided about the former one since.
    """
    terms = _terms(promotion, to.clock())
    if terms is None:
        return None
    candidate = challenger.candidate
    if found is not None and found[0].id == challenger.run:
        waiting = found[0]
    else:
        since, former = to.now(), found[0] if found else None
        waiting = Waiting(
            id=challenger.run,
            pipeline=candidate.pipeline,
            version=candidate.version,
            **asdict(terms),
            since=since,
            sentence=challenger.sentence,
            supersedes=former.version if former is not None and former.open else None,
            generation=champion.pointer.generation if champion else 0,
            rival=candidate.rival,
            untold=_to_tell(former, candidate.version, since, to) if former else (),
        )
        write_waiting(waiting, found[1] if found else None, to)
    if waiting.mode == "approval" and waiting.open:
        _ask(waiting, to)
    what = "approval" if waiting.mode == "approval" else "the promotion window"
    return f"Version {waiting.version} waits for {what}, until {waiting.until}. {waiting.sentence}"


def _to_tell(former: Waiting, successor: int, since: str, to: Dependencies) -> tuple[Fate, ...]:
    """What the registry has still to hear of those that waited before `successor` did."""
    if former.open:
        superseded = Fate(former.version, "superseded", f"{since} version {successor} took its place")
        fates = (*_untold(former, to), superseded)
    elif _is_told(former, to):
        fates = ()
    else:
        fates = former.untold if former.fate is None else (*former.untold, former.fate)
    return fates[-HISTORY_LENGTH:]


def _untold(waiting: Waiting, to: Dependencies) -> tuple[Fate, ...]:
    return () if _is_told(waiting, to) else waiting.untold


def _is_told(waiting: Waiting, to: Dependencies) -> bool:
    """Whether the reconciler has written in the registry what this document says. What was told is not told again: the
    version may have gone live since.
    """
    return read_aligned(waiting.pipeline, to).waited == f"{waiting.id} {waiting.outcome}"


def decide(pipeline: str, waiting_id: str, verdict: Verdict, *, who: str, why: str, to: Dependencies) -> Waiting:
    """Approves or rejects what waits under this id, and does it. A repeat of the same verdict finds it done.

    Raises NothingWaits, AlreadyDecided, PointerMoved and what storage raises.
    """
    found = read_waiting(pipeline, to)
    if found is None:
        raise NothingWaits(f"no challenger of {pipeline} waits")
    waiting, etag = _known_live(*found, to)
    if waiting.id != waiting_id:
        raise AlreadyDecided(
            f"{waiting_id} does not wait now: the latest that did is version {waiting.version} (id {waiting.id})"
        )
    if waiting.mode == "approval" and waiting.is_due(to.clock()):
        tend(pipeline, to)  # the time-out comes first, whoever notices that it is over
        return decide(pipeline, waiting_id, verdict, who=who, why=why, to=to)
    if waiting.verdict is None and waiting.open:
        waiting = replace(waiting, verdict=verdict, who=who, why=why)
        etag = write_waiting(waiting, etag, to)
    elif waiting.verdict != verdict:
        by = f"by {waiting.who} ({waiting.why})" if waiting.who else ""
        raise AlreadyDecided(f"version {waiting.version} was decided already: {waiting.verdict} {by}".strip())
    return waiting if not waiting.open else _carry_out(waiting, etag, to)


def tend(pipeline: str, to: Dependencies) -> Waiting | None:
    """Does what is due: a decision that was not carried out, a time-out, a window that has opened."""
    found = read_waiting(pipeline, to)
    if found is None or not found[0].open:
        return None
    waiting, etag = _known_live(*found, to)
    if not waiting.open:
        return waiting
    if waiting.is_due(to.clock()):
        why = "nobody decided in time" if waiting.mode == "approval" else "the window is open"
        waiting = replace(waiting, verdict=waiting.on_timeout, who=TIMEOUT, why=why, by_itself=True)
        etag = write_waiting(waiting, etag, to)
    return None if waiting.verdict is None else _carry_out(waiting, etag, to)


def _known_live(waiting: Waiting, etag: str, to: Dependencies) -> Found:
    """The same; promoted, when somebody moved the alias to it while it waited: nobody has to decide any more."""
    champion = read_champion(to.blobs, waiting.pipeline)
    if not waiting.open or waiting.verdict is not None or champion is None or champion.version != waiting.version:
        return waiting, etag
    pointer = champion.pointer
    done = replace(waiting, verdict="approve", who=pointer.who, why=pointer.why, outcome="promoted")
    return done, write_waiting(replace(done, untold=_untold(done, to)), etag, to)


def _carry_out(waiting: Waiting, etag: str, to: Dependencies) -> Waiting:
    done = replace(waiting, outcome="rejected") if waiting.verdict == "reject" else _go_live(waiting, to)
    if done.outcome in {"rejected", "refused"}:
        data = {"run": done.id, "version": done.version, "who": done.who, "why": done.detail or done.why}
        to.tell(Notice("Ratchet.ModelRejected", done.pipeline, f"approval-{done.id}", data))
    if done.outcome:
        done = replace(done, untold=_untold(waiting, to))
    if done != waiting:
        try:
            write_waiting(done, etag, to)
        except AlreadyDecided:
            # Somebody else has carried it out meanwhile, and another challenger may wait by now.
            found = read_waiting(waiting.pipeline, to)
            return found[0] if found is not None and found[0].id == waiting.id else done
    return done


def _go_live(waiting: Waiting, to: Dependencies) -> Waiting:
    """Raises PointerMoved when it is overtaken each time."""
    for _ in range(MOST_LOOKS - 1):
        with contextlib.suppress(PointerMoved):
            return _try_to_go_live(waiting, to)
    return _try_to_go_live(waiting, to)


def _try_to_go_live(waiting: Waiting, to: Dependencies) -> Waiting:
    """What becomes of it. It waits on when its window has closed again."""
    champion, reason = read_champion(to.blobs, waiting.pipeline), _reason(waiting)
    if champion is not None and _is_done(waiting, reason, champion):
        return replace(waiting, outcome="promoted")
    if waiting.by_itself and waiting.mode == "window":
        later = _held_anew(waiting, to)
        if later is not None:
            return later
    candidate = Candidate(waiting.pipeline, waiting.version, waiting.rival)
    admitted = admit(candidate, champion, to, by_itself=waiting.by_itself)
    if isinstance(admitted, Objection):
        if admitted.kind == "outrun":
            judge_anew(to.blobs, waiting.pipeline, waiting.id)
        return replace(waiting, outcome="refused", detail=bounded(admitted.sentence))
    against = f"Approved although {admitted.outranked}." if admitted.outranked else ""
    point_at(admitted.manifest, replace(reason, why=f"{reason.why} {against}".strip()), champion, to)
    return replace(waiting, outcome="promoted", detail=bounded(against))


def _held_anew(waiting: Waiting, to: Dependencies) -> Waiting | None:
    """The same challenger, if it may not go live now: its window has closed, or its pipeline's file asks for something
    else by now. While that has a mistake, nobody knows.
    """
    from models.spec import SpecError

    try:
        terms = _terms(to.specs.load(waiting.pipeline).promotion, to.clock())
    except SpecError:
        return waiting
    if terms is None:
        return None
    later = replace(waiting, **asdict(terms), verdict=None, who="", why="", by_itself=False)
    if later.mode == "approval":
        _ask(later, to)
    return later


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
