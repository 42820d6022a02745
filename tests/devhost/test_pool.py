from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devhost import settings, wire
from devhost.errors import IndexingFailed
from devhost.host import worker_environment
from devhost.pool import LONGEST_DELAY_SECONDS, MOST_DISPATCHES, WorkerPool, restart_delay
from devhost.protocol import Datum, FunctionInfo, Invocation
from tests.devhost import sample_app
from tests.devhost.waiting import is_running, until

pytestmark = pytest.mark.integration

REQUEST: Datum = ("http", ("GET", "http://localhost/", {}, b"", {"name": "you"}, {}))


class Running:
    """A pool with the sample app, and what a test wants to call in it."""

    def __init__(self, pool: WorkerPool, functions: tuple[FunctionInfo, ...], folder: Path) -> None:
        self.pool = pool
        self.functions = {function.name: function for function in functions}
        self.folder = folder

    def call(self, name: str, *, redispatch: bool = False) -> Invocation:
        return Invocation(self.functions[name].id, [("req", REQUEST)], redispatch=redispatch)

    def notes(self, name: str) -> list[str]:
        return sample_app.notes(self.folder, name)


@contextlib.asynccontextmanager
async def running(
    folder: Path, *, workers: int = 2, function_timeout: float | None = None, open_with: tuple[str, ...] = ()
) -> AsyncIterator[Running]:
    app_dir = sample_app.write(folder)
    environment = worker_environment(settings.load(app_dir), "localhost")
    pool = WorkerPool(app_dir=app_dir, count=workers, environment=environment, function_timeout=function_timeout)
    try:
        functions = await pool.start()
        inside = Running(pool, functions, folder)
        warmups = [Invocation(inside.functions[n].id, [("warmup_context", ("string", ""))]) for n in open_with]
        await pool.open(warmups)
        yield inside
    finally:
        pids = [pid for pid, _ in pool.workers]
        await pool.stop()
        assert not any(is_running(pid) for pid in pids)


async def test_functions_are_indexed_warmed_up_in_each_worker_and_called(tmp_path: Path) -> None:
    async with running(tmp_path, open_with=("warmup",)) as inside:
        assert inside.pool.ready
        assert sorted(inside.notes("warm")) == sorted(str(pid) for pid, _ in inside.pool.workers)
        assert inside.functions["tick"].trigger["schedule"] == "%TICK%"
        outcomes = [await inside.pool.invoke(inside.call("hello")) for _ in range(2)]
        values = [outcome.value for outcome in outcomes]
        assert all(value is not None and value[1][0] == 200 and value[1][2] == b"hello you {}" for value in values)
        pids = {dict(value[1][1])["x-pid"] for value in values if value is not None}
        assert pids == {str(pid) for pid, _ in inside.pool.workers}  # equals take turns


async def test_a_failure_is_its_type_and_message_and_harms_nobody_else(tmp_path: Path) -> None:
    async with running(tmp_path, workers=1) as inside:
        pids = inside.pool.workers
        failed = await inside.pool.invoke(inside.call("fail"))
        assert (failed.ok, failed.error) == (False, "ValueError: as expected")
        assert "function_app.py" in failed.traceback
        left = await inside.pool.invoke(inside.call("leave"))
        assert (left.ok, left.error) == (False, "SystemExit: done for today")
        assert inside.pool.workers == pids


async def test_logs_come_with_the_function_and_the_invocation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "devhost.function"):
        async with running(tmp_path, workers=1) as inside:
            await inside.pool.invoke(inside.call("hello"))
            await inside.pool.invoke(inside.call("fail"))
    assert any("[hello " in message and message.endswith("greeting you") for message in caplog.messages)
    failures = [record for record in caplog.records if "as expected" in record.getMessage()]
    assert len(failures) == 1
    assert failures[0].levelno == logging.ERROR


async def test_the_work_of_a_killed_worker_runs_again_on_another_when_it_may(tmp_path: Path) -> None:
    async with running(tmp_path) as inside:
        again = asyncio.create_task(inside.pool.invoke(inside.call("once", redispatch=True)))
        await until(lambda: len(inside.notes("once")) == 1)
        first = int(inside.notes("once")[0])
        os.kill(first, signal.SIGKILL)
        outcome = await again
        assert outcome.ok
        assert outcome.value is not None
        assert outcome.value[1][2] != str(first).encode()
        await until(lambda: inside.pool.ready)
        assert first not in [pid for pid, _ in inside.pool.workers]


async def test_the_work_of_a_killed_worker_fails_when_it_may_not_run_again(tmp_path: Path) -> None:
    async with running(tmp_path, workers=1) as inside:
        lost = asyncio.create_task(inside.pool.invoke(inside.call("once")))
        await until(lambda: len(inside.notes("once")) == 1)
        os.kill(int(inside.notes("once")[0]), signal.SIGKILL)
        outcome = await lost
        assert not outcome.ok
        assert outcome.error.startswith("WorkerDied: the worker process ")
        assert "signal 9" in outcome.error
        assert (await inside.pool.invoke(inside.call("hello"))).ok  # waits for the next worker


