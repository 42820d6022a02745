"""The local Event Grid as one process: storage source, couriers, and an HTTP server for topics and its own state."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from devhost.eventgrid.azurite_storage import azurite_storage
from devhost.eventgrid.delivery import BackOff, Courier
from devhost.eventgrid.errors import BadEvents
from devhost.eventgrid.events import event_type, published_events, subject
from devhost.eventgrid.faults import Faults
from devhost.eventgrid.intake import Wanted, fated, report
from devhost.eventgrid.storage import StorageSource
from devhost.eventgrid.store import Store
from devhost.eventgrid.subscriptions import Subscription, check_names
from devhost.ports import LOOPBACK, PortTaken

MAX_REQUEST_BYTES = 2**20
"""Azure's limit for one publishing request."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """How to run. `topic_key` empty lets anybody on this machine publish; `port` 0 takes a free one."""

    state: Path
    port: int
    subscriptions: tuple[Subscription, ...] = ()
    azurite_log: Path | None = None
    connection_string: str = ""
    from_end: bool = False
    topic_key: str = ""
    back_off: BackOff = field(default_factory=BackOff)
    faults: Faults = field(default_factory=Faults)


class EventGrid:
    """What the HTTP handlers need: the store, the couriers, the key."""

    def __init__(self, store: Store, couriers: Sequence[Courier], *, topic_key: str, faults: Faults) -> None:
        self._store = store
        self._faults = faults
        self._couriers = couriers
        self._topic_key = topic_key

    def wake(self) -> None:
        """Tells every courier that there may be work."""
        for courier in self._couriers:
            courier.wake()

    def application(self) -> web.Application:
        """Routes: topics, /health (the process works), /ready (every webhook is validated), /subscriptions."""
        application = web.Application(client_max_size=MAX_REQUEST_BYTES)
        application.router.add_post("/topics/{topic}/api/events", self._publish)
        application.router.add_get("/health", self._health)
        application.router.add_get("/ready", self._ready)
        application.router.add_get("/subscriptions", self._subscriptions)
        return application

    async def _publish(self, request: web.Request) -> web.Response:
        given = request.headers.get("aeg-sas-key", "")
        if self._topic_key and not hmac.compare_digest(given.encode(), self._topic_key.encode()):
            return _refused(HTTPStatus.UNAUTHORIZED, "The request has no valid aeg-sas-key header.")
        topic = request.match_info["topic"]
        try:
            events = published_events(await request.read(), topic=topic)
        except BadEvents as error:
            return _refused(HTTPStatus.BAD_REQUEST, str(error))
        source = f"topics/{topic}"
        wanted = [
            Wanted(courier.subscription.name, event, key=str(event["id"]))
            for event in events
            for courier in self._couriers
            if courier.subscription.wants(source=source, event_type=event_type(event), subject=subject(event))
        ]
        deliveries, dropped = fated(wanted, self._faults)
        self._store.publish(events, deliveries)
        report(dropped)
        self.wake()
        return web.Response()

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _ready(self, request: web.Request) -> web.Response:
        waiting = {courier.subscription.name: courier.problem for courier in self._couriers if not courier.validated}
        return web.json_response({"waiting": waiting}, status=503 if waiting else 200)

    async def _subscriptions(self, request: web.Request) -> web.Response:
        return web.json_response([self._described(courier) for courier in self._couriers])

    def _described(self, courier: Courier) -> dict[str, object]:
        subscription = courier.subscription
        return {
            "name": subscription.name,
            "endpoint": urlsplit(subscription.endpoint)._replace(query="").geturl(),  # the query may hold a key
            "source": subscription.source,
            "validated": courier.validated,
            "problem": courier.problem,
            "pending": self._store.pending(subscription.name),
        }


def _refused(status: HTTPStatus, message: str) -> web.Response:
    return web.json_response({"error": {"code": status.phrase.replace(" ", ""), "message": message}}, status=status)


@contextlib.asynccontextmanager
async def running(configuration: Configuration) -> AsyncIterator[int]:
    """The local Event Grid, up until the block ends; yields its port. Raises EventGridError, PortTaken."""
    check_names(configuration.subscriptions)
    if asked := str(configuration.faults):
        print(f"Faults on request, with seed {configuration.faults.seed}: {asked}", flush=True)
    async with contextlib.AsyncExitStack() as stack:
        store = stack.enter_context(contextlib.closing(Store(configuration.state)))
        dropped = store.forget_others(subscription.name for subscription in configuration.subscriptions)
        if dropped:
            print(f"Dropped {dropped} events that waited for subscriptions that no longer exist.", flush=True)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        couriers = [
            Courier(subscription, store=store, session=session, back_off=configuration.back_off)
            for subscription in configuration.subscriptions
        ]
        grid = EventGrid(store, couriers, topic_key=configuration.topic_key, faults=configuration.faults)
        source = await _storage_source(configuration, store, grid, stack)
        port = await _listen(grid.application(), configuration.port, stack)
        tasks = [asyncio.create_task(courier.run()) for courier in couriers]
        if source is not None:
            tasks.append(asyncio.create_task(source.run()))
        stack.push_async_callback(_cancelled, tasks)
        _stop_together(tasks)
        yield port


async def _storage_source(
    configuration: Configuration, store: Store, grid: EventGrid, stack: contextlib.AsyncExitStack
) -> StorageSource | None:
    if configuration.azurite_log is None:
        return None
    there = "" if configuration.azurite_log.exists() else " (not there yet)"
    print(f"Following {configuration.azurite_log}{there}", flush=True)
    storage = await stack.enter_async_context(azurite_storage(configuration.connection_string))
    return StorageSource(
        log=configuration.azurite_log,
        storage=storage,
        store=store,
        subscriptions=configuration.subscriptions,
        accepted=grid.wake,
        faults=configuration.faults,
        from_end=configuration.from_end,
    )


async def _listen(application: web.Application, port: int, stack: contextlib.AsyncExitStack) -> int:
    runner = web.AppRunner(application, access_log=None, handle_signals=False)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, LOOPBACK, port).start()
    except OSError as error:
        raise PortTaken(port, "asked for by the local Event Grid, --port") from error
    return int(runner.addresses[0][1])


def _stop_together(tasks: Sequence[asyncio.Task[None]]) -> None:
    """A task that dies takes the process with it: a local Event Grid that only half works would be worse than none."""
    owner = asyncio.current_task()

    def died(task: asyncio.Task[None]) -> None:
        if owner is not None and not task.cancelled():
            owner.cancel()

    for task in tasks:
        task.add_done_callback(died)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


async def serve(configuration: Configuration) -> None:
    """Runs until SIGINT or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(configuration) as port:
        print(f"Event Grid ready on http://{LOOPBACK}:{port}", flush=True)
        await stop.wait()
