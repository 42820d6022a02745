"""What the local Event Grid must not forget: pending deliveries, the place in the log, the last sequence number.

SQLite in write-ahead mode: once a transaction has returned, `kill -9` cannot undo it. One process owns a state folder;
a lock says so. Times are seconds since 1970.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devhost.eventgrid.access_log import Position
from devhost.eventgrid.errors import StateInUse
from devhost.eventgrid.events import Event

DATABASE = "eventgrid.sqlite"
EVENTS = "events.jsonl"
DEAD_LETTERS = "deadletter.jsonl"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY,
    subscription TEXT NOT NULL,
    event TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    accepted REAL NOT NULL,
    due REAL NOT NULL,
    outcome TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (subscription, due);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to one subscription. `attempts` counts those made; `outcome` is the last one's."""

    id: int
    subscription: str
    event: Event
    attempts: int
    accepted: float
    outcome: str


class Store:
    """The state folder. All methods are quick and synchronous; the event loop calls them directly."""

    def __init__(self, folder: Path) -> None:
        """Raises StateInUse when another process has the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        with contextlib.ExitStack() as opened:
            lock = opened.enter_context((folder / "lock").open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StateInUse(folder) from error
            self._database = opened.enter_context(
                contextlib.closing(sqlite3.connect(folder / DATABASE, isolation_level=None))
            )
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Lets go of the folder."""
        self._opened.close()

    def accept(
        self, deliveries: Iterable[tuple[str, Event]], *, position: Position | None = None, sequence: int | None = None
    ) -> None:
        """Takes (subscription, event) pairs, and moves the place in the log, in one transaction."""
        now = time.time()
        rows = [(name, json.dumps(event), now, now) for name, event in deliveries]
        with self._transaction():
            self._database.executemany(
                "INSERT INTO deliveries (subscription, event, accepted, due) VALUES (?, ?, ?, ?)", rows
            )
            if position is not None:
                self._put("position", [position.file, position.offset])
            if sequence is not None:
                self._put("sequence", sequence)

    def publish(self, events: Sequence[Event], deliveries: Iterable[tuple[str, Event]]) -> None:
        """Takes published events: appends them to events.jsonl and accepts their deliveries, both before returning."""
        self._append(EVENTS, events)
        self.accept(deliveries)

    def due(self, subscription: str, *, limit: int, busy: Iterable[int] = ()) -> list[Delivery]:
        """Deliveries whose time has come, the longest due first, without those in `busy`."""
        rows = self._database.execute(
            "SELECT id, subscription, event, attempts, accepted, outcome FROM deliveries WHERE subscription = ? "
            "AND due <= ? AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY due, id LIMIT ?",
            (subscription, time.time(), json.dumps(list(busy)), limit),
        )
        return [Delivery(row[0], row[1], json.loads(row[2]), row[3], row[4], row[5]) for row in rows]

    def delivered(self, delivery: Delivery) -> None:
        """The webhook took it."""
        self._database.execute("DELETE FROM deliveries WHERE id = ?", (delivery.id,))

    def retry(self, delivery: Delivery, *, attempts: int, outcome: str, due: float) -> None:
        """The webhook did not take it; it is to be tried again at `due`."""
        self._database.execute(
            "UPDATE deliveries SET attempts = ?, outcome = ?, due = ? WHERE id = ?",
            (attempts, outcome, due, delivery.id),
        )

    def dead_letter(self, delivery: Delivery, letter: Event) -> None:
        """Gives up on it: appends `letter` to deadletter.jsonl, then forgets the delivery."""
        self._append(DEAD_LETTERS, [letter])
        self.delivered(delivery)

    def pending(self, subscription: str) -> int:
        """How many events wait for delivery."""
        row = self._database.execute(
            "SELECT count(*) FROM deliveries WHERE subscription = ?", (subscription,)
        ).fetchone()
        return int(row[0])

    def forget_others(self, subscriptions: Iterable[str]) -> int:
        """Drops what waits for subscriptions that no longer exist, as deleting one does; returns how many."""
        return self._database.execute(
            "DELETE FROM deliveries WHERE subscription NOT IN (SELECT value FROM json_each(?))",
            (json.dumps(list(subscriptions)),),
        ).rowcount

    def position(self) -> Position | None:
        """The place in the log up to which everything is accepted; None when there is none yet."""
        value = self._get("position")
        return None if value is None else Position(str(value[0]), int(value[1]))

    def sequence(self) -> int:
        """The last sequence number given."""
        return int(self._get("sequence") or 0)

    def _put(self, name: str, value: Any) -> None:
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def _get(self, name: str) -> Any:
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _append(self, name: str, events: Sequence[Event]) -> None:
        data = "".join(json.dumps(event) + "\n" for event in events).encode()
        with (self.folder / name).open("ab") as file:
            file.write(data)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")
