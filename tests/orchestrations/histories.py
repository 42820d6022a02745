"""Records how orchestrations went, as a task hub keeps it: `python -m tests.orchestrations.histories` writes the files.

Record anew only together with a new `defaultVersion` in host.json, and keep the old files: instances that began under
the old version may still be under way when the new code comes.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from activities.contracts import LASTING, PASSING, Claimed, Fitted, Judged, RetrainRequest, Settled, Uploads
from devhost.durable.history import STATUSES, Kind
from devhost.durable.versions import Versions
from orchestrations import steps
from orchestrations.retrain import FORCE, instance_id
from tests.devhost.durable.sdk import Hub, hub
from tests.devhost.waiting import until
from tests.orchestrations.answers import NOW, Answers, failing

FOLDER = Path(__file__).parent / "recorded"
HOST_JSON = Path(__file__).parents[2] / "host.json"


def version() -> str:
    """The version under which orchestrations begin now."""
    return str(json.loads(HOST_JSON.read_text())["extensions"]["durableTask"]["defaultVersion"])


async def _promoted(app: Answers, run: Callable[[], Awaitable[Any]], _: Hub) -> None:
    app.answer("claim", lambda _: Claimed(todo=250, batches=3))
    app.answer("fit", lambda _: Fitted(todo=2, batches=1))
    await run()


async def _kept(app: Answers, run: Callable[[], Awaitable[Any]], _: Hub) -> None:
    app.answer("judge", lambda _: Judged(promote=False, sentence="The champion stays."))
    await run()


async def _retried(app: Answers, run: Callable[[], Awaitable[Any]], _: Hub) -> None:
    app.answer("claim", lambda _: Claimed(todo=4, batches=1))
    for name in ("look", "validate", "register", "settle"):
        failing(app, name, f"{PASSING} StorageUnavailable: 503", times=5)
    failing(app, "train", "MemoryError: no", times=1)
    await run()


async def _failed(app: Answers, run: Callable[[], Awaitable[Any]], _: Hub) -> None:
    failing(app, "export", f"{LASTING} SpecError: no")
    await run()


async def _forced(app: Answers, run: Callable[[], Awaitable[Any]], running: Hub) -> None:
    now = datetime.now(UTC).isoformat()
    app.uploads = [Uploads(1, now, now, 3600, 3600)]
    async with asyncio.TaskGroup() as group:
        group.create_task(_awaited(run))
        await until(lambda: app.count("look") == 1)
        await running.client().raise_event(instance_id("shops"), FORCE, "now")


async def _continued(app: Answers, run: Callable[[], Awaitable[Any]], _: Hub) -> None:
    settled = [Settled(pending=3), Settled(pending=0)]
    app.answer("settle", lambda _: settled.pop(0))
    await run()


async def _nothing(app: Answers, run: Callable[[], Awaitable[Any]], _: Hub) -> None:
    app.uploads = [Uploads(0, "", "", 0, 0)]
    await run()


async def _failed_and_forced(app: Answers, run: Callable[[], Awaitable[Any]], running: Hub) -> None:
    app.holding.add("train")
    failing(app, "export", f"{LASTING} SpecError: no", times=1)
    async with asyncio.TaskGroup() as group:
        group.create_task(_awaited(run))
        await app.held.wait()
        await running.client().raise_event(instance_id("shops"), FORCE, "now")
        app.released.set()


async def _awaited(run: Callable[[], Awaitable[Any]]) -> None:
    await run()


SCENARIOS = {
    "promoted": _promoted,
    "kept": _kept,
    "retried": _retried,
    "failed": _failed,
    "forced": _forced,
    "failed_and_forced": _failed_and_forced,
    "continued": _continued,
    "nothing": _nothing,
}


@asynccontextmanager
async def _hub(database: Path) -> AsyncIterator[tuple[Answers, Hub]]:
    app = Answers()
    app.uploads = [Uploads(1, NOW, NOW, 0, 0)]
    async with hub(app, database, Versions(default=version())) as running:
        yield app, running


async def record(name: str, folder: Path) -> list[dict[str, Any]]:
    """Every instance of a scenario with its history."""
    database = folder / f"{name}.db"
    async with _hub(database) as (app, running):

        async def run() -> None:
            await running.start("retrain", RetrainRequest("shops", hub="Hub").to_dict(), instance_id("shops"))
            await running.ended(instance_id("shops"))

        await SCENARIOS[name](app, run, running)
    with closing(sqlite3.connect(database)) as kept:
        instances = kept.execute("SELECT id, execution, name FROM instances ORDER BY created").fetchall()
        return [
            {
                "instance": instance,
                "execution": execution,
                "orchestrator": orchestrator,
                "history": [
                    _without_traces(json.loads(event))
                    for (event,) in kept.execute("SELECT event FROM history WHERE id = ? ORDER BY seq", (instance,))
                ],
            }
            for instance, execution, orchestrator in instances
        ]


def _without_traces(event: dict[str, Any]) -> dict[str, Any]:
    """A failure's traceback is this machine's, and no orchestration reads it."""
    if event["EventType"] == Kind.EXECUTION_COMPLETED and event["OrchestrationStatus"] == STATUSES.index("Failed"):
        return {**event, "Result": "", "Details": ""}
    return {**event, "Details": ""} if event.get("Details") else event


async def main() -> None:
    """Writes a file for each scenario, named for the present version."""
    # No pause between attempts: what is recorded is the way, not the time that it took.
    for name in ("PASSING_DELAYS", "UNKNOWN_DELAYS"):
        setattr(steps, name, tuple(0.001 for _ in getattr(steps, name)))
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        for name in SCENARIOS:
            recorded = await record(name, Path(temporary))
            (FOLDER / f"{version()}-{name}.json").write_text(json.dumps(recorded, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
