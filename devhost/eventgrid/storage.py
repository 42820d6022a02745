"""The storage source: writes in Azurite's access log become events for the subscriptions that want them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from devhost.eventgrid.access_log import BLOB_CREATED, BlobWrite, LogFollower, Position, parse_line
from devhost.eventgrid.errors import EventGridError
from devhost.eventgrid.events import BlobProperties, Event, blob_event
from devhost.eventgrid.store import Store
from devhost.eventgrid.subscriptions import STORAGE, Subscription

POLL_SECONDS = 0.005
"""How often the log is looked at. It is most of what an event takes on its way, and costs two hundredths of a CPU."""
AWAY_SECONDS = 1.0
"""Pause before asking storage again when it does not answer."""
HEADS_AT_ONCE = 16


class StorageAway(EventGridError):
    """Azurite does not answer."""


class BlobHeads(Protocol):
    """Asks storage what the access log does not tell."""

    account: str
    endpoint: str

    async def head(self, *, container: str, name: str) -> BlobProperties | None:
        """The blob's properties; None when it is gone by now. Raises StorageAway."""
        ...


class StorageSource:
    """Follows the log and accepts events into the store, together with the place in the log."""

    def __init__(
        self,
        *,
        log: Path,
        heads: BlobHeads,
        store: Store,
        subscriptions: Sequence[Subscription],
        accepted: Callable[[], None],
        from_end: bool = False,
    ) -> None:
        """`accepted` is called after events were stored. `from_end` skips what an unknown log already holds."""
        self._follower = LogFollower(log, store.position())
        if from_end and store.position() is None and (end := self._follower.end()) is not None:
            self._follower.advance(end)
        self._heads = heads
        self._store = store
        self._subscriptions = subscriptions
        self._accepted = accepted
        self._sequence = store.sequence()

    async def run(self) -> None:
        """Until cancelled. The place moves on only when everything before it is stored."""
        while True:
            lines, position = self._follower.read()
            if position is None or not lines:
                await asyncio.sleep(POLL_SECONDS)
                continue
            try:
                await self._accept(lines, position)
            except StorageAway as error:
                print(f"{error} Trying again.", flush=True)
                await asyncio.sleep(AWAY_SECONDS)
            else:
                self._follower.advance(position)

    async def _accept(self, lines: Sequence[bytes], position: Position) -> None:
        writes = [write for line in lines if (write := parse_line(line)) is not None]
        wanted = [(write, names) for write in writes if (names := self._wanting(write))]
        limit = asyncio.Semaphore(HEADS_AT_ONCE)
        events = await asyncio.gather(*(self._event(write, self._next(), limit) for write, _ in wanted))
        deliveries = [
            (name, event)
            for (_, names), event in zip(wanted, events, strict=True)
            if event is not None
            for name in names
        ]
        self._store.accept(deliveries, position=position, sequence=self._sequence)
        if deliveries:
            self._accepted()

    def _wanting(self, write: BlobWrite) -> list[str]:
        if write.account != self._heads.account:
            return []
        return [
            subscription.name
            for subscription in self._subscriptions
            if subscription.wants(source=STORAGE, event_type=write.event_type, subject=write.subject)
        ]

    def _next(self) -> int:
        """Grows always. Starting from the clock, it also stays above what a lost state folder once gave."""
        self._sequence = max(self._sequence + 1, time.time_ns())
        return self._sequence

    async def _event(self, write: BlobWrite, sequence: int, limit: asyncio.Semaphore) -> Event | None:
        properties = None
        if write.event_type == BLOB_CREATED:
            async with limit:
                properties = await self._heads.head(container=write.container, name=write.name)
            if properties is None:
                print(f"{write.subject} was deleted before its event could be made.", flush=True)
                return None
        return blob_event(write, properties=properties, endpoint=self._heads.endpoint, sequence=sequence)
