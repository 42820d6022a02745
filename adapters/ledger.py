"""The ledger port: one row per (pipeline, path), and the state of each uploaded partition.

The rules are pure functions over rows (`sighted`, `vanished`, `claimed`, ...); an adapter has to read a row and to
write it back with a compare-and-swap. One adapter: adapters/table_ledger.py.

Events come twice, late and out of order, so nothing here trusts them: a sighting of an eTag that the ledger has is no
news, a sighting with an older sequencer than the row's is old news, and a claim looks at the blob itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from models.errors import RatchetError

PartitionState = Literal["pending", "claimed", "included", "quarantined", "failed", "superseded", "removed"]

TRANSITIONS: Mapping[PartitionState, frozenset[PartitionState]] = {
    "pending": frozenset({"pending", "claimed", "superseded", "removed"}),
    "claimed": frozenset({"pending", "claimed", "included", "quarantined", "failed", "superseded", "removed"}),
    "included": frozenset({"pending", "claimed", "superseded", "removed"}),
    "quarantined": frozenset({"pending", "claimed", "superseded", "removed"}),
    "failed": frozenset({"pending", "claimed", "superseded", "removed"}),
    "superseded": frozenset(),
    "removed": frozenset({"pending", "removed"}),
}
"""From each state, the states that may follow. Every other change is an IllegalTransition.

A content that is overwritten is superseded, for good: it is kept beside the row of the new content, which is pending.
"""

MAX_ATTEMPTS = 3
"""Runs that may fail over a partition before it is set aside as failed, so that it cannot stop the others for ever."""


class LedgerError(RatchetError):
    """The ledger could not be read or written. `path` is the partition's, or empty."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class IllegalTransition(LedgerError):
    """A change that the transition table does not know."""


class LedgerConflict(LedgerError):
    """A row kept changing under us. Worth trying again."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A blob was seen, by an event or by the sweep. `sequencer` is '' when it is not known (the sweep)."""

    path: str
    etag: str
    size: int
    sequencer: str = ""


@dataclass(frozen=True, slots=True)
class Partition:
    """A row of the ledger. `changed` is when its state last changed, in ISO 8601 UTC.

    `contract` is the fingerprint of the data contract that it was last judged by: under another one it has to be judged
    again, whatever its state. `attempts` counts the runs that failed over it. `hub` is the task hub of the run that
    claimed it.
    """

    pipeline: str
    path: str
    etag: str
    size: int
    state: PartitionState
    changed: str
    sequencer: str = ""
    run: str = ""
    attempts: int = 0
    reason: str = ""
    contract: str = ""
    hub: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a run takes a partition for: the content that the blob has now, and the data contract to judge it by.

    `hub` is the run's task hub: only there it can be seen whether the run is still alive.
    """

    run: str
    etag: str
    size: int
    contract: str
    hub: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a partition came out of a run. It is applied only to the claim of that run on that eTag."""

    path: str
    etag: str
    to: Literal["included", "quarantined"]
    reason: str = ""


def sighted(pipeline: str, row: Partition | None, sighting: Sighting, *, now: str) -> Partition | None:
    """The row after a sighting, or None when there is nothing to change.

    Of a content that the row has already (from the sweep, or from a claim's look at the blob) it keeps the sequencer,
    for older events to be older than. One with the row's own sequencer is the event that the row has, again.
    """
    fresh = Partition(pipeline, sighting.path, sighting.etag, sighting.size, "pending", now, sighting.sequencer)
    if row is None:
        return fresh
    if row.etag == sighting.etag and row.state != "removed":
        return replace(row, sequencer=sighting.sequencer) if _later(sighting.sequencer, row.sequencer) else None
    if sighting.sequencer and not _later(sighting.sequencer, row.sequencer):
        return None
    return replace(fresh, sequencer=sighting.sequencer or row.sequencer)


def vanished(pipeline: str, path: str, row: Partition | None, *, sequencer: str, now: str) -> Partition | None:
    """The row after its blob was deleted, or None when there is nothing to change.

    A deletion may be told before the creation that it undid: it leaves a row, for the late event to be older than.
    """
    if row is None:
        return Partition(pipeline, path, "", 0, "removed", now, sequencer, reason="deleted") if sequencer else None
    if row.state == "removed":
        return replace(row, sequencer=sequencer) if _later(sequencer, row.sequencer) else None
    if sequencer and not _later(sequencer, row.sequencer):
        return None
    return replace(row, state="removed", changed=now, sequencer=sequencer or row.sequencer, run="", reason="deleted")


