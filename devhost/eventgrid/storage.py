"""The storage source: writes in Azurite's access log become events for the subscriptions that want them.

The log is followed from where it was left. When that may have missed something (after a start, or a log truncated or
replaced), storage is then compared with what was told; see catch_up.py.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from devhost.eventgrid.access_log import (
    BLOB_ALTERED,
    BLOB_CREATED,
    BLOB_DELETED,
    BlobWrite,
    LogFollower,
    Position,
    parse_line,
)
from devhost.eventgrid.catch_up import ListedBlob, compare, container_matters
from devhost.eventgrid.errors import EventGridError
from devhost.eventgrid.events import BlobProperties, Event, blob_event
from devhost.eventgrid.faults import Faults
from devhost.eventgrid.intake import Wanted, fated, report
from devhost.eventgrid.store import Known, Progress, Store
from devhost.eventgrid.subscriptions import STORAGE, Subscription

POLL_SECONDS = 0.005
"""How often the log is looked at. It is most of what an event takes on its way, and costs two hundredths of a CPU."""
AWAY_SECONDS = 1.0
"""Pause before asking storage again when it does not answer."""
HEADS_AT_ONCE = 16
LOG_LAG_SECONDS = 0.05
"""What storage shows is in the log after this time at the latest: usually it takes less than a millisecond."""
LISTINGS = 5
"""How often storage is listed for one comparison while writes go on, before one that they overlap has to do."""


class StorageAway(EventGridError):
    """Azurite does not answer."""


class Storage(Protocol):
    """Asks storage what the access log does not tell. All methods raise StorageAway."""

    account: str
    endpoint: str

    async def head(self, *, container: str, name: str) -> BlobProperties | None:
        """The blob's properties; None when it is gone by now."""
        ...

    async def containers(self) -> list[str]:
        """The names of all containers."""
        ...

    async def blobs(self, *, container: str) -> list[ListedBlob]:
        """All blobs of a container."""
        ...


@dataclass(slots=True)
class _Batch:
    """What one transaction will hold."""

    wanted: list[Wanted] = field(default_factory=list)
    known: list[Known] = field(default_factory=list)
    occurrences: dict[str, int] = field(default_factory=dict)


