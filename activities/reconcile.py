"""Wish and fact: the registry's alias `champion` is the wish, the live pointer is the fact; this makes them agree.

Which of the two was moved last is told by `aligned.json`, which says for which generation of the pointer the alias was
last seen to agree:

    alias           pointer since then     what happens
    agrees          any                    noted
    elsewhere       not moved              somebody moved the alias: the version goes live if it serves; if not, the
                                           alias is put back and the version gets a tag that says why
    as it was left  moved                  the alias follows the pointer
    elsewhere       moved                  both were moved and nothing says in which order: the pointer stays, which
                                           serving follows already; the alias is put back with a tag that says so
    deleted         any                    the alias is put back

Before the first champion, any alias is a wish. An alias that cannot be put back names nothing: there is no champion
yet, or the live version was deleted in the registry.

Each step may be repeated, and every change of the pointer is a compare-and-swap, so any number of reconcilers may work
at once; one that was overtaken looks again (activities/aligned.py). Moves of the pointer are told to who listens here
too, so that one whose process died is told all the same; and what was decided is written on the versions
(activities/decisions.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from activities.aligned import Aligned, Sent, read_aligned, write_aligned
from activities.decisions import MAX_TAG_CHARACTERS, of_moves, of_waiting, write_decisions
from activities.dependencies import Dependencies
from activities.live import Champion, DoesNotServe, read_champion
from activities.pointing import PointerMoved, Reason, checked, point_at
from activities.waiting import read_waiting
from adapters.events import EventType, Notice
from adapters.pointer import LivePointer, Move, MoveKind
from adapters.registry import CHAMPION, PREVIOUS, NoSuchVersion, Registry
from models.errors import bounded

REFUSED_TAG = "ratchet.refused"
"""Why a version that somebody wished to be the champion is not."""
GONE = (
    "the registry does not have it any more, so that no alias can name it. It is served all the same, until another "
    "version is promoted, wished for or rolled back to"
)
WHO = "the alias champion in the registry"
MOST_LOOKS = 5
"""Of one reconciler that is overtaken each time. Whoever overtakes it sees what it saw."""
EVENTS: dict[MoveKind, EventType] = {
    "promoted": "Ratchet.ModelPromoted",
    "approved": "Ratchet.ModelPromoted",
    "followed": "Ratchet.ModelPromoted",
    "rolled back": "Ratchet.ModelRolledBack",
}

type Outcome = Literal["no champion", "in line", "alias moved", "pointer moved", "refused", "gone"]


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was done. `version` is the champion afterwards, None before the first promotion."""

    outcome: Outcome
    version: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look has found. `champion` is None before the first promotion."""

    registry: Registry
    aliases: Mapping[str, int]
    champion: Champion | None
    aligned: Aligned

    @property
    def live(self) -> int | None:
        return self.champion.version if self.champion is not None else None


def reconcile(pipeline: str, to: Dependencies) -> Reconciled:
    """Brings alias and pointer in line. Raises RegistryError, PointerMoved and what storage raises."""
    looked = _Look(pipeline, to)
    for _ in range(MOST_LOOKS - 1):
        with contextlib.suppress(PointerMoved):
            return looked.once()
    return looked.once()


class _Look:
    """One reconciler at work. In all its looks it has made the moves `sent` of the alias, and has written what was
    decided since the generation `since`.
    """

    def __init__(self, pipeline: str, to: Dependencies) -> None:
        self.pipeline, self.to = pipeline, to
        self.sent: tuple[Sent, ...] = ()
        self.since: int | None = None

    def once(self) -> Reconciled:
        """Raises PointerMoved when another reconciler or mover came first: what is so now has to be looked at."""
        pipeline, to = self.pipeline, self.to
        aligned, champion = read_aligned(pipeline, to), read_champion(to.blobs, pipeline)
        if champion is not None:
            aligned = tell_moves(champion.pointer, aligned, to)
        aligned = _tell_waiting(pipeline, aligned, to)
        registry = to.registry()
        seen = _Seen(registry, registry.aliases(pipeline), champion, aligned)
        alias, live = seen.aliases.get(CHAMPION), seen.live
        if champion is None:
            return Reconciled("no champion", None, "there is no champion") if alias is None else self._follow(seen)
        pointer = champion.pointer
        agreed = aligned.agreed(pointer)
        if alias == live:
            self._note(seen, pointer, aligned)
            return Reconciled("in line", live, f"champion is version {live}")
        if alias is None or alias == agreed.version or aligned.is_late(alias, to.clock()):
            if self._put_back(seen):
                return Reconciled("alias moved", live, f"the alias champion is at version {live}")
            return Reconciled("gone", live, f"version {live} is live, but {GONE}")
        if agreed.generation != pointer.generation:
            reason = f"the champion was changed to version {live} ({pointer.why}) while the alias was moved, too"
            return self._refuse(seen, reason)
        return self._follow(seen)

    def _follow(self, seen: _Seen) -> Reconciled:
        alias = seen.aliases[CHAMPION]
        try:
            manifest = checked(self.pipeline, alias, self.to)
        except DoesNotServe as exc:
            return self._refuse(seen, exc.reason)
        reason = Reason("followed", WHO, f"the alias champion was moved to version {alias}")
        pointer = point_at(manifest, reason, seen.champion, self.to)
        self._note(seen, pointer, tell_moves(pointer, seen.aligned, self.to))
        return Reconciled("pointer moved", alias, f"version {alias} is live, as the alias wished")

    def _refuse(self, seen: _Seen, reason: str) -> Reconciled:
        """The tag first: whoever sees the alias jump back finds it."""
        alias = seen.aliases[CHAMPION]
        seen.registry.tag(self.pipeline, alias, REFUSED_TAG, bounded(f"{self.to.now()}: {reason}", MAX_TAG_CHARACTERS))
        self._put_back(seen)
        return Reconciled("refused", seen.live, f"version {alias} does not become the champion: {reason}")

    def _put_back(self, seen: _Seen) -> bool:
        """The alias to where the pointer is; whether it can be there. Else it names nothing: before the first champion,
        and where the registry does not have the live version any more.
        """
        pointer, aligned = seen.champion.pointer if seen.champion is not None else None, seen.aligned
        there = pointer is not None and seen.registry.knows(self.pipeline, pointer.champion.version)
        if pointer is not None and there:
            # Said first: done late, after the pointer has moved on, it would look like a wish.
            sent = Sent(pointer.champion.version, self.to.now())
            aligned = write_aligned(self.pipeline, replace(aligned, sent=(*aligned.sent, sent)), self.to)
            seen.registry.set_alias(self.pipeline, CHAMPION, sent.version)
            self.sent += (sent,)
        elif CHAMPION in seen.aliases:
            seen.registry.remove_alias(self.pipeline, CHAMPION)
        if pointer is not None:
            self._note(seen, pointer, aligned)
        return there

    def _note(self, seen: _Seen, pointer: LivePointer, aligned: Aligned) -> None:
        """Alias and pointer agree: the rest of what the registry says follows, and that it was so is written down."""
        now = replace(aligned, generation=pointer.generation, version=pointer.champion.version)
        now = now.without(self.sent, self.to.clock())
        overtaken = self.since is not None
        if _set_previous(seen, pointer) or now != aligned or overtaken:
            # Overtaken, it may have written an older decision over a later one.
            self.since = min(aligned.generation, aligned.generation if self.since is None else self.since)
            moves = [move for move in pointer.moves if move.generation > self.since]
            write_decisions(seen.registry, self.pipeline, of_moves(moves))
            write_aligned(self.pipeline, now, self.to)


def _set_previous(seen: _Seen, pointer: LivePointer) -> bool:
    """Whether the alias had to be moved. Where the version before was deleted in the registry, it names nothing."""
    before = pointer.history[0].version if pointer.history else None
    if before is None or seen.aliases.get(PREVIOUS) == before:
        return False
    try:
        seen.registry.set_alias(pointer.pipeline, PREVIOUS, before)
    except NoSuchVersion:
        if PREVIOUS not in seen.aliases:
            return False
        seen.registry.remove_alias(pointer.pipeline, PREVIOUS)
    return True


def tell_moves(pointer: LivePointer, aligned: Aligned, to: Dependencies) -> Aligned:
    """Tells the moves that were not told yet, oldest first. Whoever hears one twice knows it by its id."""
    untold = sorted((m for m in pointer.moves if m.generation > aligned.told), key=lambda move: move.generation)
    for move in untold:
        to.tell(_notice(pointer.pipeline, move))
    if not untold:
        return aligned
    return write_aligned(pointer.pipeline, replace(aligned, told=pointer.generation), to)


def _notice(pipeline: str, move: Move) -> Notice:
    return Notice(EVENTS[move.kind], pipeline, str(move.generation), asdict(move))


def _tell_waiting(pipeline: str, aligned: Aligned, to: Dependencies) -> Aligned:
    """Writes on a version that it waits, or how that ended, if that is not there yet."""
    found = read_waiting(pipeline, to)
    if found is None or aligned.waited == (now := f"{found[0].id} {found[0].outcome}"):
        return aligned
    if decisions := of_waiting(found[0]):
        write_decisions(to.registry(), pipeline, decisions)
    return write_aligned(pipeline, replace(aligned, waited=now), to)
