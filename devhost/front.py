"""HTTP triggers: from a request to the function that it is for, and from what that returns to a response."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
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
WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})

_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)


class HttpFront:
    """Answers requests to the app's HTTP functions."""

    def __init__(self, catalog: Catalog, caller: Caller, *, route_prefix: str, gate: Gate) -> None:
        """Raises RouteInvalid."""
        self._caller = caller
        self._gate = gate
        self._routes: RouteTable[FunctionInfo] = RouteTable()
        for function in catalog.triggered_by(HTTP):
            self._routes.add(full_route(function, route_prefix), function.trigger.get("methods"), function)

    async def handle(self, request: web.BaseRequest) -> web.Response | None:
        """The function's response; None when no function takes this method and path."""
        found = self._routes.find(request.method, decoded_path(request.rel_url.raw_path))
        if found is None:
            return None
        function, parameters = found
        if not self._gate.allows_function(request, function):
            return web.Response(status=HTTPStatus.UNAUTHORIZED)
        headers = joined((name.lower(), value) for name, value in request.headers.items())
        query = joined(parse_qsl(request.rel_url.raw_query_string))  # which drops empty values, as the cloud does
        url = f"{request.scheme}://{request.host}{request.raw_path}"
        outcome = await self._caller.call(
            function,
            ("http", (request.method, url, headers, await request.read(), parameters, query)),
            trace_parent=headers.get("traceparent", ""),
            trace_state=headers.get("tracestate", ""),
        )
        return respond(function, outcome)


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


def respond(function: FunctionInfo, outcome: Outcome) -> web.Response:
    """What an HTTP function returned, as a response: 500 for a failure, 204 for nothing."""
    if not outcome.ok:
        return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR)
    value = outcome.value
    if value is None:
        outputs = dict(outcome.outputs)
        names = [str(binding["name"]) for binding in function.bindings if kind(binding) == "http"]
        value = next((outputs[name] for name in names if name in outputs), None)
    return web.Response(status=HTTPStatus.NO_CONTENT) if value is None else _response(value)


def _response(value: Datum) -> web.Response:
    datum_kind, content = value
    if datum_kind == "http":
        status, pairs, body = content
        headers = CIMultiDict((name, text) for name, text in pairs if name.lower() not in TRANSPORT_HEADERS)
        return web.Response(status=status, headers=headers, body=None if status in WITHOUT_BODY else body)
    if datum_kind == "bytes":
        return web.Response(body=content, content_type="application/octet-stream")
    if datum_kind == "json":
        return web.Response(text=str(content), content_type="application/json")
    return web.Response(text=str(content), content_type="text/plain")
