"""What a version has to pass to become the champion: by itself (at the end of its run, when a window opens, when nobody
decided in time) all of it, by a person's word the first.

    it serves                                   activities/pointing.py
    no version of its dataset was rolled back   that dataset does not come back by itself
    what it was compared with is live           or it has to be judged anew
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from activities.dependencies import Dependencies
from activities.live import Champion, DoesNotServe
from activities.pointing import checked, withdrawal
from models.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that may become the champion. `rival` is the champion that it was compared with, None for none."""

    pipeline: str
    version: int
    rival: int | None


@dataclass(frozen=True, slots=True)
class Objection:
    """What speaks against it, as the rest of a sentence."""

    kind: Literal["does not serve", "rolled back", "withdrawn", "outrun"]
    """`rolled back` itself, or `withdrawn` because another version of its dataset was."""
    sentence: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """It may go live. `outranked` is what a person decided against, as the rest of a sentence; '' for nothing."""

    manifest: Manifest
    outranked: str = ""


def admit(
    candidate: Candidate, champion: Champion | None, to: Dependencies, *, by_itself: bool = True
) -> Admitted | Objection:
    """Whether a version may become the champion, by itself or because a person says so."""
    try:
        manifest = checked(candidate.pipeline, candidate.version, to)
    except DoesNotServe as exc:
        return Objection("does not serve", str(exc))
    objections = list(_objections(candidate, manifest, champion))
    if by_itself and objections:
        return objections[0]
    return Admitted(manifest, ", and ".join(each.sentence for each in objections))


def _objections(candidate: Candidate, manifest: Manifest, champion: Champion | None) -> Iterator[Objection]:
    number, live = candidate.version, champion.version if champion else None
    withdrawn = withdrawal(champion.pointer, manifest.lineage.dataset, number) if champion else None
    if withdrawn is not None and withdrawn.version == number:
        yield Objection("rolled back", f"version {number} was rolled back ({withdrawn.why})")
    elif withdrawn is not None:
        same = f"version {number} comes from the same dataset as version {withdrawn.version}"
        yield Objection("withdrawn", f"{same}, which was rolled back ({withdrawn.why})")
    if live != candidate.rival:
        was, now = _named(candidate.rival), _named(live)
        yield Objection("outrun", f"version {number} was compared with {was}, but {now} is live by now")


def _named(version: int | None) -> str:
    return "no champion" if version is None else f"version {version}"
