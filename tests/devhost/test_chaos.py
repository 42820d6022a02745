"""Orchestrations under fire: whatever is killed, and whenever, each ends once with its one right output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devhost.durable.history import Kind
from devhost.durable_gate import DATABASE, MANAGEMENT_PREFIX
from tests.devhost import chaos_app
from tests.devhost.chaos_app import Order
from tests.devhost.waiting import eventually, is_running, until

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]
READY = re.compile(r"Host ready on http://.*:(\d+)\n")
START_SECONDS = 30.0
FINISH_SECONDS = 90.0
ASK_AGAIN_SECONDS = 0.2
"""Seldom enough to leave the processors to the host."""
WORKERS = 2
ORCHESTRATIONS = 112
CALLS_AT_ONCE = 16
WORKER_KILLS = 8
HOST_KILLS = 5
IN_VAIN = 0.5
"""Share of the host's restarts that are killed before they are ready."""
STOPS = 3
ANSWERS = frozenset({Kind.TASK_COMPLETED, Kind.TASK_FAILED, Kind.SUB_COMPLETED, Kind.SUB_FAILED})
SIGNS_OF_TROUBLE = ("Task was destroyed", "never retrieved", "never awaited", "failed in the host")


class Hosting:
    """`python -m devhost start` on one port and one state, again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.seen: set[int] = set()
        """Process ids of every host and worker that was seen."""
        self._app_dir = chaos_app.write(folder)
        self._output = folder / "host.out"
        self._log = folder / "host.log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "start it first"
        return self._process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def start(self) -> None:
        """Returns when it is ready."""

        def ready() -> re.Match[str] | None:
            return READY.search(self._output.read_text())

        await self._spawn()
        await until(lambda: self.process.returncode is not None or ready() is not None, START_SECONDS)
        found = ready()
        assert found is not None, self.log
        self.port = int(found[1])

    async def start_in_vain(self) -> None:
        """Killed as soon as it listens, while its workers load the app."""
        await self._spawn()
        await eventually(self._answers, START_SECONDS)
        self.process.kill()
        await self.process.wait()

    async def _answers(self) -> bool:
        try:
            await self.workers()
        except aiohttp.ClientError:
            return False
        return True

    async def _spawn(self) -> None:
        arguments = ["--app", str(self._app_dir), "--workers", str(WORKERS), "--state", str(self.folder / "state")]
        with self._output.open("wb") as output, self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "devhost", "start", *arguments, "--port", str(self.port)),
                cwd=REPOSITORY,
                stdout=output,
                stderr=log,
            )
        self.seen.add(self.process.pid)

    async def workers(self) -> list[int]:
        """Process ids of the workers that there are now."""
        async with aiohttp.ClientSession() as client, client.get(f"{self.url}/admin/host/status") as response:
            pids = [int(worker["pid"]) for worker in (await response.json())["workers"]]
        self.seen.update(pids)
        return pids

    async def kill_worker(self, choice: random.Random) -> None:
        pid = choice.choice(await self.workers())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def kill(self, choice: random.Random) -> None:
        """The host and its workers, at once, and starts it again, now and then after a start that is killed, too."""
        workers = await self.workers()
        for pid in (self.process.pid, *workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self.process.wait()
        if choice.random() < IN_VAIN:
            await self.start_in_vain()
        await self.start()

    async def stop(self) -> None:
        """As asked for by SIGTERM: it ends by itself, and well, and its workers with it."""
        await self.workers()
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(self.process.wait(), 15) == 0
        assert not any(is_running(pid) for pid in self.seen)

    async def end(self) -> None:
        """Whatever a test has come to, nothing stays."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        await until(lambda: not any(is_running(pid) for pid in self.seen))


@contextlib.asynccontextmanager
async def hosting(folder: Path) -> AsyncIterator[Hosting]:
    host = Hosting(folder)
    try:
        await host.start()
        yield host
    finally:
        await host.end()


