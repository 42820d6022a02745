"""call_http under the real SDK: what the server gets, and what the orchestrator gets back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import pytest
from aiohttp import web

from devhost.durable import http_call
from devhost.durable.http_call import HttpCalls
from tests.devhost.durable.sdk import App, hub

pytestmark = pytest.mark.filterwarnings("ignore:azure.functions df_loads was called without expected_type")
type Steps = Generator[Any, Any, Any]
type Respond = Callable[[web.Request], web.Response]


async def echo(request: web.Request) -> web.Response:
    """What was received, with a header that comes twice and one that .NET counts to the content."""
    body = await request.text()
    document = {"method": request.method, "body": body, "type": request.headers.get("Content-Type")}
    response = web.json_response({**document, "extra": request.headers.get("X-Extra")})
    response.headers.add("X-Twice", "one")
    response.headers.add("X-Twice", "two")
    return response


async def accepted(_: web.Request) -> web.Response:
    return web.Response(status=202, headers={"Location": "/later", "Retry-After": "1"})


async def refused(_: web.Request) -> web.Response:
    return web.Response(status=503, text="busy")


async def bearer(request: web.Request) -> web.Response:
    return web.Response(text=request.headers.get("Authorization", ""))


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_route("*", "/echo", echo)
    application.router.add_get("/accepted", accepted)
    application.router.add_get("/refused", refused)
    application.router.add_get("/bearer", bearer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def app() -> App:
    app = App()

    @app.orchestrator
    def ask(context: Any) -> Steps:
        given = context.get_input()
        return (yield context.call_http(given["method"], given["uri"], given.get("content"), given.get("headers")))

    return app


async def test_the_answer_of_a_request_is_the_step_s_result(app: App, tmp_path: Path) -> None:
    async with serving() as server, hub(app, tmp_path / "hub.db") as running:
        given = {"method": "POST", "uri": f"{server}/echo", "content": {"a": 1}, "headers": {"X-Extra": "more"}}
        there = await running.run("ask", given)
    answer = there["output"]
    assert answer["statusCode"] == 200
    # The SDK writes the content as JSON; .NET sends it as plain text where no type is given.
    expected = {"method": "POST", "body": '{"a": 1}', "type": "text/plain", "extra": "more"}
    assert json.loads(answer["content"]) == expected
    assert answer["headers"]["X-Twice"] == ["one", "two"]
    assert "Content-Type" not in answer["headers"]


async def test_the_type_of_the_content_can_be_named(app: App, tmp_path: Path) -> None:
    async with serving() as server, hub(app, tmp_path / "hub.db") as running:
        headers = {"content-type": "application/json"}
        given = {"method": "PUT", "uri": f"{server}/echo", "content": [1], "headers": headers}
        there = await running.run("ask", given)
    assert json.loads(there["output"]["content"])["type"] == "application/json"


@pytest.mark.parametrize(("path", "status"), [("accepted", 202), ("refused", 503), ("nowhere", 404)])
async def test_any_status_is_an_answer(app: App, tmp_path: Path, path: str, status: int) -> None:
    async with serving() as server, hub(app, tmp_path / "hub.db") as running:
        there = await running.run("ask", {"method": "GET", "uri": f"{server}/{path}"})
    assert (there["runtimeStatus"], there["output"]["statusCode"]) == ("Completed", status)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"method": "GET", "uri": "http://127.0.0.1:9/"}, "Cannot connect to host 127.0.0.1:9"),
        ({"method": "GET", "uri": "no address"}, "An invalid request URI was provided: 'no address'"),
        ({"method": "GET", "uri": "ftp://example"}, "An invalid request URI was provided: 'ftp://example'"),
        (
            {"method": "POST", "uri": "http://127.0.0.1:9/", "headers": {"Content-Type": "multipart/form-data"}},
            "Multipart content is not supported",
        ),
    ],
)
async def test_a_request_that_cannot_be_sent_fails_the_step(
    app: App, tmp_path: Path, given: dict[str, Any], reason: str
) -> None:
    async with hub(app, tmp_path / "hub.db") as running:
        there = await running.run("ask", given)
    assert there["runtimeStatus"] == "Failed"
    assert reason in there["output"]


async def test_an_answer_that_never_comes_fails_the_step(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_call, "TIMEOUT_SECONDS", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client gives up
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server, hub(app, tmp_path / "hub.db") as running:
        port = server.sockets[0].getsockname()[1]
        there = await running.run("ask", {"method": "GET", "uri": f"http://127.0.0.1:{port}/"})
    assert there["runtimeStatus"] == "Failed"


async def test_a_request_in_a_task_all_beside_activities(app: App, tmp_path: Path) -> None:
    @app.activity
    def double(number: Any) -> Any:
        return number * 2

    @app.orchestrator
    def both(context: Any) -> Steps:
        request = context.call_http("GET", context.get_input())
        results = yield context.task_all([context.call_activity("double", 4), request])
        return [results[0], results[1]["content"]]

    async with serving() as server, hub(app, tmp_path / "hub.db") as running:
        there = await running.run("both", f"{server}/refused")
    assert there["output"] == [8, "busy"]


async def test_a_token_source_becomes_a_bearer_token() -> None:
    async def token(resource: str) -> str:
        return f"token for {resource}"

    calls = HttpCalls(token)
    async with serving() as server:
        source = df.ManagedIdentityTokenSource("https://vault.example").to_json()
        answer = await calls.send({"method": "GET", "uri": f"{server}/bearer", "tokenSource": source})
        await calls.close()
    assert json.loads(answer)["content"] == "Bearer token for https://vault.example"
