"""The host's own addresses under /admin: its status, its functions, and running one out of turn."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from devhost.blobs import BlobWebhook
from devhost.caller import Caller
from devhost.catalog import BLOB_TRIGGER, EVENT_GRID, QUEUE_TRIGGER, TIMER, WARMUP, Catalog, kind
from devhost.protocol import FunctionInfo
from devhost.queues import QueueTriggers
from devhost.timers import Timers

VERSION = "4.0.0-devhost"
RUNNABLE = "timer, queue, blob, Event Grid and warmup functions can be run from here"


def status(state: str, started: float, workers: Sequence[tuple[int, str]]) -> web.Response:
    """GET /admin/host/status: 200 once the host is running, 503 before and after. `started` is a monotonic time."""
    content = {
        "id": "devhost",
        "state": state,
        "version": VERSION,
        "processUptime": int((time.monotonic() - started) * 1000),
        "workers": [{"pid": pid, "state": worker_state} for pid, worker_state in workers],
    }
    running = state == "Running"
    return web.json_response(content, status=HTTPStatus.OK if running else HTTPStatus.SERVICE_UNAVAILABLE)


class FunctionsAdmin:
    """Answers /admin/functions. `url_of` gives an HTTP function's URL template, and nothing for the others."""

    def __init__(
        self,
        catalog: Catalog,
        caller: Caller,
        timers: Timers,
        queues: QueueTriggers,
        blobs: BlobWebhook,
        url_of: Callable[[FunctionInfo], str],
    ) -> None:
        self._catalog = catalog
        self._caller = caller
        self._timers = timers
        self._queues = queues
        self._blobs = blobs
        self._url_of = url_of

    async def handle(self, request: web.BaseRequest, name: str) -> web.Response:
        """GET lists all functions, or describes the one with this name; POST runs it and answers 202 at once."""
        if not name:
            if request.method != "GET":
                return web.Response(status=HTTPStatus.NOT_FOUND)
            return web.json_response([self._described(function) for function in self._catalog.functions])
        function = self._catalog.find(name)
        if function is None or request.method not in {"GET", "POST"}:
            return web.Response(status=HTTPStatus.NOT_FOUND)
        if request.method == "GET":
            return web.json_response(self._described(function))
        try:
            content = json.loads(await request.read() or b"{}")
        except (ValueError, RecursionError):  # the latter for one nested too deeply
            return web.Response(status=HTTPStatus.BAD_REQUEST, text="the body is not JSON")
        return self._run(function, content.get("input") if isinstance(content, dict) else None)

    def _run(self, function: FunctionInfo, given: Any) -> web.Response:
        trigger = kind(function.trigger)
        if trigger == TIMER:
            self._timers.run_now(function)
        elif trigger == QUEUE_TRIGGER:
            self._queues.run_now(function, given if isinstance(given, str) else json.dumps(given))
        elif trigger == BLOB_TRIGGER:
            if not isinstance(given, str):
                return web.Response(
                    status=HTTPStatus.BAD_REQUEST, text='the input is a path: {"input": "container/blob"}'
                )
            self._caller.begin(self._blobs.run(function, given))
        elif trigger == EVENT_GRID:
            event = given if isinstance(given, str) else json.dumps(given)
            self._caller.begin(self._caller.call(function, ("json", event)))
        elif trigger == WARMUP:
            self._caller.begin(self._caller.call(function, ("string", "")))
        else:
            return web.Response(status=HTTPStatus.BAD_REQUEST, text=f"{function.name} is a {trigger}; {RUNNABLE}")
        return web.Response(status=HTTPStatus.ACCEPTED)

    def _described(self, function: FunctionInfo) -> dict[str, object]:
        return {
            "name": function.name,
            "language": "python",
            "invoke_url_template": self._url_of(function) or None,
            "config": {"bindings": [dict(binding) for binding in function.bindings]},
        }
