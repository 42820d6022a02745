"""The worker processes: starts them, gives each invocation to the least busy one, replaces those that die.

A worker is *starting* until it has loaded the app, *indexed* until the app's warmup functions have run in it, *ready*
while it takes work, and *stopping* once it shall take no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from devhost import wire
from devhost.errors import IndexingFailed, WorkerDied
from devhost.protocol import FunctionInfo, Invocation, Outcome

type WorkerState = Literal["starting", "indexed", "ready", "stopping"]

MOST_DISPATCHES = 5
"""Workers that one invocation may lose before it counts as the cause."""
WAIT_FOR_WORKER_SECONDS = 30.0
"""Longest wait for a ready worker. Work that may run again waits for as long as it takes."""
STABLE_SECONDS = 10.0
"""A worker that lived this long did not die of starting: the next one starts without delay."""
FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 10.0
LOADING_SECONDS = 10.0
"""How long the app may take to load before somebody is told that it does, and how often after that."""
STOP_SECONDS = 1.5
"""How long a worker may take to end by itself before it is killed."""

_log = logging.getLogger("devhost.pool")
_function_log = logging.getLogger("devhost.function")


def restart_delay(failures: int) -> float:
    """Seconds to wait before the next start, after `failures` short lives in a row: none after the first."""
    return 0.0 if failures <= 1 else float(min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(failures - 2, 20)))


class _Pending(NamedTuple):
    """An invocation that a worker has been given. `name` is its function's, `since` the loop's time when it began."""

    name: str
    future: asyncio.Future[Outcome]
    since: float


@dataclass(eq=False, slots=True)
class _Worker:
    """A worker process as the pool sees it. `loaded` ends with the functions, or with why there are none."""

    process: asyncio.subprocess.Process
    loaded: asyncio.Future[tuple[FunctionInfo, ...]]
    connection: wire.Connection = field(init=False)
    state: WorkerState = "starting"
    last_turn: int = 0
    timed_out: bool = False
    pending: dict[str, _Pending] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()


class WorkerPool:
    """Keeps `count` workers of one app running. An Invoker."""

    def __init__(
        self,
        *,
        app_dir: Path,
        count: int,
        environment: Mapping[str, str],
        function_timeout: float | None = None,
    ) -> None:
        """`environment` is a worker's whole environment; `function_timeout` is in seconds, None for no limit."""
        self._app_dir = app_dir
        self._count = count
        self._environment = dict(environment)
        self._function_timeout = function_timeout
        self._workers: dict[int, _Worker] = {}
        self._functions: dict[str, FunctionInfo] = {}
        self._warmups: Sequence[Invocation] = ()
        self._id_prefix = str(uuid.uuid4()).rpartition("-")[0]
        self._enforcing: asyncio.Task[None] | None = None
        self._keepers: list[asyncio.Task[None]] = []
        self._preparing: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self._opened = asyncio.Event()
        self._turns = itertools.count(1)
        self._started = False
        self._stopping = asyncio.Event()

    @property
    def workers(self) -> list[tuple[int, WorkerState]]:
        """Process id and state of each worker that there is now."""
        return [(worker.pid, worker.state) for _, worker in sorted(self._workers.items())]

    @property
    def ready(self) -> bool:
        """Whether every worker takes work."""
        states = [state for _, state in self.workers]
        return len(states) == self._count and set(states) == {"ready"}

    async def start(self) -> tuple[FunctionInfo, ...]:
        """Starts the workers and returns the app's functions. Raises IndexingFailed. They take work after `open`."""
        loop = asyncio.get_running_loop()
        loaded = [loop.create_future() for _ in range(self._count)]
        self._keepers = [loop.create_task(self._keep(slot, future)) for slot, future in enumerate(loaded)]
        functions = await self._all_loaded(loaded)
        self._functions = {function.id: function for function in functions}
        self._started = True
        if self._function_timeout is not None:
            self._enforcing = loop.create_task(self._enforce(self._function_timeout))
        return functions

    async def _all_loaded(self, loaded: Sequence[asyncio.Future[tuple[FunctionInfo, ...]]]) -> tuple[FunctionInfo, ...]:
        """The functions, once every worker has loaded the app. Raises IndexingFailed."""
        loading = asyncio.gather(*loaded)
        waited = 0.0
        while True:
            await asyncio.wait({loading}, timeout=LOADING_SECONDS)
            if loading.done():
                functions: tuple[FunctionInfo, ...] = loading.result()[0]
                return functions
            waited += LOADING_SECONDS
            _log.warning(
                "the app in %s is still being loaded after %.0f s: does its code wait for something when it is "
                "imported? (worker processes %s)",
                self._app_dir,
                waited,
                ", ".join(str(pid) for pid, state in self.workers if state == "starting"),
            )

    async def open(self, warmups: Sequence[Invocation] = ()) -> None:
        """Lets the workers take work, after `warmups` have run in each, now and after every restart."""
        self._warmups = warmups
        self._opened.set()
        async with self._changed:
            await self._changed.wait_for(lambda: self.ready)

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Runs it on the least busy worker. When the worker dies, on another one if `redispatch`, else not ok.

        While the pool stops, work that may run again stays unanswered: it belongs to the next host, and a failure
        reported now would be the last word on it.
        """
        reason = ""
        for _ in range(MOST_DISPATCHES):
            worker = await self._pick(patient=invocation.redispatch)
            if worker is None:
                return Outcome(ok=False, error=f"NoWorker: no worker was ready in {WAIT_FOR_WORKER_SECONDS:.0f} s")
            try:
                return await self._run(worker, invocation)
            except WorkerDied as died:
                reason = str(died)
                if not invocation.redispatch:
                    break
                if self._stopping.is_set():
                    await asyncio.get_running_loop().create_future()
                _log.warning("%s runs again, because %s", self._name(invocation.function_id), reason)
        return Outcome(ok=False, error=f"{WorkerDied.__name__}: {reason}")

    async def stop(self) -> None:
        """Ends every worker: says stop, and kills those that have not ended after a moment."""
        self._stopping.set()
        for worker in self._workers.values():
            if worker.state == "starting":  # it loads the app and would not hear us
                worker.kill()
            worker.state = "stopping"
            worker.connection.send((wire.STOP,))
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=STOP_SECONDS)
        for worker in self._workers.values():
            worker.kill()
        await asyncio.gather(*self._keepers)  # never cancelled: a keeper may be in the middle of starting a process
        await asyncio.gather(*self._preparing, return_exceptions=True)
        if self._enforcing is not None:
            self._enforcing.cancel()
            await asyncio.gather(self._enforcing, return_exceptions=True)

    async def _run(self, worker: _Worker, invocation: Invocation) -> Outcome:
        """Runs it in this worker. Raises WorkerDied. A function that takes too long takes its worker with it."""
        loop = asyncio.get_running_loop()
        turn = next(self._turns)
        invocation_id = f"{self._id_prefix}-{turn:012x}"
        future: asyncio.Future[Outcome] = loop.create_future()
        name = self._name(invocation.function_id)
        worker.last_turn = turn
        worker.pending[invocation_id] = _Pending(name, future, loop.time())
        try:
            worker.connection.send(wire.invoke_frame(invocation_id, invocation))
            outcome = await future
        except asyncio.CancelledError:
            seconds = loop.time() - worker.pending[invocation_id].since
            _function_log.warning("[%s %s] cut off after %.1f s: the host stops", name, invocation_id, seconds)
            raise
        finally:
            del worker.pending[invocation_id]
        if not outcome.ok:
            _function_log.error("[%s %s] %s", name, invocation_id, outcome.traceback.rstrip() or outcome.error)
        return outcome

    async def _enforce(self, limit: float) -> None:
        """Ends each function that takes longer than `limit` seconds, and its worker with it.

        One task for all: a timer of its own costs each invocation more than everything else that the pool does for it.
        A worker's oldest invocation is its first.
        """
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + limit
            for worker in self._workers.values():
                oldest = next(iter(worker.pending.values()), None)
                if oldest is None or worker.timed_out:
                    continue
                if oldest.since + limit > loop.time():
                    due = min(due, oldest.since + limit)
                    continue
                worker.timed_out = True
                worker.state = "stopping"
                error = f"FunctionTimeoutException: timeout of {limit:g} s exceeded by function {oldest.name}"
                if not oldest.future.done():
                    oldest.future.set_result(Outcome(ok=False, error=error))
                worker.kill()  # its thread cannot be stopped any other way
            await asyncio.sleep(due - loop.time())

    async def _pick(self, *, patient: bool) -> _Worker | None:
        """The ready worker with the least work, in turn among equals. None when there is none for too long."""
        worker = self._least_busy()
        if worker is None:
            try:
                async with asyncio.timeout(None if patient else WAIT_FOR_WORKER_SECONDS), self._changed:
                    await self._changed.wait_for(lambda: self._least_busy() is not None)
            except TimeoutError:
                return None
            worker = self._least_busy()
        return worker

    def _least_busy(self) -> _Worker | None:
        ready = (worker for worker in self._workers.values() if worker.state == "ready")
        return min(ready, key=lambda worker: (len(worker.pending), worker.last_turn), default=None)

    async def _keep(self, slot: int, loaded: asyncio.Future[tuple[FunctionInfo, ...]]) -> None:
        """Keeps a worker running in this slot, whatever happens to it. A first one that does not load ends it."""
        loop = asyncio.get_running_loop()
        failures = 0
        while not self._stopping.is_set():
            started = loop.time()
            try:
                worker = await self._spawn(slot, loaded)
            except OSError as error:  # no memory or no descriptors: later there may be
                self._not_loaded(loaded, f"no process can be started for it: {error}")
            else:
                await self._live(worker)
            if not self._started and (loaded.cancelled() or loaded.exception() is not None):
                return
            failures = 1 if loop.time() - started >= STABLE_SECONDS else failures + 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), restart_delay(failures))
            loaded = loop.create_future()

    async def _live(self, worker: _Worker) -> None:
        """From a worker's start to its end."""
        preparing = asyncio.get_running_loop().create_task(self._prepare(worker))
        self._preparing.add(preparing)
        preparing.add_done_callback(self._preparing.discard)
        if self._stopping.is_set():
            worker.kill()
        status = await worker.process.wait()
        self._bury(worker, status)
        preparing.cancel()
        if self._started and not self._stopping.is_set():
            _log.warning("worker %d %s; starting another", worker.pid, _ending(worker, status))

    async def _prepare(self, worker: _Worker) -> None:
        """Waits until the worker has loaded the app and the pool is open, warms it up, and makes it ready."""
        try:
            await asyncio.shield(worker.loaded)
        except IndexingFailed:
            return
        worker.state = "indexed"
        await self._opened.wait()
        try:
            for warmup in self._warmups:
                await self._run(worker, warmup)  # one that fails has been logged, and the worker serves all the same
        except WorkerDied:
            return
        if worker.state == "indexed":
            worker.state = "ready"
            async with self._changed:
                self._changed.notify_all()

    async def _spawn(self, slot: int, loaded: asyncio.Future[tuple[FunctionInfo, ...]]) -> _Worker:
        """A new process. Raises OSError."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "devhost.worker", str(theirs.fileno()), str(self._app_dir)]
        with contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    cwd=self._app_dir,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            worker = _Worker(process=process, loaded=loaded)
            undo.callback(worker.kill)
            _, worker.connection = await loop.create_unix_connection(
                lambda: wire.Connection(lambda frame: self._received(worker, frame), lambda: _hung_up(worker)),
                sock=ours,
            )
            undo.pop_all()
        self._workers[slot] = worker
        return worker

    def _received(self, worker: _Worker, frame: wire.Frame) -> None:
        match frame[0]:
            case wire.OUTCOME:
                invocation_id, outcome = wire.read_outcome(frame)
                pending = worker.pending.get(invocation_id)
                if pending is not None and not pending.future.done():
                    pending.future.set_result(outcome)
            case wire.LOG:
                _, invocation_id, level, logger, message = frame
                pending = worker.pending.get(invocation_id)
                origin = f"worker {worker.pid}, {logger}" if pending is None else f"{pending.name} {invocation_id}"
                _function_log.log(level, "[%s] %s", origin, message)
            case wire.READY if not worker.loaded.done():
                worker.loaded.set_result(wire.read_ready(frame))
            case wire.FAILED if not worker.loaded.done():
                self._not_loaded(worker.loaded, frame[1])

    def _not_loaded(self, loaded: asyncio.Future[tuple[FunctionInfo, ...]], details: str) -> None:
        error = IndexingFailed(self._app_dir, details)
        if not loaded.done():
            loaded.set_exception(error)
            loaded.exception()  # marks it as seen: after the first start only the log is told
        if self._started:  # before that, `start` tells the caller
            _log.error("%s", error)

    def _bury(self, worker: _Worker, status: int) -> None:
        """Takes no more from a dead worker, and tells those who wait for it."""
        worker.state = "stopping"
        died = WorkerDied(worker.pid, _ending(worker, status))
        if not worker.loaded.done():
            self._not_loaded(worker.loaded, f"{died} before it had loaded the app")
        for pending in worker.pending.values():
            if not pending.future.done():
                pending.future.set_exception(died)
        worker.connection.close()

    def _name(self, function_id: str) -> str:
        function = self._functions.get(function_id)
        return function_id if function is None else function.name


def _hung_up(worker: _Worker) -> None:
    """Its socket tells of its death sooner than the process does: nothing more is given to it."""
    worker.state = "stopping"
    worker.kill()


def _ending(worker: _Worker, status: int) -> str:
    if worker.timed_out:
        return "was ended because a function ran into its time limit"
    return f"was ended by signal {-status}" if status < 0 else f"exited with status {status}"
