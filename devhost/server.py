"""The host's HTTP servers: one for everybody, and one for the durable client on a port of its own.

Importing this takes longer than anything else that the host does before it is ready, so the workers load the app
meanwhile (see host.py).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage

from devhost import admin, auth, durable_gate
from devhost.blobs import BlobWebhook
from devhost.caller import Caller
from devhost.catalog import HTTP, QUEUE_TRIGGER, TIMER, WARMUP, Catalog, kind
from devhost.durable_gate import MANAGEMENT_PREFIX, RPC_PREFIX, DurableEngine, EngineFactory
from devhost.eventgrid_webhook import EventGridWebhook
from devhost.express import Express
from devhost.front import HttpFront, PlainRequest, Reply, full_route
from devhost.outputs import WithOutputs
from devhost.pool import WorkerPool
from devhost.ports import BACKLOG, LOOPBACK
from devhost.protocol import FunctionInfo, Invoker
from devhost.queues import QueueTriggers
from devhost.settings import Settings
from devhost.storage import Storage
from devhost.timer_memory import TimerFile
from devhost.timers import Timers

type HostState = Literal["Starting", "Running", "Stopping"]
type Handler = Callable[[web.BaseRequest], Awaitable[web.Response]]

DRAIN_SECONDS = 3.0
"""How long requests and timer runs under way may take to end once the host stops."""
ENGINE_STOP_SECONDS = 2.0
RPC_DRAIN_SECONDS = 0.5
RPC_BODY_LIMIT = 2**30
"""Bytes of the largest body from the durable client: an orchestration's input."""
OWN_PATHS = ("/admin/", "/runtime/webhooks/")
"""What addresses begin with that no function may have."""
EVENT_GRID_PATH = "/runtime/webhooks/eventgrid"
BLOBS_PATH = "/runtime/webhooks/blobs"
GREETING = "Your Functions host is up and running."

_log = logging.getLogger("devhost.server")


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


class Server:
    """Answers for one app. `listen` first, `open` once the workers know the functions, `stop` in any case."""

    def __init__(
        self,
        configured: Settings,
        pool: WorkerPool,
        *,
        url: str,
        state_dir: Path,
        keys: auth.Keys | None,
        engine: EngineFactory | None,
    ) -> None:
        self._configured = configured
        self._pool = pool
        self._url = url
        self._state_dir = state_dir
        self._keys = keys
        self._gate = auth.Open() if keys is None else keys
        self._engine_factory = engine or durable_gate.default_engine
        self._started = time.monotonic()
        self._state: HostState = "Starting"
        self._main = _runner(self._dispatch, body_limit=configured.body_limit, drain=DRAIN_SECONDS)
        self._express = Express(self._at_once, self._main_server, body_limit=configured.body_limit)
        self._listening: asyncio.Server | None = None
        self._rpc: web.ServerRunner | None = None
        self._storage = Storage(configured)
        self._parts: _Parts | None = None

    @property
    def functions(self) -> tuple[FunctionInfo, ...]:
        """The functions in service. None before the app is loaded."""
        return () if self._parts is None else self._parts.catalog.functions

    def url_of(self, function: FunctionInfo) -> str:
        """The URL template of an HTTP function; empty for others."""
        route = full_route(function, self._configured.route_prefix)
        return f"{self._url}/{route}" if kind(function.trigger) == HTTP else ""

    async def listen(self, listener: socket.socket) -> None:
        """Answers from now on: 503 until it is open, except for the status."""
        await self._main.setup()
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(self._express.connection, sock=listener, backlog=BACKLOG)

    async def open(self, functions: Sequence[FunctionInfo]) -> None:
        """Puts the functions in service. Raises AppInvalid and StateUnusable."""
        configured = self._configured
        catalog = Catalog(functions, configured)
        invoker = WithOutputs(self._pool, catalog.functions, configured, self._storage)
        engine = await self._engine(catalog, invoker) if catalog.durable else None
        self._parts = parts = self._compose(catalog, invoker, engine)
        await self._pool.open([parts.caller.invocation(f, ("string", "")) for f in catalog.triggered_by(WARMUP)])
        if engine is not None:
            await engine.start()
        parts.timers.start()
        parts.queues.start()
        self._state = "Running"

    async def stop(self) -> None:
        """Takes no more requests, and lets those under way end for a few seconds. The workers are needed until then."""
        self._state = "Stopping"
        parts = self._parts
        if parts is not None:
            await parts.timers.stop()
            await parts.queues.stop()
        if self._listening is not None:
            self._listening.close()
        async with asyncio.TaskGroup() as draining:
            draining.create_task(self._express.close(DRAIN_SECONDS))
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
        await self._storage.close()

    async def _engine(self, catalog: Catalog, invoker: Invoker) -> DurableEngine:
        self._rpc = _runner(self._dispatch_rpc, body_limit=RPC_BODY_LIMIT, drain=RPC_DRAIN_SECONDS)
        await self._rpc.setup()
        await web.TCPSite(self._rpc, LOOPBACK, 0, backlog=BACKLOG).start()
        options = durable_gate.hub_options(
            self._configured,
            state_dir=self._state_dir,
            main_url=self._url,
            rpc_url=f"http://{LOOPBACK}:{self._rpc.addresses[0][1]}",
            key=None if self._keys is None else self._keys.system.get(auth.DURABLE_KEY, self._keys.master),
        )
        return self._engine_factory(options, invoker, catalog.functions)

    def _compose(
        self,
        catalog: Catalog,
        invoker: Invoker,
        engine: DurableEngine | None,
    ) -> _Parts:
        configured, storage = self._configured, self._storage
        caller = Caller(invoker, None if engine is None else engine.client_binding)
        timers = Timers(catalog.triggered_by(TIMER), caller, configured, TimerFile(self._state_dir))
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

    def _main_server(self) -> asyncio.Protocol:
        """What answers on a connection of the main port, whatever comes."""
        server = self._main.server
        assert server is not None  # noqa: S101 (it is there from `listen` on)
        return server()

    def _at_once(self, asked: PlainRequest) -> Awaitable[Reply] | None:
        """The reply to a request that is for a function. None for all others: they are `_dispatch`'s."""
        parts = self._parts
        path, _, _ = asked.target.partition("?")
        if parts is None or self._state != "Running" or path.lower().startswith(OWN_PATHS):
            return None
        found = parts.front.find(asked.method, path)
        return None if found is None else parts.front.answer(found, asked)

    async def _dispatch(self, request: web.BaseRequest) -> web.Response:
        """Answers a request on the main port."""
        path = request.rel_url.raw_path.lower()
        if not self._lets_in(request, path):
            return web.Response(status=HTTPStatus.UNAUTHORIZED)
        if path == "/admin/host/status":
            return admin.status(self._current_state(), self._started, self._pool.workers)
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
        running = self._state == "Running" and self._pool.ready
        return "Starting" if self._state == "Running" and not running else self._state


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