async def test_work_that_kills_every_worker_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devhost.pool.restart_delay", lambda failures: 0.0)
    async with running(tmp_path, workers=1) as inside:
        outcome = await inside.pool.invoke(inside.call("fatal", redispatch=True))
        assert outcome.error.startswith("WorkerDied:")
        assert "exited with status 3" in outcome.error
        assert len(inside.notes("fatal")) == MOST_DISPATCHES


async def test_a_function_over_its_time_limit_fails_and_its_worker_is_replaced(tmp_path: Path) -> None:
    async with running(tmp_path, workers=1, function_timeout=0.5) as inside:
        ((pid, _),) = inside.pool.workers
        outcome = await inside.pool.invoke(inside.call("busy", redispatch=True))
        assert outcome.error == "FunctionTimeoutException: timeout of 0.5 s exceeded by function busy"
        await until(lambda: inside.pool.ready and inside.pool.workers[0][0] != pid)
        assert inside.notes("busy") == [str(pid)]


async def test_the_least_busy_worker_gets_the_work(tmp_path: Path) -> None:
    async with running(tmp_path) as inside:
        blocked = asyncio.create_task(inside.pool.invoke(inside.call("once", redispatch=True)))
        await until(lambda: len(inside.notes("once")) == 1)
        outcomes = [await inside.pool.invoke(inside.call("hello")) for _ in range(4)]
        (other,) = [pid for pid, _ in inside.pool.workers if str(pid) not in inside.notes("once")]
        assert {dict(o.value[1][1])["x-pid"] for o in outcomes if o.value is not None} == {str(other)}
        blocked.cancel()


async def test_functions_that_block_threads_do_not_keep_others_waiting(tmp_path: Path) -> None:
    async with running(tmp_path, workers=1) as inside:
        blocked = [asyncio.create_task(inside.pool.invoke(inside.call("wait"))) for _ in range(30)]
        await until(lambda: len(inside.notes("waiting")) == len(blocked))
        assert (await inside.pool.invoke(inside.call("hello"))).ok
        (tmp_path / "notes" / "released").touch()
        assert all(outcome.ok for outcome in await asyncio.gather(*blocked))


async def test_work_that_may_run_again_is_left_to_the_next_host_when_the_pool_stops(tmp_path: Path) -> None:
    async with running(tmp_path, workers=1) as inside:
        work = asyncio.create_task(inside.pool.invoke(inside.call("once", redispatch=True)))
        await until(lambda: len(inside.notes("once")) == 1)
        await inside.pool.stop()
        assert not work.done()
        work.cancel()


async def test_a_call_that_the_host_does_not_wait_for_any_more_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path, workers=1) as inside:
        call = asyncio.create_task(inside.pool.invoke(inside.call("wait")))
        await until(lambda: inside.notes("waiting") != [])
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert "[wait " in caplog.text
    assert "cut off after" in caplog.text


async def test_an_app_that_does_not_load_is_shown_with_its_traceback(tmp_path: Path) -> None:
    app_dir = sample_app.write(tmp_path, "import not_installed_anywhere\n")
    environment = worker_environment(settings.load(app_dir), "localhost")
    pool = WorkerPool(app_dir=app_dir, count=2, environment=environment)
    with pytest.raises(IndexingFailed, match="No module named 'not_installed_anywhere'"):
        await pool.start()
    await pool.stop()


async def test_an_app_that_takes_long_to_load_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("devhost.pool.LOADING_SECONDS", 0.05)
    app_dir = sample_app.write(tmp_path, "import time\ntime.sleep(1000)\n")
    environment = worker_environment(settings.load(app_dir), "localhost")
    pool = WorkerPool(app_dir=app_dir, count=1, environment=environment)
    starting = asyncio.create_task(pool.start())
    await until(lambda: f"the app in {app_dir} is still being loaded" in caplog.text)
    starting.cancel()
    await asyncio.wait({starting})
    await pool.stop()


async def test_a_busy_worker_ends_when_the_socket_closes(tmp_path: Path) -> None:
    """Without the host's death, so without the parent-death signal of Linux: this is what other systems have."""
    app_dir = sample_app.write(tmp_path)
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "devhost.worker", str(theirs.fileno()), str(app_dir)),
            cwd=app_dir,
            env=worker_environment(settings.load(app_dir), "localhost"),
            pass_fds=[theirs.fileno()],
        )
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    length = int.from_bytes(await reader.readexactly(4))
    (ready,) = wire.FrameReader().feed(length.to_bytes(4) + await reader.readexactly(length))
    functions = {function.name: function for function in wire.read_ready(ready)}
    writer.write(wire.encode(wire.invoke_frame("i", Invocation(functions["busy"].id, [("req", REQUEST)]))))
    await until(lambda: sample_app.notes(tmp_path, "busy") == [str(process.pid)])
    writer.close()
    await asyncio.wait_for(process.wait(), 2)


def test_restarts_back_off() -> None:
    delays = [restart_delay(failures) for failures in range(1, 12)]
    assert delays[:4] == [0.0, 0.25, 0.5, 1.0]
    assert delays == sorted(delays)
    assert delays[-1] == restart_delay(10_000) == LONGEST_DELAY_SECONDS