class Customer:
    """Asks for orchestrations over HTTP, and asks again while nobody answers."""

    def __init__(self, host: Hosting, client: aiohttp.ClientSession) -> None:
        self._host = host
        self._client = client
        self._at_once = asyncio.Semaphore(CALLS_AT_ONCE)

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON document, from the management API."""
        answers: list[tuple[int, Any]] = []

        async def answered() -> bool:
            try:
                async with (
                    self._at_once,
                    self._client.request(method, f"{self._host.url}{MANAGEMENT_PREFIX}/{path}", json=body) as response,
                ):
                    content = await response.read()
            except aiohttp.ClientError:  # killed, or not there yet
                return False
            answers.append((response.status, json.loads(content) if content else None))
            return response.status != 503  # so says a host that starts

        await eventually(answered, FINISH_SECONDS, ASK_AGAIN_SECONDS)
        return answers[-1]

    async def place(self, order: Order) -> None:
        """Starts it, once, and raises its events, each at least once and the last one first."""
        path = f"instances/{order.instance}"
        while (await self.call("GET", path))[0] == 404:
            status, document = await self.call("POST", f"orchestrators/{order.function}/{order.instance}", order.input)
            assert status in {202, 409}, document  # 409: an attempt had come through, though its answer had not
        for name, value in reversed(list(order.events.items())):
            if order.asks:
                await self.asked(path, name)
            status, document = await self.call("POST", f"{path}/raiseEvent/{name}", value)
            # 410: an attempt had come through, and it was all that the orchestration still waited for.
            assert status in {202, 410}, document

    async def asked(self, path: str, event: str) -> None:
        """Returns once the instance asks for this event."""

        async def asks() -> bool:
            _, document = await self.call("GET", path)
            return bool(document["customStatus"] == event)

        await eventually(asks, FINISH_SECONDS, ASK_AGAIN_SECONDS)

    async def all_instances(self) -> dict[str, dict[str, Any]]:
        """What is known of each, sub-orchestrations too."""
        status, documents = await self.call("GET", "instances?top=10000")
        assert status == 200
        return {document["instanceId"]: document for document in documents}

    async def finished(self, count: int) -> dict[str, dict[str, Any]]:
        """What is known of all, once no instance is under way any more and there are at least `count`."""
        found: dict[str, dict[str, Any]] = {}

        async def none_under_way() -> bool:
            found.clear()
            found.update(await self.all_instances())
            under_way = {"Pending", "Running"}
            return len(found) >= count and not any(one["runtimeStatus"] in under_way for one in found.values())

        await eventually(none_under_way, FINISH_SECONDS, ASK_AGAIN_SECONDS)
        return found

    async def counters(self, names: Sequence[str]) -> dict[str, int]:
        answers = {name: await self.call("GET", f"entities/counter/{name}") for name in names}
        return {name: document for name, (_, document) in answers.items()}


def assert_each_right(orders: Sequence[Order], instances: dict[str, dict[str, Any]], folder: Path) -> None:
    ended = {order.instance: instances[order.instance] for order in orders}
    wrong = {
        order.instance: ended[order.instance]
        for order in orders
        if (ended[order.instance]["runtimeStatus"], ended[order.instance]["output"]) != ("Completed", order.output)
    }
    assert wrong == {}
    # The one that is meant to fail is a sub-orchestration, and its parent tries it again.
    assert {one["name"] for one in instances.values() if one["runtimeStatus"] != "Completed"} <= {"weak"}
    wanted = frozenset[str]().union(*(order.tasks for order in orders))
    assert chaos_app.executions(folder).keys() == wanted


def assert_nothing_twice_and_nothing_left(folder: Path) -> None:
    """In the task hub itself, once the host has stopped."""
    with contextlib.closing(sqlite3.connect(folder / "state" / DATABASE)) as hub:
        for table in ("inbox", "activities", "timers"):
            assert hub.execute(f"SELECT * FROM {table}").fetchall() == []  # noqa: S608 (fixed names)
        instances = [instance for (instance,) in hub.execute("SELECT id FROM instances")]
        history = [(instance, json.loads(text)) for instance, text in hub.execute("SELECT id, event FROM history")]
    ends = Counter(instance for instance, entry in history if entry["EventType"] == Kind.EXECUTION_COMPLETED)
    assert ends == Counter(instances)
    answers = Counter((i, e["TaskScheduledId"]) for i, e in history if e["EventType"] in ANSWERS)
    fired = Counter((i, e["TimerId"]) for i, e in history if e["EventType"] == Kind.TIMER_FIRED)
    assert [task for task, count in (answers + fired).items() if count > 1] == []


async def assert_all_kept(host: Hosting, customer: Customer, orders: Sequence[Order]) -> None:
    """Every order has its one result, and still has it after another restart."""
    instances = await customer.finished(len(orders))
    assert_each_right(orders, instances, host.folder)
    counted: Counter[str] = Counter()
    for order in orders:
        counted.update(order.counted)
    assert await customer.counters(list(counted)) == counted
    executions = chaos_app.executions(host.folder)
    await host.stop()
    assert_nothing_twice_and_nothing_left(host.folder)
    await host.start()
    assert await customer.all_instances() == instances
    assert await customer.counters(list(counted)) == counted
    assert chaos_app.executions(host.folder) == executions
    await host.stop()


async def executed(folder: Path, moment: int) -> None:
    """Returns once activities have been executed this many times."""
    await until(lambda: chaos_app.executions(folder).total() >= moment, FINISH_SECONDS)


def strikes(choice: random.Random, executions: int) -> list[tuple[int, bool]]:
    """When to strike, as a number of executions of activities, and whether the whole host is struck."""
    moments = sorted(choice.sample(range(executions * 9 // 10), WORKER_KILLS + HOST_KILLS))
    whole = [True] * HOST_KILLS + [False] * WORKER_KILLS
    choice.shuffle(whole)
    return list(zip(moments, whole, strict=True))


@pytest.mark.parametrize("seed", [1, 2])
async def test_kill_9_of_workers_and_host(tmp_path: Path, seed: int) -> None:
    choice = random.Random(seed)
    orders = chaos_app.orders(ORCHESTRATIONS)
    choice.shuffle(orders)
    least = sum(len(order.tasks) for order in orders)
    async with hosting(tmp_path) as host, aiohttp.ClientSession() as client, asyncio.TaskGroup() as placing:
        customer = Customer(host, client)
        placed = [placing.create_task(customer.place(order)) for order in orders]
        for moment, whole in strikes(choice, least):
            await executed(tmp_path, moment)
            await (host.kill(choice) if whole else host.kill_worker(choice))
        await asyncio.gather(*placed)
        await assert_all_kept(host, customer, orders)


async def test_work_under_way_outlives_a_stop(tmp_path: Path) -> None:
    orders = chaos_app.orders(42)
    least = sum(len(order.tasks) for order in orders)
    async with hosting(tmp_path) as host, aiohttp.ClientSession() as client, asyncio.TaskGroup() as placing:
        customer = Customer(host, client)
        placed = [placing.create_task(customer.place(order)) for order in orders]
        for stop in range(1, STOPS + 1):
            moment = least * stop // (STOPS + 1)
            await executed(tmp_path, moment)
            await host.stop()
            await host.start()
        await asyncio.gather(*placed)
        await assert_all_kept(host, customer, orders)
        assert [line for line in host.log.split("\n") if any(sign in line for sign in SIGNS_OF_TROUBLE)] == []
