"""The host as a whole: listens, loads the app into its workers, connects triggers to functions, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from devhost import admin, auth, durable_gate, settings, state_lock
from devhost.blobs import BlobWebhook
from devhost.caller import Caller
from devhost.catalog import HTTP, QUEUE_TRIGGER, TIMER, WARMUP, Catalog, kind
from devhost.durable_gate import MANAGEMENT_PREFIX, RPC_PREFIX, DurableEngine, EngineFactory
from devhost.errors import AddressUnavailable
from devhost.eventgrid_webhook import EventGridWebhook
from devhost.front import HttpFront, full_route
from devhost.outputs import WithOutputs
from devhost.pool import WorkerPool
from devhost.protocol import FunctionInfo, Invoker
from devhost.queues import QueueTriggers
from devhost.settings import Settings
from devhost.storage import Storage
from devhost.timer_memory import TimerFile
from devhost.timers import Timers

type HostState = Literal["Starting", "Running", "Stopping"]
type Handler = Callable[[web.BaseRequest], Awaitable[web.Response]]

LOOPBACK = "127.0.0.1"
DRAIN_SECONDS = 3.0
"""How long requests and timer runs under way may take to end once the host stops."""
ENGINE_STOP_SECONDS = 2.0
RPC_DRAIN_SECONDS = 0.5
RPC_BODY_LIMIT = 2**30
"""Bytes of the largest body from the durable client: an orchestration's input."""
BACKLOG = 1024
THREADS_SETTING = "PYTHON_THREADPOOL_THREAD_COUNT"
HTTP_THREADS = 32
"""Threads of each worker for functions other than the durable engine's."""
EVENT_GRID_PATH = "/runtime/webhooks/eventgrid"
BLOBS_PATH = "/runtime/webhooks/blobs"
GREETING = "Your Functions host is up and running."

_log = logging.getLogger("devhost.host")


@dataclass(frozen=True, slots=True)
class HostOptions:
    """What to host and where. `port` 0 takes any free one; without a `keys_file` nobody needs a key."""

    app_dir: Path
    state_dir: Path
    host: str = LOOPBACK
    port: int = 7071
    workers: int = 1
    keys_file: Path | None = None


@dataclass(frozen=True, slots=True)
class _Parts:
    """What answers requests once the app's functions are known."""

    catalog: Catalog
    caller: Caller
    front: HttpFront
    event_grid: EventGridWebhook
    blobs: BlobWebhook
    timers: Timers
    queues: QueueTriggers
    functions_admin: admin.FunctionsAdmin
    engine: DurableEngine | None


