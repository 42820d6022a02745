"""The task hub's tables. Every work item ends in one transaction, so that a kill at any point loses nothing.

SQLite is called from the event loop's own thread: with WAL and synchronous=NORMAL a commit takes some ten microseconds
(no fsync; only a crash of the whole machine could undo the last ones), less than a hop to another thread would.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devhost.durable.history import FINISHED, Event, Kind, event, timestamp, utc_now

SCHEMA = """
CREATE TABLE IF NOT EXISTS instances(
    id TEXT PRIMARY KEY, execution TEXT, name TEXT, version TEXT, status TEXT, input TEXT, output TEXT, custom TEXT,
    created TEXT, updated TEXT, parent TEXT, parent_execution TEXT, parent_task INTEGER, parent_name TEXT);
CREATE INDEX IF NOT EXISTS instances_by_time ON instances(created);
CREATE TABLE IF NOT EXISTS history(id TEXT, seq INTEGER, event TEXT, PRIMARY KEY(id, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS inbox(n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT, execution TEXT, event TEXT);
CREATE INDEX IF NOT EXISTS inbox_by_id ON inbox(id);
CREATE TABLE IF NOT EXISTS activities(
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT, execution TEXT, task INTEGER, name TEXT, input TEXT);
CREATE INDEX IF NOT EXISTS activities_by_id ON activities(id);
CREATE TABLE IF NOT EXISTS timers(n INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, id TEXT, execution TEXT, event TEXT);
CREATE INDEX IF NOT EXISTS timers_by_time ON timers(at);
CREATE INDEX IF NOT EXISTS timers_by_id ON timers(id);
CREATE TABLE IF NOT EXISTS entities(id TEXT PRIMARY KEY, present INTEGER, state TEXT, updated TEXT);
"""


@dataclass(frozen=True, slots=True)
class Parent:
    """Who waits for a sub-orchestration: the execution and the number of its task."""

    instance: str
    execution: str
    task: int
    name: str


@dataclass(frozen=True, slots=True)
class Instance:
    """A row of `instances`. Input, output and custom are JSON texts (output of a failure is plain text)."""

    id: str
    execution: str
    name: str
    version: str
    status: str
    input: str | None
    output: str | None
    custom: str | None
    created: str
    updated: str
    parent: Parent | None

    @property
    def finished(self) -> bool:
        return self.status in FINISHED


@dataclass(frozen=True, slots=True)
class StoredEntity:
    """An entity that exists. `state` is JSON text, `updated` when it last did something."""

    id: str
    state: str | None
    updated: str


@dataclass(frozen=True, slots=True)
class ActivityItem:
    """An activity that waits to be run."""

    n: int
    instance: str
    execution: str
    task: int
    name: str
    input: str | None


@dataclass(frozen=True, slots=True)
class Query:
    """Filters of a status query; None and empty filter nothing. Times are ISO 8601."""

    created_from: str | None = None
    created_to: str | None = None
    statuses: Sequence[str] = ()
    prefix: str | None = None
    top: int = 100
    skip: int = 0


def compact(document: Any) -> str:
    """JSON without spaces."""
    return json.dumps(document, separators=(",", ":"))


class Store:
    """All reads and writes of the task hub."""

    def __init__(self, database: Path | str) -> None:
        """Raises sqlite3.Error when the database cannot be opened."""
        self._db = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(SCHEMA)
        except sqlite3.Error:
            self._db.close()
            raise
        self._histories: dict[str, list[Event]] = {}

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")  # which is what fails when the disk is full
        except BaseException:
            if self._db.in_transaction:  # SQLite has rolled back by itself after some failures
                self._db.execute("ROLLBACK")
            # What was appended in memory is not in the table.
            self._histories.clear()
            raise

    # Instances.

    def instance(self, instance: str) -> Instance | None:
        sql = f"SELECT {_COLUMNS} FROM instances WHERE id=?"  # noqa: S608 (only column names)
        row = self._db.execute(sql, (instance,)).fetchone()
        return None if row is None else _instance(row)

    def query(self, query: Query) -> list[Instance]:
        """By time of creation."""
        clauses, values = ["1"], list[Any]()
        if query.created_from:
            clauses.append("created>=?")
            values.append(query.created_from)
        if query.created_to:
            clauses.append("created<=?")
            values.append(query.created_to)
        if query.prefix:
            clauses.append("substr(id,1,?)=?")
            values += [len(query.prefix), query.prefix]
        if query.statuses:
            clauses.append(f"status IN ({','.join('?' * len(query.statuses))})")
            values += query.statuses
        sql = f"SELECT {_COLUMNS} FROM instances WHERE {' AND '.join(clauses)} ORDER BY created,id LIMIT ? OFFSET ?"  # noqa: S608 (only column names and marks)
        return [_instance(row) for row in self._db.execute(sql, (*values, query.top, query.skip))]

    def create(
        self, name: str, instance: str, input_: str | None, version: str, execution: str, parent: Parent | None = None
    ) -> None:
        """A new execution, in the place of a finished one of that id, with its first event in the inbox."""
        self.forget(instance)
        self._db.execute("DELETE FROM inbox WHERE id=?", (instance,))
        now = timestamp(utc_now())
        waiting = (parent.instance, parent.execution, parent.task, parent.name) if parent else (None,) * 4
        self._db.execute(
            "INSERT OR REPLACE INTO instances VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (instance, execution, name, version, "Pending", input_, None, None, now, now, *waiting),
        )
        self.send(instance, _started(name, instance, execution, input_, version, parent), execution)

    def renew(self, instance: Instance, execution: str, input_: str | None, custom: str | None) -> None:
        """The next generation of an execution that continues as new."""
        self.forget(instance.id)
        self._db.execute(
            "UPDATE instances SET execution=?,input=?,status='Running',custom=?,updated=? WHERE id=?",
            (execution, input_, custom, timestamp(utc_now()), instance.id),
        )
        # What was addressed to the old execution is void; events raised for the instance stay.
        self._db.execute("DELETE FROM inbox WHERE id=? AND execution IS NOT NULL", (instance.id,))
        started = _started(instance.name, instance.id, execution, input_, instance.version, instance.parent)
        self.send(instance.id, started, execution)

    def update(self, instance: str, *, status: str, output: str | None, custom: str | None) -> None:
        self._db.execute(
            "UPDATE instances SET status=?,output=?,custom=?,updated=? WHERE id=?",
            (status, output, custom, timestamp(utc_now()), instance),
        )

    def set_status(self, instance: str, status: str) -> None:
        self._db.execute("UPDATE instances SET status=?,updated=? WHERE id=?", (status, timestamp(utc_now()), instance))

    def forget(self, instance: str) -> None:
        """Drops history, timers and waiting activities."""
        self._histories.pop(instance, None)
        for table in ("history", "timers", "activities"):
            self._db.execute(f"DELETE FROM {table} WHERE id=?", (instance,))  # noqa: S608 (fixed names)

    def purge(self, instance: str) -> None:
        """Drops every trace."""
        self.forget(instance)
        self._db.execute("DELETE FROM inbox WHERE id=?", (instance,))
        self._db.execute("DELETE FROM instances WHERE id=?", (instance,))

    # History.

    def history(self, instance: str) -> list[Event]:
        """All events so far. The list is kept and appended to: a long history is not read again for each episode."""
        known = self._histories.get(instance)
        if known is None:
            rows = self._db.execute("SELECT event FROM history WHERE id=? ORDER BY seq", (instance,))
            known = self._histories[instance] = [json.loads(text) for (text,) in rows]
        return known

    def append(self, instance: str, events: Sequence[Event]) -> None:
        past = self.history(instance)
        rows = [(instance, len(past) + offset, compact(entry)) for offset, entry in enumerate(events)]
        self._db.executemany("INSERT INTO history VALUES(?,?,?)", rows)
        past.extend(events)

    def rewrite(self, instance: str, events: Sequence[Event]) -> None:
        """Replaces the history (rewind)."""
        self._histories.pop(instance, None)
        self._db.execute("DELETE FROM history WHERE id=?", (instance,))
        self.append(instance, events)

    def drop_cached(self, instance: str) -> None:
        """A finished execution's history is only read by queries."""
        self._histories.pop(instance, None)

    # Messages.

    def send(self, instance: str, message: Mapping[str, Any], execution: str | None = None) -> None:
        """Into the inbox. With `execution`, only that execution takes it."""
        self._db.execute("INSERT INTO inbox(id,execution,event) VALUES(?,?,?)", (instance, execution, compact(message)))

    def inbox(self, instance: str, limit: int = -1) -> list[tuple[int, str | None, Event]]:
        """(number, execution, message), oldest first; `limit` -1 gives all."""
        rows = self._db.execute("SELECT n,execution,event FROM inbox WHERE id=? ORDER BY n LIMIT ?", (instance, limit))
        return [(n, execution, json.loads(text)) for n, execution, text in rows]

    def taken(self, instance: str, last: int) -> None:
        """The messages up to `last` are dealt with."""
        self._db.execute("DELETE FROM inbox WHERE id=? AND n<=?", (instance, last))

    def with_messages(self) -> list[str]:
        """Instances and entities with something in their inbox."""
        return [row[0] for row in self._db.execute("SELECT DISTINCT id FROM inbox")]

    # Activities and timers.

    def add_activity(self, instance: str, execution: str, task: int, name: str, input_: str | None) -> ActivityItem:
        cursor = self._db.execute(
            "INSERT INTO activities(id,execution,task,name,input) VALUES(?,?,?,?,?)",
            (instance, execution, task, name, input_),
        )
        return ActivityItem(int(cursor.lastrowid or 0), instance, execution, task, name, input_)

    def activities(self) -> list[ActivityItem]:
        """Everything that waits or was running when the host died."""
        rows = self._db.execute("SELECT n,id,execution,task,name,input FROM activities ORDER BY n")
        return [ActivityItem(*row) for row in rows]

    def has_activity(self, n: int) -> bool:
        """False once its orchestration has ended or was purged."""
        return self._db.execute("SELECT 1 FROM activities WHERE n=?", (n,)).fetchone() is not None

    def end_activity(self, n: int) -> None:
        self._db.execute("DELETE FROM activities WHERE n=?", (n,))

    def add_timer(self, at: float, instance: str, execution: str | None, message: Mapping[str, Any]) -> None:
        """`message` goes to the inbox at `at` (seconds since 1970 UTC)."""
        self._db.execute(
            "INSERT INTO timers(at,id,execution,event) VALUES(?,?,?,?)", (at, instance, execution, compact(message))
        )

    def next_timer(self) -> float | None:
        due: float | None = self._db.execute("SELECT MIN(at) FROM timers").fetchone()[0]
        return due

    def fire_timers(self, now: float, limit: int = 500) -> list[str]:
        """Moves due timers to their inboxes; the instances to wake."""
        due = self._db.execute(
            "SELECT n,id,execution,event FROM timers WHERE at<=? ORDER BY at LIMIT ?", (now, limit)
        ).fetchall()
        for n, instance, execution, text in due:
            self._db.execute("DELETE FROM timers WHERE n=?", (n,))
            message = json.loads(text)
            if "TimerId" in message:
                message = event(Kind.TIMER_FIRED, **message)
            self.send(instance, message, execution)
        return [row[1] for row in due]

    def drop_work(self, instance: str) -> None:
        """An execution has ended: its timers and activities are void."""
        for table in ("timers", "activities"):
            self._db.execute(f"DELETE FROM {table} WHERE id=?", (instance,))  # noqa: S608 (fixed names)

    # Entities.

    def entity(self, entity: str) -> tuple[bool, str | None]:
        """(exists, state as JSON text)."""
        row = self._db.execute("SELECT present,state FROM entities WHERE id=?", (entity,)).fetchone()
        return (False, None) if row is None else (bool(row[0]), row[1])

    def entities(self, name: str, *, top: int, skip: int) -> list[StoredEntity]:
        """Those of this name that exist; of all names when it is empty."""
        prefix = f"@{name}@" if name else "@"
        sql = "SELECT id,state,updated FROM entities WHERE present AND substr(id,1,?)=? ORDER BY id LIMIT ? OFFSET ?"
        return [StoredEntity(*row) for row in self._db.execute(sql, (len(prefix), prefix, top, skip))]

    def forget_entity(self, entity: str) -> int:
        """Drops its state; how many there were."""
        return self._db.execute("DELETE FROM entities WHERE id=?", (entity,)).rowcount

    def set_entity(self, entity: str, *, exists: bool, state: str | None) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO entities VALUES(?,?,?,?)",
            (entity, int(exists), state if exists else None, timestamp(utc_now())),
        )


_COLUMNS = (
    "id,execution,name,version,status,input,output,custom,created,updated,"
    "parent,parent_execution,parent_task,parent_name"
)


def _instance(row: Sequence[Any]) -> Instance:
    parent = Parent(*row[10:]) if row[10] is not None else None
    id_, execution, name, version, status, input_, output, custom, created, updated = row[:10]
    return Instance(id_, execution, name, version, status, input_, output, custom, created, updated, parent)


def _started(
    name: str, instance: str, execution: str, input_: str | None, version: str, parent: Parent | None
) -> Event:
    waiting = None
    if parent is not None:
        waiting = {
            "OrchestrationInstance": {"InstanceId": parent.instance, "ExecutionId": parent.execution},
            "TaskScheduleId": parent.task,
            "Name": parent.name,
            "Version": "",
        }
    return event(
        Kind.EXECUTION_STARTED,
        OrchestrationInstance={"InstanceId": instance, "ExecutionId": execution},
        ParentInstance=waiting,
        Name=name,
        Version=version,
        Input=input_,
        Tags=None,
        Correlation=None,
        ScheduledStartTime=None,
        Generation=0,
    )
