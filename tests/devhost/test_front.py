from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from devhost.auth import Open
from devhost.caller import Caller
from devhost.catalog import Catalog
from devhost.errors import BindingUnsupported
from devhost.front import HttpFront
from devhost.protocol import FunctionInfo, Outcome
from tests.devhost.fakes import FakeInvoker, function, settings

OUT = {"type": "http", "name": "$return", "direction": "OUT"}
LIMIT = 1000

type Client = TestClient[web.Request, web.Application]


@contextlib.asynccontextmanager
async def serving(invoker: FakeInvoker, *functions: FunctionInfo) -> AsyncIterator[Client]:
    caller = Caller(invoker, lambda: ("string", "client"))
    front = HttpFront(Catalog(functions, settings()), caller, route_prefix="api", gate=Open())

    async def handle(request: web.Request) -> web.Response:
        return await front.handle(request) or web.Response(status=404)

    application = web.Application(client_max_size=LIMIT)
    application.router.add_route("*", "/{path:.*}", handle)
    async with TestClient(TestServer(application)) as client:
        yield client


def answering(value: Any = None, **fields: Any) -> FakeInvoker:
    return FakeInvoker(lambda _: Outcome(ok=True, value=value, **fields))


async def test_what_the_function_gets() -> None:
    invoker = answering(("string", "ok"))
    client_input = {"type": "durableClient", "name": "client", "direction": "IN"}
    items = function("items", "httpTrigger", client_input, OUT, route="items/{id}", methods=["POST"])
    async with serving(invoker, items) as client:
        url = "/api/Items/a%2Fb%20c?q=1&q=2&empty=&x=%C3%A9"
        response = await client.post(url, data=b"\0\1", headers={"X-Custom": "V", "traceparent": "00-1-2-3"})
        assert response.status == 200
    (invocation,) = invoker.invocations
    inputs = dict(invocation.inputs)
    method, seen_url, headers, body, parameters, query = inputs["trigger"][1]
    assert (method, body) == ("POST", b"\0\1")
    assert parameters == {"id": "a%2Fb c"}
    assert query == {"q": "1,2", "x": "é"}
    assert seen_url.endswith("/api/Items/a%2Fb%20c?q=1&q=2&empty=&x=%C3%A9")
    assert headers["x-custom"] == "V"
    assert all(name == name.lower() for name in headers)
    assert inputs["client"] == ("string", "client")
    assert invocation.trace_parent == "00-1-2-3"
    assert invocation.redispatch is False


async def test_the_response_is_passed_on() -> None:
    pairs = [("content-type", "text/csv"), ("set-cookie", "a=1"), ("set-cookie", "b=2"), ("content-length", "999")]
    async with serving(answering(("http", (207, pairs, b"1,2"))), function("f", "httpTrigger", OUT)) as client:
        response = await client.get("/api/f")
        assert response.status == 207
        assert response.headers["content-type"] == "text/csv"
        assert response.headers.getall("set-cookie") == ["a=1", "b=2"]
        assert await response.read() == b"1,2"


@pytest.mark.parametrize(
    ("outcome", "status", "kind", "body"),
    [
        (Outcome(ok=True), 204, None, b""),
        (Outcome(ok=True, value=("http", (204, [], b""))), 204, None, b""),
        (Outcome(ok=True, value=("string", "text")), 200, "text/plain; charset=utf-8", b"text"),
        (Outcome(ok=True, value=("json", "[1]")), 200, "application/json; charset=utf-8", b"[1]"),
        (Outcome(ok=True, value=("bytes", b"\0")), 200, "application/octet-stream", b"\0"),
        (Outcome(ok=True, outputs=(("$return", ("string", "out")),)), 200, "text/plain; charset=utf-8", b"out"),
        (Outcome(ok=False, error="ValueError: secret"), 500, None, b""),
    ],
)
async def test_other_results(outcome: Outcome, status: int, kind: str | None, body: bytes) -> None:
    async with serving(FakeInvoker(lambda _: outcome), function("f", "httpTrigger", OUT)) as client:
        response = await client.get("/api/f")
        assert response.status == status
        assert await response.read() == body
        if kind is not None:
            assert response.headers["content-type"] == kind


async def test_a_wrong_method_or_path_is_not_found() -> None:
    invoker = answering()
    async with serving(invoker, function("f", "httpTrigger", OUT, methods=["GET"])) as client:
        assert (await client.post("/api/f")).status == 404
        assert (await client.get("/f")).status == 404
    assert invoker.invocations == []


async def test_a_body_over_the_limit_is_too_large() -> None:
    async with serving(answering(("string", "")), function("f", "httpTrigger", OUT)) as client:
        assert (await client.post("/api/f", data=b"x" * LIMIT)).status == 200
        assert (await client.post("/api/f", data=b"x" * (LIMIT + 1))).status == 413


def test_an_unsupported_binding_is_named_with_its_function() -> None:
    bus = {"type": "serviceBus", "name": "messages", "direction": "OUT"}
    with pytest.raises(BindingUnsupported, match="Function f: the binding 'messages' is of type serviceBus"):
        Catalog([function("f", "httpTrigger", OUT, bus)], settings())


def test_a_disabled_function_is_out_of_service_whatever_its_bindings() -> None:
    functions = [function("f", "serviceBusTrigger"), function("g", "httpTrigger", OUT)]
    catalog = Catalog(functions, settings({"AzureWebJobs.f.Disabled": "true"}))
    assert [item.name for item in catalog.functions] == ["g"]
