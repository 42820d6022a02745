"""The patterns of the Durable Python SDK's samples as one app, hosted as a whole and used over HTTP alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from devhost.host import Host, HostOptions
from tests.devhost import sample_app

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SECONDS = 30.0

APP = """
import azure.durable_functions as df
import azure.functions as func
from datetime import timedelta

from more_functions import blueprint

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
app.register_functions(blueprint)


@app.route(route="orchestrators/{name}")
@app.durable_client_input(client_name="client")
async def start(req: func.HttpRequest, client) -> func.HttpResponse:
    given = req.get_json() if req.get_body() else None
    instance = await client.start_new(req.route_params["name"], client_input=given)
    return client.create_check_status_response(req, instance)


@app.orchestration_trigger(context_name="context")
def chaining(context: df.DurableOrchestrationContext):
    hellos = []
    for city in ("Tokyo", "Seattle", "London"):
        hellos.append((yield context.call_activity("say_hello", city)))
    return hellos


@app.activity_trigger(input_name="city")
def say_hello(city: str) -> str:
    return f"Hello {city}!"


@app.orchestration_trigger(context_name="context")
def fan_out_fan_in(context: df.DurableOrchestrationContext):
    files = yield context.call_activity("list_files", context.get_input())
    sizes = yield context.task_all([context.call_activity("size_of", file) for file in files])
    return sum(sizes)


@app.activity_trigger(input_name="count")
def list_files(count: int) -> list:
    return [f"file{number}" for number in range(count)]


@app.activity_trigger(input_name="file")
def size_of(file: str) -> int:
    return len(file)


@app.orchestration_trigger(context_name="context")
def counting(context: df.DurableOrchestrationContext):
    counter = df.EntityId("counter", "mine")
    context.signal_entity(counter, "add", 3)
    yield context.call_entity(counter, "add", 4)
    return (yield context.call_entity(counter, "get"))


@app.entity_trigger(context_name="context")
def counter(context: df.DurableEntityContext):
    value = context.get_state(lambda: 0)
    if context.operation_name == "add":
        value += context.get_input()
    context.set_state(value)
    context.set_result(value)


@app.route(route="counter")
@app.durable_client_input(client_name="client")
async def read_counter(req: func.HttpRequest, client) -> func.HttpResponse:
    state = await client.read_entity_state(df.EntityId("counter", "mine"))
    return func.HttpResponse(str(state.entity_state))


@app.orchestration_trigger(context_name="context")
def human_interaction(context: df.DurableOrchestrationContext):
    too_late = context.create_timer(context.current_utc_datetime + timedelta(seconds=context.get_input()))
    approval = context.wait_for_external_event("Approval")
    winner = yield context.task_any([approval, too_late])
    if winner == too_late:
        return "escalated"
    too_late.cancel()
    return f"approved: {approval.result}"


@app.orchestration_trigger(context_name="context")
def monitor(context: df.DurableOrchestrationContext):
    for look in range(1, 10):
        context.set_custom_status({"looks": look})
        if (yield context.call_activity("is_clear", look)):
            return look
        yield context.create_timer(context.current_utc_datetime + timedelta(milliseconds=20))


@app.activity_trigger(input_name="look")
def is_clear(look: int) -> bool:
    return look == 3
"""

BLUEPRINT = """
import azure.durable_functions as df

blueprint = df.Blueprint()


@blueprint.orchestration_trigger(context_name="context")
def of_a_blueprint(context: df.DurableOrchestrationContext):
    return (yield context.call_activity("shout", "hello"))


@blueprint.activity_trigger(input_name="word")
def shout(word: str) -> str:
    return word.upper()
"""


class Client:
    """What somebody with curl does."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    async def start(self, name: str, given: Any = None) -> dict[str, str]:
        """The links to the new instance."""
        async with self.session.post(f"/api/orchestrators/{name}", json=given) as response:
            assert response.status == 202
            links: dict[str, str] = await response.json()
            return links

    async def status(self, links: dict[str, str]) -> tuple[int, Any]:
        async with self.session.get(links["statusQueryGetUri"]) as response:
            return response.status, await response.json()

    async def ended(self, links: dict[str, str]) -> Any:
        async with asyncio.timeout(SECONDS):
            while True:
                status, document = await self.status(links)
                if status == 200:
                    assert document["runtimeStatus"] == "Completed", document
                    return document
                await asyncio.sleep(0.02)

    async def output(self, name: str, given: Any = None) -> Any:
        return (await self.ended(await self.start(name, given)))["output"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    folder = tmp_path_factory.mktemp("samples")
    app_dir = sample_app.write(folder, APP)
    (app_dir / "more_functions.py").write_text(BLUEPRINT)
    host = Host(HostOptions(app_dir, folder / "state", port=0, workers=2))
    await host.start()
    try:
        async with aiohttp.ClientSession(host.url) as session:
            yield Client(session)
    finally:
        await host.stop()


async def test_function_chaining(client: Client) -> None:
    assert await client.output("chaining") == ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]


async def test_fan_out_and_fan_in(client: Client) -> None:
    assert await client.output("fan_out_fan_in", 20) == 10 * len("file0") + 10 * len("file10")


async def test_a_blueprint(client: Client) -> None:
    assert await client.output("of_a_blueprint") == "HELLO"


async def test_entities(client: Client) -> None:
    assert await client.output("counting") == 7
    async with client.session.get("/api/counter") as response:
        assert await response.text() == "7"


async def test_human_interaction(client: Client) -> None:
    asked = await client.start("human_interaction", 3600)
    url = asked["sendEventPostUri"].replace("{eventName}", "Approval")
    async with client.session.post(url, json="by Ann") as response:
        assert response.status == 202
    assert (await client.ended(asked))["output"] == "approved: by Ann"
    assert await client.output("human_interaction", 0.05) == "escalated"


async def test_a_monitor(client: Client) -> None:
    ended = await client.ended(await client.start("monitor"))
    assert (ended["output"], ended["customStatus"]) == (3, {"looks": 3})