class StorageSource:
    """Turns writes into events, stored together with the place in the log and what is known of each blob."""

    def __init__(
        self,
        *,
        log: Path,
        storage: Storage,
        store: Store,
        subscriptions: Sequence[Subscription],
        accepted: Callable[[], None],
        faults: Faults,
        from_end: bool = False,
    ) -> None:
        """`accepted` is called after events were stored. `from_end` skips what an unknown log already holds."""
        self._follower = LogFollower(log, store.position())
        if from_end and store.position() is None and (end := self._follower.end()) is not None:
            self._follower.advance(end)
        self._follower.gap = store.gap()
        self._storage = storage
        self._store = store
        self._subscriptions = [subscription for subscription in subscriptions if subscription.source == STORAGE]
        self._since = {each.name: store.since(each.name, each.filters) for each in self._subscriptions}
        self._accepted = accepted
        self._faults = faults
        self._sequence = store.sequence()
        self._behind = bool(self._subscriptions)
        self._ahead: dict[tuple[str, str], str] = {}
        self._problem = ""
        self._listings = 1

    async def run(self) -> None:
        """Until cancelled. The place moves on only when everything before it is stored."""
        while True:
            try:
                worked = await self.step()
            except (StorageAway, sqlite3.Error) as error:
                problem = str(error) if isinstance(error, StorageAway) else f"The state cannot be written ({error})."
                if problem != self._problem:
                    print(f"{problem} Trying again.", flush=True)
                self._problem = problem
                await asyncio.sleep(AWAY_SECONDS)
                continue
            if not worked:
                await asyncio.sleep(POLL_SECONDS)

    async def step(self) -> bool:
        """Deals with some lines of the log or, when there are none, catches up once. Whether there was work."""
        lines, position = self._follower.read()
        if position is not None and lines:
            await self._accept(lines, position)
            self._follower.advance(position)
            self._problem = ""
            return True
        gap = self._follower.gap
        if not (gap or self._behind):
            return False
        containers, listed = await self._list()
        if self._listings < LISTINGS and await self._moved():
            self._listings += 1
            return True  # the log is taken first, then storage is listed again
        if gap:
            print(f"{self._follower.log} was truncated or replaced: comparing storage with what was told.", flush=True)
        self._catch_up(containers, listed)
        self._follower.gap = self._behind = False
        self._listings = 1
        return True

    async def _moved(self) -> bool:
        """Whether blobs were written since the log was last read, so that a listing may show what it does not."""
        await asyncio.sleep(LOG_LAG_SECONDS)
        lines, _ = self._follower.read()
        writes = (write for line in lines if (write := parse_line(line)) is not None)
        return any(self._covering(write) for write in writes)

    async def _list(self) -> tuple[list[str], list[ListedBlob]]:
        containers = [
            container
            for container in await self._storage.containers()
            if any(container_matters(each, container) for each in self._subscriptions)
        ]
        return containers, [blob for each in containers for blob in await self._storage.blobs(container=each)]

    async def _accept(self, lines: Sequence[bytes], position: Position) -> None:
        writes = [write for line in lines if (write := parse_line(line)) is not None]
        covered = [(write, covering) for write in writes if (covering := self._covering(write))]
        limit = asyncio.Semaphore(HEADS_AT_ONCE)
        found = await asyncio.gather(*(self._head(write, covering, limit) for write, covering in covered))
        batch = _Batch()
        for (write, covering), properties in zip(covered, found, strict=True):
            if write.event_type == BLOB_ALTERED:
                self._altered(batch, write, properties, covering)
            else:
                self._written(batch, write, properties, covering)
        self._take(batch, position=position, gap=self._follower.gap)

    def _covering(self, write: BlobWrite) -> list[Subscription]:
        if write.account != self._storage.account:
            return []
        return [each for each in self._subscriptions if each.covers(source=STORAGE, subject=write.subject)]

    async def _head(
        self, write: BlobWrite, covering: Sequence[Subscription], limit: asyncio.Semaphore
    ) -> BlobProperties | None:
        if write.event_type == BLOB_DELETED or not any(each.wants_type(BLOB_CREATED) for each in covering):
            return None
        async with limit:
            return await self._storage.head(container=write.container, name=write.name)

    def _altered(
        self, batch: _Batch, write: BlobWrite, properties: BlobProperties | None, covering: Sequence[Subscription]
    ) -> None:
        """No event, only another eTag. After a gap it may hide a write, so then it is left to catching up."""
        if properties is not None and not self._follower.gap:
            batch.known += [Known(each.name, write.subject, properties.etag, altered=True) for each in covering]

    def _written(
        self, batch: _Batch, write: BlobWrite, properties: BlobProperties | None, covering: Sequence[Subscription]
    ) -> None:
        created = write.event_type == BLOB_CREATED
        wanting = [each for each in covering if each.wants_type(write.event_type)]
        if created and wanting and properties is None:
            print(f"{write.subject} was deleted before its event could be made.", flush=True)
            return
        etag = properties.etag if properties is not None else ""
        batch.known += [Known(each.name, write.subject, etag if created else None) for each in covering]
        told = [each.name for each in covering if self._ahead.pop((each.name, write.subject), None) == etag]
        self._tell(batch, write, properties, [each.name for each in wanting if each.name not in told])

    def _catch_up(self, containers: Sequence[str], listed: Sequence[ListedBlob]) -> None:
        batch = _Batch()
        untold: dict[BlobWrite, tuple[BlobProperties | None, list[str]]] = {}
        for each in self._subscriptions:
            differences, changes = compare(
                each,
                listed,
                known=self._store.known(each.name),
                containers=containers,
                account=self._storage.account,
                since=self._since[each.name],
            )
            batch.known += changes
            for difference in differences:
                untold.setdefault(difference.write, (difference.properties, []))[1].append(each.name)
        for write, (properties, names) in untold.items():
            self._tell(batch, write, properties, names)
        self._take(batch)
        for write, (properties, names) in untold.items():  # should the log show these yet, they are not told twice
            self._ahead |= {(name, write.subject): properties.etag if properties else "" for name in names}
        if untold:
            print(f"Caught up: {len(untold)} writes and deletions that the log did not show.", flush=True)

    def _tell(
        self, batch: _Batch, write: BlobWrite, properties: BlobProperties | None, subscriptions: Sequence[str]
    ) -> None:
        """Adds one event for these subscriptions. Its id is new every time, so faults go by what happened how often."""
        if not subscriptions:
            return
        happened = f"{write.event_type} {write.subject}"
        count = batch.occurrences.get(happened, self._store.occurrences(happened)) + 1
        batch.occurrences[happened] = count
        event: Event = blob_event(write, properties=properties, endpoint=self._storage.endpoint, sequence=self._next())
        batch.wanted += [Wanted(name, event, key=f"{happened} {count}") for name in subscriptions]

    def _take(
        self,
        batch: _Batch,
        *,
        position: Position | None = None,
        gap: bool = False,
    ) -> None:
        deliveries, dropped = fated(batch.wanted, self._faults)
        self._store.accept(
            deliveries,
            Progress(
                sequence=self._sequence,
                position=position,
                known=batch.known,
                occurrences=batch.occurrences,
                gap=gap,
            ),
        )
        report(dropped)
        if deliveries:
            self._accepted()

    def _next(self) -> int:
        """Grows always. Starting from the clock, it also stays above what a lost state folder once gave."""
        self._sequence = max(self._sequence + 1, time.time_ns())
        return self._sequence
