"""The task hub's tables on a disk that is full, and under more messages than one batch holds."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from devhost.durable.history import Kind, event
from devhost.durable.store import Store
from tests.devhost.durable.sdk import App, hub

pytestmark = pytest.mark.filterwarnings("ignore:azure.functions df_loads was called without expected_type")
MORE_THAN_A_BATCH = 5050


class FullDisk:
    """A database whose next commit fails, as on a full disk: SQLite has then rolled back by itself."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.full = False

    def execute(self, sql: str, *given: Any) -> sqlite3.Cursor:
        if self.full and sql == "COMMIT":
            self._database.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")
        return self._database.execute(sql, *given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


def test_what_could_not_be_committed_is_in_no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "hub.db")
    disk = FullDisk(store._db)
    monkeypatch.setattr(store, "_db", disk)
    with store.transaction():
        store.append("one", [event(Kind.ORCHESTRATOR_STARTED)])
    disk.full = True
    with pytest.raises(sqlite3.OperationalError), store.transaction():
        store.append("one", [event(Kind.TIMER_CREATED)])
    disk.full = False
    assert [entry["EventType"] for entry in store.history("one")] == [Kind.ORCHESTRATOR_STARTED]
    with store.transaction():
        store.append("one", [event(Kind.ORCHESTRATOR_COMPLETED)])
    kept = list(store.history("one"))
    store.drop_cached("one")
    assert store.history("one") == kept
    store.close()


async def test_a_suspended_instance_with_very_many_events_can_be_resumed(app: App, tmp_path: Path) -> None:
    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("tally", MORE_THAN_A_BATCH)
        await running.ask("POST", "instances/one/suspend", reason="hold")
        await running.until(lambda there: there["runtimeStatus"] == "Suspended")
        _flood(running.service._store)
        await running.ask("POST", "instances/one/resume", reason="go on")
        there = await running.ended()
    assert (there["runtimeStatus"], there["output"]) == ("Completed", MORE_THAN_A_BATCH)


async def test_all_events_that_waited_for_the_host_are_taken_at_its_start(app: App, tmp_path: Path) -> None:
    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("tally", MORE_THAN_A_BATCH)
        await running.until(lambda there: there["customStatus"] == "waits")
    store = Store(tmp_path / "hub.db")
    _flood(store)
    store.close()
    async with hub(app, tmp_path / "hub.db") as running:
        there = await running.ended()
    assert (there["runtimeStatus"], there["output"]) == ("Completed", MORE_THAN_A_BATCH)


@pytest.fixture
def app() -> App:
    app = App()

    @app.orchestrator
    def tally(context: Any) -> Any:
        context.set_custom_status("waits")
        tasks = [context.wait_for_external_event("go") for _ in range(context.get_input())]
        yield context.task_all(tasks)
        return len(tasks)

    return app


def _flood(store: Store) -> None:
    with store.transaction():
        for _ in range(MORE_THAN_A_BATCH):
            store.send("one", event(Kind.EVENT_RAISED, Name="go", Input="null"))
