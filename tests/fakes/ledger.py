"""The ledger in memory: the same rules as the real one, without a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from adapters import ledger
from adapters.ledger import Claim, Partition, PartitionState, Settlement, Sighting


class MemoryLedger:
    """Implements adapters.ledger.Ledger."""

    def __init__(self) -> None:
        self.by_path: dict[tuple[str, str], Partition] = {}
        self.superseded: list[Partition] = []

    def see(self, pipeline: str, sighting: Sighting, *, now: str) -> bool:
        row = self.by_path.get((pipeline, sighting.path))
        return self._keep(ledger.sighted(pipeline, row, sighting, now=now))

    def see_all(self, pipeline: str, sightings: Sequence[Sighting], *, now: str) -> int:
        return sum(self.see(pipeline, sighting, now=now) for sighting in sightings)

    def forget(self, pipeline: str, path: str, *, sequencer: str, now: str) -> bool:
        row = self.by_path.get((pipeline, path))
        return self._keep(ledger.vanished(pipeline, path, row, sequencer=sequencer, now=now))

    def rows(self, pipeline: str, states: Sequence[PartitionState] = ()) -> Iterable[Partition]:
        former = self.superseded if "superseded" in states else []
        rows = sorted([*self.by_path.values(), *former], key=lambda row: row.path)
        return [row for row in rows if row.pipeline == pipeline and (not states or row.state in states)]

    def claim(self, known: Partition, claim: Claim, *, now: str) -> Partition | None:
        row = self.by_path.get((known.pipeline, known.path))
        claimed = ledger.claimed(row, known, claim, now=now)
        self._keep(claimed)
        return claimed

    def settle(self, pipeline: str, settlement: Settlement, *, run: str, now: str) -> bool:
        row = self.by_path.get((pipeline, settlement.path))
        return self._keep(ledger.settled(row, settlement, run=run, now=now))

    def release(self, pipeline: str, path: str, *, run: str, reason: str, now: str, blamed: bool = False) -> bool:
        row = self.by_path.get((pipeline, path))
        return self._keep(ledger.released(row, run=run, now=now, reason=reason, blamed=blamed))

    def state(self, path: str) -> PartitionState:
        """The state of the one partition with this path."""
        (row,) = [row for row in self.by_path.values() if row.path == path]
        return row.state

    def put(self, row: Partition, **changes: object) -> None:
        """A row as a test needs it."""
        row = replace(row, **changes)  # type: ignore[arg-type]
        self.by_path[row.pipeline, row.path] = row

    def _keep(self, row: Partition | None) -> bool:
        if row is None:
            return False
        former = ledger.superseded(self.by_path.get((row.pipeline, row.path)), row, now=row.changed)
        self.superseded += [] if former is None else [former]
        self.by_path[row.pipeline, row.path] = row
        return True