class Host:
    """Hosts one app. `start` returns when all workers are ready; `stop` leaves no process behind."""

    def __init__(self, options: HostOptions, *, engine: EngineFactory = durable_gate.default_engine) -> None:
        self._options = options
        self._engine_factory = engine
        self._started = time.monotonic()
        self._state: HostState = "Starting"
        self._route_prefix = ""
        self._gate: auth.Gate = auth.Open()
        self._lock = contextlib.ExitStack()
        self._main: web.ServerRunner | None = None
        self._rpc: web.ServerRunner | None = None
        self._pool: WorkerPool | None = None
        self._storage: Storage | None = None
        self._parts: _Parts | None = None
        self.url = ""

    @property
    def functions(self) -> tuple[FunctionInfo, ...]:
        """The functions in service. None before the app is loaded."""
        return () if self._parts is None else self._parts.catalog.functions

    def url_of(self, function: FunctionInfo) -> str:
        """The URL template of an HTTP function; empty for others."""
        return f"{self.url}/{full_route(function, self._route_prefix)}" if kind(function.trigger) == HTTP else ""

    async def start(self) -> None:
        """Raises AppInvalid, IndexingFailed, StateDirectoryInUse, StateUnusable and AddressUnavailable.

        It has then stopped again.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Takes no more requests, lets those under way end for a few seconds, and stops the workers."""
        self._state = "Stopping"
        parts = self._parts
        if parts is not None:
            await parts.timers.stop()
            await parts.queues.stop()
        async with asyncio.TaskGroup() as draining:
            if self._main is not None:
                draining.create_task(self._main.cleanup())
            if parts is not None:
                draining.create_task(parts.caller.drain(DRAIN_SECONDS))
        if parts is not None and parts.engine is not None:
            try:
                await asyncio.wait_for(parts.engine.stop(), ENGINE_STOP_SECONDS)
            except TimeoutError:
                _log.warning(
                    "the durable engine did not stop in %.0f s; its work goes on at the next start", ENGINE_STOP_SECONDS
                )
        if self._rpc is not None:
            await self._rpc.cleanup()
        if self._pool is not None:
            await self._pool.stop()
        if self._storage is not None:
            await self._storage.close()
        self._lock.close()

    async def _start(self) -> None:
        options = self._options
        configured = settings.load(options.app_dir)
        for file, ignored in (("host.json", configured.ignored), (settings.LOCAL_SETTINGS, configured.local.ignored)):
            if ignored:
                _log.warning("%s: these settings have no effect in devhost: %s", file, ", ".join(ignored))
        keys = None if options.keys_file is None else auth.Keys.load(options.keys_file)
        self._gate = auth.Open() if keys is None else keys
        self._route_prefix = configured.route_prefix
        self._lock.enter_context(state_lock.held(options.state_dir))
        self._main = _runner(self._dispatch, body_limit=configured.body_limit, drain=DRAIN_SECONDS)
        port = await _listen(self._main, options.host, options.port)
        self.url = f"http://{options.host}:{port}"
        self._pool = WorkerPool(
            app_dir=options.app_dir,
            count=options.workers,
            environment=worker_environment(configured, f"{options.host}:{port}"),
            function_timeout=configured.function_timeout,
        )
        catalog = Catalog(await self._pool.start(), configured)
        self._storage = Storage(configured)
        invoker = WithOutputs(self._pool, catalog.functions, configured, self._storage)
        engine = await self._engine(catalog, configured, invoker, keys) if catalog.durable else None
        self._parts = parts = self._compose(catalog, configured, invoker, self._storage, engine)
        await self._pool.open([parts.caller.invocation(f, ("string", "")) for f in catalog.triggered_by(WARMUP)])
        if engine is not None:
            await engine.start()
        parts.timers.start()
        parts.queues.start()
        self._state = "Running"

    async def _engine(
        self, catalog: Catalog, configured: Settings, invoker: Invoker, keys: auth.Keys | None
    ) -> DurableEngine:
        self._rpc = _runner(self._dispatch_rpc, body_limit=RPC_BODY_LIMIT, drain=RPC_DRAIN_SECONDS)
        rpc_port = await _listen(self._rpc, LOOPBACK, 0)
        options = durable_gate.hub_options(
            configured,
            state_dir=self._options.state_dir,
            main_url=self.url,
            rpc_url=f"http://{LOOPBACK}:{rpc_port}",
            key=None if keys is None else keys.system.get(auth.DURABLE_KEY, keys.master),
        )
        return self._engine_factory(options, invoker, catalog.functions)

    def _compose(
        self,
        catalog: Catalog,
        configured: Settings,
        invoker: Invoker,
        storage: Storage,
        engine: DurableEngine | None,
    ) -> _Parts:
        caller = Caller(invoker, None if engine is None else engine.client_binding)
        timers = Timers(catalog.triggered_by(TIMER), caller, configured, TimerFile(self._options.state_dir))
        queues = QueueTriggers(catalog.triggered_by(QUEUE_TRIGGER), caller, configured, storage)
        blobs = BlobWebhook(catalog, caller, configured, storage)
        return _Parts(
            catalog=catalog,
            caller=caller,
            front=HttpFront(catalog, caller, route_prefix=configured.route_prefix, gate=self._gate),
            event_grid=EventGridWebhook(catalog, caller),
            blobs=blobs,
            timers=timers,
            queues=queues,
            functions_admin=admin.FunctionsAdmin(catalog, caller, timers, queues, blobs, self.url_of),
            engine=engine,
        )

    async def _dispatch(self, request: web.BaseRequest) -> web.Response:
        """Answers a request on the main port."""
        path = request.rel_url.raw_path.lower()
        if not self._lets_in(request, path):
            return web.Response(status=HTTPStatus.UNAUTHORIZED)
        if path == "/admin/host/status":
            return admin.status(self._current_state(), self._started, self._pool.workers if self._pool else [])
        if path == "/admin/host/ping":
            return web.Response()
        parts = self._parts
        if parts is None or self._state == "Starting":
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "1"})
        if path == "/admin/functions" or path.startswith("/admin/functions/"):
            return await parts.functions_admin.handle(request, path.removeprefix("/admin/functions").strip("/"))
        if path.rstrip("/") == EVENT_GRID_PATH:
            return await parts.event_grid.handle(request)
        if path.rstrip("/") == BLOBS_PATH:
            return await parts.blobs.handle(request)
        if parts.engine is not None and path.startswith(f"{MANAGEMENT_PREFIX}/"):
            return await durable_gate.answer(parts.engine, request, MANAGEMENT_PREFIX)
        response = await parts.front.handle(request)
        if response is None and path == "/":
            return web.Response(text=GREETING)
        return response if response is not None else web.Response(status=HTTPStatus.NOT_FOUND)

    def _lets_in(self, request: web.BaseRequest, path: str) -> bool:
        """Whether the request may use the host's own addresses and the webhooks. HTTP functions are the front's."""
        if path.startswith("/admin/"):
            return path == "/admin/host/ping" or self._gate.allows_admin(request)
        if path.rstrip("/") == EVENT_GRID_PATH:
            return self._gate.allows_system(request, auth.EVENT_GRID_KEY)
        if path.rstrip("/") == BLOBS_PATH:
            return self._gate.allows_system(request, auth.BLOBS_KEY)
        if path.startswith(f"{MANAGEMENT_PREFIX}/"):
            return self._gate.allows_system(request, auth.DURABLE_KEY)
        return True

    async def _dispatch_rpc(self, request: web.BaseRequest) -> web.Response:
        """Answers the durable client, on the loopback port that only its binding names."""
        parts = self._parts
        if parts is None or parts.engine is None:
            return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE)
        if not request.rel_url.raw_path.startswith(f"{RPC_PREFIX}/"):
            return web.Response(status=HTTPStatus.NOT_FOUND)
        return await durable_gate.answer(parts.engine, request, RPC_PREFIX)

    def _current_state(self) -> HostState:
        """Running only while every worker is ready, so that others can wait for a replaced one."""
        running = self._state == "Running" and self._pool is not None and self._pool.ready
        return "Starting" if self._state == "Running" and not running else self._state


