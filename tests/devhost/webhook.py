"""A webhook on a free loopback port that behaves as a test tells it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import web

from devhost.ports import free_port


async def eventually(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Waits until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.01)


class Webhook:
    """Answers the handshakes and records what it gets. `answers` are the next statuses, then it is 200 for ever.

    With `hold`, an event that was recorded is answered once it is set.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.answers: list[int] = []
        self.handshakes: list[dict[str, Any]] = []
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.origins: list[str] = []
        self.echo = True
        self.hold: asyncio.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?code=secret"

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for body in self.bodies for event in (body if isinstance(body, list) else [body])]

    async def _handle(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        if request.headers["aeg-event-type"] == "SubscriptionValidation":
            self.handshakes.append(body[0])
            code = body[0]["data"]["validationCode"]
            return web.json_response({"validationResponse": code if self.echo else "another"})
        assert request.headers["aeg-event-type"] == "Notification"
        assert self.handshakes or self.origins, "a delivery before the handshake"
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if self.hold is not None:
            await self.hold.wait()
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    async def _allow(self, request: web.Request) -> web.Response:
        self.origins.append(request.headers["WebHook-Request-Origin"])
        return web.Response(headers={"WebHook-Allowed-Origin": self.origins[-1]} if self.echo else {})

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        application = web.Application()
        application.router.add_post("/hook", self._handle)
        application.router.add_options("/hook", self._allow)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port).start()
            yield
        finally:
            await runner.cleanup()
