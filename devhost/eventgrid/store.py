"""What the local Event Grid must not forget: pending deliveries, the place in the log, what was told of which blob.

SQLite in write-ahead mode: once a transaction has returned, `kill -9` cannot undo it. One process owns a state folder;
a lock says so. Times are seconds since 1970.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devhost.eventgrid.access_log import Position
from devhost.eventgrid.errors import StateBroken, StateInUse
from devhost.eventgrid.events import Event
from devhost.eventgrid.faults import REORDER_WITHIN_SECONDS

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
    outcome TEXT NOT NULL DEFAULT '',
    held REAL
);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (subscription, due);
CREATE TABLE IF NOT EXISTS known (
    subscription TEXT NOT NULL,
    subject TEXT NOT NULL,
    etag TEXT NOT NULL,
    PRIMARY KEY (subscription, subject)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS occurrences (key TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A delivery to be made, `wait` seconds from now; its lifetime counts from then.

    `overtaken`: it also waits for a later one to be delivered first, for at most REORDER_WITHIN_SECONDS.
    """

    subscription: str
    event: Event
    wait: float = 0.0
    overtaken: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What a subscription has been told of a blob: its `etag`, empty when that is not known; None once it is gone.

    `altered`: the eTag that a known blob has from now on; it does not make an unknown one known.
    """

    subscription: str
    subject: str
    etag: str | None
    altered: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """What the storage source remembers together with the deliveries that it makes.

    `position` is the place in the log, `sequence` the last sequence number, `occurrences` how often what happened.
    `gap`: the log may have missed something, and storage has not been compared since.
    """

    sequence: int
    position: Position | None = None
    known: Sequence[Known] = ()
    occurrences: Mapping[str, int] = field(default_factory=dict)
    gap: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to one subscription. `attempts` counts those made; `outcome` is the last one's."""

    id: int
    subscription: str
    event: Event
    attempts: int
    accepted: float
    outcome: str


def _row(delivery: Accepted, now: float) -> tuple[str, str, float, float, float | None]:
    """`held` is the earliest time for what waits to be overtaken. No wait is taken from an event's lifetime."""
    ready = now + delivery.wait
    due = ready + (REORDER_WITHIN_SECONDS if delivery.overtaken else 0.0)
    return delivery.subscription, json.dumps(delivery.event), due, due, ready if delivery.overtaken else None


class Store:
    """The state folder. All methods are quick and synchronous; the event loop calls them directly."""

    def __init__(self, folder: Path) -> None:
        """Raises StateInUse when another process has the folder, and StateBroken."""
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
            try:
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=NORMAL")
                self._database.executescript(_SCHEMA)
                self._upgrade()
            except sqlite3.Error as error:
                raise StateBroken(folder, str(error)) from error
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Lets go of the folder."""
        self._opened.close()

    def accept(self, deliveries: Iterable[Accepted], progress: Progress | None = None) -> None:
        """Takes deliveries, and notes how far the storage source has come, in one transaction."""
        now = time.time()
        rows = [_row(delivery, now) for delivery in deliveries]
        with self._transaction():
            self._database.executemany(
                "INSERT INTO deliveries (subscription, event, accepted, due, held) VALUES (?, ?, ?, ?, ?)", rows
            )
            if progress is not None:
                self._note(progress)

    def publish(self, events: Sequence[Event], deliveries: Iterable[Accepted]) -> None:
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
        """The webhook took it, and with it may come what had to wait for a later one."""
        with self._transaction():
            self._database.execute("DELETE FROM deliveries WHERE id = ?", (delivery.id,))
            self._database.execute(
                "UPDATE deliveries SET due = max(held, ?), held = NULL "
                "WHERE subscription = ? AND held IS NOT NULL AND id < ?",
                (time.time(), delivery.subscription, delivery.id),
            )

    def retry(self, delivery: Delivery, *, attempts: int, outcome: str, due: float) -> None:
        """The webhook did not take it; it is to be tried again at `due`."""
        self._database.execute(
            "UPDATE deliveries SET attempts = ?, outcome = ?, due = ?, held = NULL WHERE id = ?",
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
        """Forgets subscriptions that no longer exist, as deleting one does; returns how many events waited for them."""
        names = json.dumps(list(subscriptions))
        with self._transaction():
            self._database.execute(
                "DELETE FROM known WHERE subscription NOT IN (SELECT value FROM json_each(?))", (names,)
            )
            self._database.execute(
                "DELETE FROM facts WHERE name LIKE 'filters:%' "
                "AND substr(name, 9) NOT IN (SELECT value FROM json_each(?))",
                (names,),
            )
            return self._database.execute(
                "DELETE FROM deliveries WHERE subscription NOT IN (SELECT value FROM json_each(?))", (names,)
            ).rowcount

    def known(self, subscription: str) -> dict[str, str]:
        """The blobs that a subscription has been told of: eTag by subject."""
        return dict(
            self._database.execute("SELECT subject, etag FROM known WHERE subscription = ?", (subscription,)).fetchall()
        )

    def since(self, subscription: str, filters: str) -> float:
        """Since when the subscription has had these filters: from now on, when they are new."""
        name = f"filters:{subscription}"
        value = self._get(name)
        if value is None or value[0] != filters:
            value = [filters, time.time()]
            self._put(name, value)
        return float(value[1])

    def occurrences(self, key: str) -> int:
        """How often this has happened."""
        row = self._database.execute("SELECT count FROM occurrences WHERE key = ?", (key,)).fetchone()
        return 0 if row is None else int(row[0])

    def position(self) -> Position | None:
        """The place in the log up to which everything is accepted; None when there is none yet."""
        value = self._get("position")
        return None if value is None else Position(str(value[0]), int(value[1]), *map(str, value[2:]))

    def gap(self) -> bool:
        """Whether the log may have missed something that storage has not been compared for."""
        return bool(self._get("gap"))

    def sequence(self) -> int:
        """The last sequence number given."""
        return int(self._get("sequence") or 0)

    def _upgrade(self) -> None:
        """Adds what the tables of an older state folder lack."""
        columns = {row[1] for row in self._database.execute("PRAGMA table_info(deliveries)")}
        if "held" not in columns:
            self._database.execute("ALTER TABLE deliveries ADD COLUMN held REAL")

    def _note(self, progress: Progress) -> None:
        self._put("sequence", progress.sequence)
        self._put("gap", progress.gap)
        if progress.position is not None:
            position = progress.position
            self._put("position", [position.file, position.offset, position.digest])
        for known in progress.known:
            of = (known.subscription, known.subject)
            if known.etag is None:
                self._database.execute("DELETE FROM known WHERE subscription = ? AND subject = ?", of)
            elif known.altered:
                self._database.execute(
                    "UPDATE known SET etag = ? WHERE subscription = ? AND subject = ?", (known.etag, *of)
                )
            else:
                self._database.execute("INSERT OR REPLACE INTO known VALUES (?, ?, ?)", (*of, known.etag))
        self._database.executemany(
            "INSERT OR REPLACE INTO occurrences VALUES (?, ?)", list(progress.occurrences.items())
        )

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
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # SQLite has rolled back by itself after some failures
                self._database.execute("ROLLBACK")
            raise
