"""Back to an earlier version, at a person's wish. Needs storage only: the registry is brought in line afterwards."""

from __future__ import annotations

from activities.dependencies import Dependencies
from activities.live import Champion, read_champion
from activities.pointing import Reason, checked, point_at
from adapters.pointer import LivePointer, MoveKind
from models.errors import RatchetError


class NothingToRollBack(RatchetError):
    """There is no version to go back to."""


def rollback(pipeline: str, version: int | None, *, who: str, why: str, to: Dependencies) -> LivePointer:
    """Makes `version` the champion, or without one the version before that was not rolled back itself.

    The version that goes is marked: its dataset does not become the champion again by itself. Of its files none is
    needed. Raises NothingToRollBack, DoesNotServe and PointerMoved.
    """
    champion = read_champion(to.blobs, pipeline)
    if champion is None:
        raise NothingToRollBack(f"{pipeline} has no champion yet, so there is nothing to roll back")
    target = _previous(champion) if version is None else version
    if target == champion.version:
        raise NothingToRollBack(f"version {target} is the champion of {pipeline} already")
    # A later version, named by a person, is not a way back: nothing is wrong with the one that goes.
    forward = version is not None and version > champion.version
    kind: MoveKind = "approved" if forward else "rolled back"
    return point_at(checked(pipeline, target, to), Reason(kind, who, why), champion, to)


def _previous(champion: Champion) -> int:
    pointer = champion.pointer
    gone = {each.version for each in pointer.withdrawn} | {pointer.champion.version}
    for served in pointer.history:
        if served.version not in gone:
            return served.version
    raise NothingToRollBack(
        f"version {pointer.champion.version} of {pointer.pipeline} has no predecessor that was not rolled back; name a "
        "version to go to"
    )