def worker_environment(configured: Settings, address: str) -> dict[str, str]:
    """The whole environment of a worker: the app's settings and what the cloud's host adds to them.

    All activities and orchestrators of the host may meet in one worker while the others start again; with a thread for
    each of them, they never keep an HTTP function waiting for a thread.
    """
    threads = HTTP_THREADS + configured.max_activities + configured.max_orchestrators
    package_root = str(Path(__file__).resolve().parent.parent)
    search_path = [str(configured.app_dir), package_root, configured.environment.get("PYTHONPATH", "")]
    return {
        THREADS_SETTING: str(threads),
        "FUNCTIONS_WORKER_RUNTIME": "python",
        "AZURE_FUNCTIONS_ENVIRONMENT": "Development",
        "DEVHOST_WORKER_LOG_LEVEL": configured.log_level,
        **configured.environment,
        "PYTHONPATH": os.pathsep.join(part for part in search_path if part),
        "AzureWebJobsScriptRoot": str(configured.app_dir),
        "WEBSITE_HOSTNAME": address,
    }


def _runner(handler: Handler, *, body_limit: int, drain: float) -> web.ServerRunner:
    """A server without aiohttp's routing: the host has its own."""
    loop = asyncio.get_running_loop()

    def request(
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=body_limit)

    # A compressed body goes to the function as it came, with its Content-Encoding, as from the real host.
    server = web.Server(handler, request_factory=request, access_log=None, auto_decompress=False)
    # aiohttp waits this long twice: for the handlers under way, and once more after it has cancelled their reading.
    return web.ServerRunner(server, shutdown_timeout=drain / 2)


async def _listen(runner: web.ServerRunner, host: str, port: int) -> int:
    """Begins to listen and returns the port. Raises AddressUnavailable."""
    await runner.setup()
    site = web.TCPSite(runner, host, port, backlog=BACKLOG)
    try:
        await site.start()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise AddressUnavailable(host, port, reason) from error
    return int(runner.addresses[0][1])
