"""The ways in to the durable engine: its management API on the main port, and the client's RPC on a port of its own.

The engine is imported only for an app that has durable functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl, quote

from aiohttp import web

from devhost.errors import StateUnusable
from devhost.front import joined
from devhost.protocol import Datum, FunctionInfo, HubOptions, Invoker
from devhost.settings import Settings

MANAGEMENT_PREFIX = "/runtime/webhooks/durabletask"
RPC_PREFIX = "/durabletask"
DATABASE = "durable.sqlite3"


class DurableEngine(Protocol):
    """What the host asks of a durable engine."""

    async def start(self) -> None:
        """Goes on with the orchestrations where they stopped."""

    async def stop(self) -> None:
        """Begins no more work."""

    def client_binding(self) -> Datum:
        """The datum of a durableClient input."""
        ...

    async def handle(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        base: str | None = None,
    ) -> tuple[int, Mapping[str, str], bytes | None]:
        """Answers a request to the management API or the RPC; `path` is percent-encoded, without slashes around it."""
        ...


type EngineFactory = Callable[[HubOptions, Invoker, Sequence[FunctionInfo]], DurableEngine]
"""Makes the engine, once the functions are known."""


def default_engine(options: HubOptions, invoker: Invoker, functions: Sequence[FunctionInfo]) -> DurableEngine:
    """devhost's own engine, on SQLite. Raises StateUnusable."""
    import sqlite3

    from devhost.durable.service import DurableService

    try:
        return DurableService(options, invoker, functions)
    except sqlite3.Error as error:
        raise StateUnusable(options.database.parent, f"{options.database.name}: {error}") from error


def hub_options(
    settings: Settings, *, state_dir: Path, main_url: str, rpc_url: str, key: str | None = None
) -> HubOptions:
    """The task hub as the app's settings want it."""
    return HubOptions(
        database=state_dir / DATABASE,
        name=settings.hub,
        max_orchestrators=settings.max_orchestrators,
        max_activities=settings.max_activities,
        webhook_base=main_url + MANAGEMENT_PREFIX,
        rpc_base=f"{rpc_url}{RPC_PREFIX}/",
        key=None if key is None else quote(key, safe=""),
        versions=settings.versions,
    )


async def answer(engine: DurableEngine, request: web.BaseRequest, prefix: str) -> web.Response:
    """Passes a request whose path begins with `prefix` on to the engine. Links in the answer lead back here."""
    path = request.rel_url.raw_path[len(prefix) :].strip("/")
    query = joined(parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True))
    headers = joined((name.lower(), value) for name, value in request.headers.items())
    base = f"{request.scheme}://{request.host}{MANAGEMENT_PREFIX}" if prefix == MANAGEMENT_PREFIX else None
    status, answered, body = await engine.handle(request.method, path, query, headers, await request.read(), base)
    response = web.Response(status=status, body=body, headers=answered)
    if body is not None and "content-type" not in response.headers:
        response.content_type = "application/json"
    return response