def superseded(former: Partition | None, row: Partition, *, now: str) -> Partition | None:
    """What is kept of a row's former content when `row` takes its place; None when it has the same, or had none."""
    if former is None or former.state == "removed" or not former.etag or former.etag == row.etag:
        return None
    return moved(former, "superseded", now=now, run=former.run, reason=f"overwritten while {former.state}")


def moved(row: Partition, to: PartitionState, *, now: str, run: str = "", reason: str = "") -> Partition:
    """The row in its new state. Raises IllegalTransition."""
    if to not in TRANSITIONS[row.state]:
        raise IllegalTransition(row.path, f"{row.path} is {row.state}; it cannot become {to}")
    return replace(row, state=to, changed=now, run=run, reason=reason)


def claimed(row: Partition | None, known: Partition, claim: Claim, *, now: str) -> Partition | None:
    """The row claimed, or None when somebody changed it since it was `known` (newer content, another run's claim)."""
    if row is None:
        return None
    mine = row.state == "claimed" and (row.run, row.etag) == (claim.run, claim.etag)
    unchanged = (row.state, row.etag) == (known.state, known.etag) and row.state not in {"claimed", "removed"}
    if not (mine or unchanged):
        return None
    row = moved(row, "claimed", now=now, run=claim.run)
    return replace(row, etag=claim.etag, size=claim.size, contract=claim.contract, hub=claim.hub)


def settled(row: Partition | None, settlement: Settlement, *, run: str, now: str) -> Partition | None:
    """The row at the end of its run, or None when the claim no longer stands."""
    if row is None or row.state != "claimed" or row.run != run or row.etag != settlement.etag:
        return None
    return replace(moved(row, settlement.to, now=now, run=run, reason=settlement.reason), attempts=0)


def released(row: Partition | None, *, run: str, now: str, reason: str, blamed: bool) -> Partition | None:
    """A claimed row after its run failed: pending again, or failed. None: no such claim.

    Only a run that failed over this very partition (`blamed`) counts as an attempt: what befell the whole run says
    nothing against the data.
    """
    if row is None or row.state != "claimed" or row.run != run:
        return None
    attempts = row.attempts + blamed
    to: PartitionState = "failed" if blamed and attempts >= MAX_ATTEMPTS else "pending"
    return replace(moved(row, to, now=now, reason=reason), attempts=attempts)


def _later(sequencer: str, than: str) -> bool:
    """Whether a sequencer is behind another; every one is behind none at all.

    They compare as left-padded strings, within one blob's name only.
    """
    width = max(len(sequencer), len(than))
    return bool(sequencer) and (not than or sequencer.rjust(width, "0") > than.rjust(width, "0"))


class Ledger(Protocol):
    """Synchronous and safe to share between threads. Every method raises LedgerError when the table is away."""

    def see(self, pipeline: str, sighting: Sighting, *, now: str) -> bool:
        """Records a sighting; whether it was news."""
        ...

    def see_all(self, pipeline: str, sightings: Sequence[Sighting], *, now: str) -> int:
        """Records many sightings, of blobs that mostly have no row yet; how many were news."""
        ...

    def forget(self, pipeline: str, path: str, *, sequencer: str, now: str) -> bool:
        """Records that a blob was deleted; whether that was news."""
        ...

    def rows(self, pipeline: str, states: Sequence[PartitionState] = ()) -> Iterable[Partition]:
        """Rows of a pipeline by row key, only those in `states` when given; superseded ones only when asked for."""
        ...

    def claim(self, known: Partition, claim: Claim, *, now: str) -> Partition | None:
        """The row `known` claimed, or None when somebody changed it since it was read."""
        ...

    def settle(self, pipeline: str, settlement: Settlement, *, run: str, now: str) -> bool:
        """Ends a claim; whether the claim still stood (a new upload or another run may have taken it over)."""
        ...

    def release(self, pipeline: str, path: str, *, run: str, reason: str, now: str, blamed: bool = False) -> bool:
        """Gives a claim back after a failed run, `blamed` for the failure or not; whether the claim still stood."""
        ...
