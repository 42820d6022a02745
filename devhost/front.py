"""HTTP triggers: from a request to the function that it is for, and from what that returns to a response."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from aiohttp import web
from multidict import CIMultiDict

from devhost.auth import Gate
from devhost.caller import Caller
from devhost.catalog import HTTP, Catalog, kind
from devhost.protocol import Datum, FunctionInfo, Outcome
from devhost.routes import RouteTable

TRANSPORT_HEADERS = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})
"""Response headers that the server writes itself."""
KEPT_PATHS = 256
"""Paths whose functions are known without a look at the routes: those that clients ask for again and again."""
WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})

type Found = tuple[FunctionInfo, dict[str, str]]
"""A function, and its route parameters in a request's path."""

_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)


class PlainRequest(NamedTuple):
    """A request that came whole. `headers` are by names in lower case, each of which came once."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Names and values of the query, without empty values: the cloud drops them."""
        _, _, query = self.target.partition("?")
        return parse_qsl(query) if query else []

    @property
    def query(self) -> Mapping[str, str]:
        """The first value of each name."""
        return dict(reversed(self.pairs))


class Reply(NamedTuple):
    """An HTTP response, whoever writes it. Header names come as the function gave them."""

    status: int
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""


class HttpFront:
    """Answers requests to the app's HTTP functions."""

    def __init__(self, catalog: Catalog, caller: Caller, *, route_prefix: str, gate: Gate) -> None:
        """Raises RouteInvalid."""
        self._caller = caller
        self._gate = gate
        self._routes: RouteTable[FunctionInfo] = RouteTable()
        for function in catalog.triggered_by(HTTP):
            self._routes.add(full_route(function, route_prefix), function.trigger.get("methods"), function)
        self.find = lru_cache(KEPT_PATHS)(self._find)

    async def handle(self, request: web.BaseRequest) -> web.Response | None:
        """The function's response; None when no function takes this method and path."""
        found = self.find(request.method, request.rel_url.raw_path)
        if found is None:
            return None
        if not self._gate.allows_function(request, found[0]):
            return web.Response(status=HTTPStatus.UNAUTHORIZED)
        headers = joined((name.lower(), value) for name, value in request.headers.items())
        query = joined(parse_qsl(request.rel_url.raw_query_string))  # which drops empty values, as the cloud does
        url = f"{request.scheme}://{request.host}{request.raw_path}"
        return _response(await self._call(found, (request.method, url, headers, await request.read(), query)))

    def _find(self, method: str, raw_path: str) -> Found | None:
        """The function that a request is for, and its route parameters, which nobody may change. None when there is
        none."""
        return self._routes.find(method, decoded_path(raw_path))

    async def answer(self, found: Found, asked: PlainRequest) -> Reply:
        """The function's reply to a request that came whole."""
        if not self._gate.allows_function(asked, found[0]):
            return Reply(HTTPStatus.UNAUTHORIZED)
        query = joined(asked.pairs)
        url = f"http://{asked.headers['host']}{asked.target}"
        return await self._call(found, (asked.method, url, asked.headers, asked.body, query))

    async def _call(self, found: Found, asked: tuple[str, str, dict[str, str], bytes, dict[str, str]]) -> Reply:
        function, parameters = found
        method, url, headers, body, query = asked
        outcome = await self._caller.call(
            function,
            ("http", (method, url, headers, body, parameters, query)),
            trace_parent=headers.get("traceparent", ""),
            trace_state=headers.get("tracestate", ""),
        )
        return reply(function, outcome)


def full_route(function: FunctionInfo, route_prefix: str) -> str:
    """The function's route template, or its name where it has none, behind the app's prefix."""
    route = str(function.trigger.get("route") or function.name).strip("/")
    return "/".join(part for part in (route_prefix, route) if part)


def decoded_path(raw_path: str) -> str:
    """The path with its percent signs decoded, except an encoded slash: that belongs to a parameter."""
    return unquote(_ENCODED_SLASH.sub("%252F", raw_path)) if "%" in raw_path else raw_path


def joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One value for each name; several become one with commas between them."""
    values: dict[str, str] = {}
    for name, value in pairs:
        values[name] = f"{values[name]},{value}" if name in values else value
    return values


def reply(function: FunctionInfo, outcome: Outcome) -> Reply:
    """What an HTTP function returned, as a response: 500 for a failure, 204 for nothing."""
    if not outcome.ok:
        return Reply(HTTPStatus.INTERNAL_SERVER_ERROR)
    value = outcome.value
    if value is None:
        outputs = dict(outcome.outputs)
        names = [str(binding["name"]) for binding in function.bindings if kind(binding) == "http"]
        value = next((outputs[name] for name in names if name in outputs), None)
    return Reply(HTTPStatus.NO_CONTENT) if value is None else _reply(value)


def _reply(value: Datum) -> Reply:
    datum_kind, content = value
    if datum_kind == "http":
        status, pairs, body = content
        headers = [pair for pair in pairs if pair[0].lower() not in TRANSPORT_HEADERS]
        return Reply(status, headers, b"" if status in WITHOUT_BODY else body)
    if datum_kind == "bytes":
        return Reply(HTTPStatus.OK, [("Content-Type", "application/octet-stream")], content)
    media_type = "application/json" if datum_kind == "json" else "text/plain"
    return Reply(HTTPStatus.OK, [("Content-Type", f"{media_type}; charset=utf-8")], str(content).encode())


def _response(answer: Reply) -> web.Response:
    return web.Response(status=answer.status, headers=CIMultiDict(answer.headers), body=answer.body or None)
