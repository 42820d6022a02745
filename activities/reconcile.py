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

Each step may be repeated, and every change of the pointer is a compare-and-swap, so any number of reconcilers may work
at once. Moves of the pointer are told to who listens here too, so that one whose process died is told all the same; and
what was decided is written on the versions (activities/decisions.py).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from activities.decisions import MAX_TAG_CHARACTERS, of_moves, of_waiting, write_decisions
from activities.dependencies import Dependencies
from activities.live import Champion, read_champion
from activities.pointing import DoesNotServe, Reason, checked, point_at
from activities.waiting import read_waiting
from adapters.blobs import BlobConflict, BlobNotFound
from adapters.events import EventType, Notice
from adapters.pointer import LivePointer, Move, MoveKind
from adapters.registry import CHAMPION, PREVIOUS, NoSuchVersion, Registry
from models.errors import bounded

REFUSED_TAG = "ratchet.refused"
"""Why a version that somebody wished to be the champion is not."""
WHO = "the alias champion in the registry"
EVENTS: dict[MoveKind, EventType] = {
    "promoted": "Ratchet.ModelPromoted",
    "approved": "Ratchet.ModelPromoted",
    "followed": "Ratchet.ModelPromoted",
    "rolled back": "Ratchet.ModelRolledBack",
}

type Outcome = Literal["no champion", "in line", "alias moved", "pointer moved", "refused"]


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What was done. `version` is the champion afterwards, None before the first promotion."""

    outcome: Outcome
    version: int | None
    sentence: str


@dataclass(frozen=True, slots=True)
class Aligned:
    """aligned.json: the alias and the pointer were last seen to agree on `version` at `generation`.

    `told` is the last generation whose move was told to who listens, and `waited` what was last written in the registry
    about a challenger that waits. `etag` is the document's own.
    """

    generation: int = 0
    version: int = 0
    told: int = 0
    waited: str = ""
    etag: str | None = None


def reconcile(pipeline: str, to: Dependencies) -> Reconciled:
    """Brings alias and pointer in line, once. Raises RegistryError, PointerMoved and what storage raises."""
    aligned, champion = _read(pipeline, to), read_champion(to.blobs, pipeline)
    if champion is not None:
        aligned = tell_moves(champion.pointer, aligned, to)
    aligned = _tell_waiting(pipeline, aligned, to)
    if champion is None:
        return Reconciled("no champion", None, "there is no champion")
    registry, pointer = to.registry(), champion.pointer
    live, aliases = pointer.champion.version, registry.aliases(pipeline)
    alias = aliases.get(CHAMPION)
    if alias == live:
        _set_previous(registry, pointer, aliases)
        _note(registry, pointer, aligned, to)
        return Reconciled("in line", live, f"champion is version {live}")
    if alias is None or alias == aligned.version:
        registry.set_alias(pipeline, CHAMPION, live)
        _set_previous(registry, pointer, aliases)
        _note(registry, pointer, aligned, to)
        return Reconciled("alias moved", live, f"the alias champion is at version {live}")
    if aligned.generation != pointer.generation:
        reason = f"the champion was changed to version {live} ({pointer.why}) while the alias was moved, too"
        return _refuse(registry, pointer, aligned, alias, reason, to)
    return _follow_alias(registry, champion, aligned, alias, to)


def _follow_alias(registry: Registry, champion: Champion, aligned: Aligned, alias: int, to: Dependencies) -> Reconciled:
    pipeline = champion.pointer.pipeline
    try:
        manifest = checked(pipeline, alias, to)
    except DoesNotServe as exc:
        return _refuse(registry, champion.pointer, aligned, alias, exc.reason, to)
    reason = Reason("followed", WHO, f"the alias champion was moved to version {alias}")
    pointer = point_at(manifest, reason, champion, to)
    aligned = tell_moves(pointer, aligned, to)
    _set_previous(registry, pointer, {})
    _note(registry, pointer, aligned, to)
    return Reconciled("pointer moved", alias, f"version {alias} is live, as the alias wished")


def _refuse(
    registry: Registry, pointer: LivePointer, aligned: Aligned, alias: int, reason: str, to: Dependencies
) -> Reconciled:
    """The tag first: whoever sees the alias jump back finds it."""
    live = pointer.champion.version
    registry.tag(pointer.pipeline, alias, REFUSED_TAG, bounded(f"{to.now()}: {reason}", MAX_TAG_CHARACTERS))
    registry.set_alias(pointer.pipeline, CHAMPION, live)
    _set_previous(registry, pointer, {})
    _note(registry, pointer, aligned, to)
    return Reconciled("refused", live, f"version {alias} does not become the champion: {reason}")


def _set_previous(registry: Registry, pointer: LivePointer, aliases: Mapping[str, int]) -> None:
    if pointer.history and aliases.get(PREVIOUS) != pointer.history[0].version:
        with contextlib.suppress(NoSuchVersion):  # one that somebody deleted there is no reason to stop
            registry.set_alias(pointer.pipeline, PREVIOUS, pointer.history[0].version)


def tell_moves(pointer: LivePointer, aligned: Aligned, to: Dependencies) -> Aligned:
    """Tells the moves that were not told yet, oldest first. Whoever hears one twice knows it by its id."""
    untold = sorted((m for m in pointer.moves if m.generation > aligned.told), key=lambda move: move.generation)
    for move in untold:
        to.tell(_notice(pointer.pipeline, move))
    if not untold:
        return aligned
    return _write(pointer.pipeline, replace(aligned, told=pointer.generation), to)


def _notice(pipeline: str, move: Move) -> Notice:
    return Notice(EVENTS[move.kind], pipeline, str(move.generation), asdict(move))


def _note(registry: Registry, pointer: LivePointer, aligned: Aligned, to: Dependencies) -> None:
    now = replace(aligned, generation=pointer.generation, version=pointer.champion.version)
    if now != aligned:
        moves = [move for move in pointer.moves if move.generation > aligned.generation]
        write_decisions(registry, pointer.pipeline, of_moves(moves))
        _write(pointer.pipeline, now, to)


def _tell_waiting(pipeline: str, aligned: Aligned, to: Dependencies) -> Aligned:
    """Writes on a version that it waits, or how that ended, if that is not there yet."""
    found = read_waiting(pipeline, to)
    if found is None or aligned.waited == (now := f"{found[0].id} {found[0].outcome}"):
        return aligned
    if decisions := of_waiting(found[0]):
        write_decisions(to.registry(), pipeline, decisions)
    return _write(pipeline, replace(aligned, waited=now), to)


def _path(pipeline: str) -> str:
    return f"models/{pipeline}/aligned.json"


def _read(pipeline: str, to: Dependencies) -> Aligned:
    try:
        blob = to.blobs.get(_path(pipeline))
    except BlobNotFound:
        return Aligned()
    return Aligned(**json.loads(blob.data), etag=blob.etag)


def _write(pipeline: str, aligned: Aligned, to: Dependencies) -> Aligned:
    """Another reconciler's note, if there is one meanwhile, stands: this one's work is seen by the next."""
    document = {name: value for name, value in asdict(aligned).items() if name != "etag"}
    try:
        etag = to.blobs.put(
            _path(pipeline),
            json.dumps(document).encode(),
            if_match=aligned.etag,
            only_new=aligned.etag is None,
            content_type="application/json",
        )
    except BlobConflict:
        return aligned
    return replace(aligned, etag=etag)
