from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from azure.eventgrid import EventGridEvent

from devhost.caller import Caller
from devhost.catalog import Catalog
from devhost.eventgrid.server import Configuration, running
from devhost.eventgrid.subscriptions import Subscription
from devhost.eventgrid_webhook import EventGridWebhook
from devhost.protocol import Invocation, Outcome
from tests.devhost.fakes import DONE, FakeInvoker, function, settings
from tests.devhost.topics import KEY, QUICK, publisher
from tests.devhost.webhook import eventually

PATH = "/runtime/webhooks/EventGrid?functionName=OnUpload"
NOTIFICATION = {"aeg-event-type": "Notification"}
CLOUD_EVENT = {"specversion": "1.0", "id": "c1", "type": "t", "source": "/s"}

type Client = TestClient[web.Request, web.Application]


def fails_for_bad(invocation: Invocation) -> Outcome:
    event = json.loads(invocation.inputs[0][1][1])
    return Outcome(ok=False, error="ValueError: bad") if event.get("id") == "bad" else DONE


@pytest.fixture
def invoker() -> FakeInvoker:
    return FakeInvoker(fails_for_bad)


@pytest.fixture
async def client(invoker: FakeInvoker) -> AsyncIterator[Client]:
    others = [function("on_upload", "eventGridTrigger"), function("web", "httpTrigger")]
    functions = [function("OnUpload", "eventGridTrigger"), *others]
    webhook = EventGridWebhook(Catalog(functions, settings()), Caller(invoker))
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", webhook.handle)
    async with TestClient(TestServer(application)) as test_client:
        yield test_client


def events(invoker: FakeInvoker) -> list[str]:
    return [json.loads(invocation.inputs[0][1][1])["id"] for invocation in invoker.invocations]


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ([{"id": "1"}, {"id": "2"}], ["1", "2"]),
        ({"id": "1"}, ["1"]),
        ([CLOUD_EVENT], ["c1"]),
        (CLOUD_EVENT, ["c1"]),
        ([], []),
    ],
)
async def test_every_event_of_a_delivery_is_one_call(
    client: Client, invoker: FakeInvoker, body: Any, ids: list[str]
) -> None:
    response = await client.post(PATH, json=body, headers=NOTIFICATION)
    assert response.status == 202
    assert events(invoker) == ids


async def test_one_failure_fails_the_batch_with_its_reason(client: Client, invoker: FakeInvoker) -> None:
    response = await client.post(PATH, json=[{"id": "1"}, {"id": "bad"}, {"id": "2"}], headers=NOTIFICATION)
    assert response.status == 500
    assert await response.text() == "ValueError: bad"
    assert events(invoker) == ["1", "bad", "2"]


async def test_cloud_events_by_their_content_type_alone(client: Client, invoker: FakeInvoker) -> None:
    for kind, body in (("cloudevents+json", CLOUD_EVENT), ("cloudevents-batch+json", [CLOUD_EVENT])):
        headers = {"content-type": f"application/{kind}; charset=utf-8"}
        assert (await client.post(PATH, data=json.dumps(body), headers=headers)).status == 202
    assert events(invoker) == ["c1", "c1"]


async def test_subscription_validation_gives_the_code_back(client: Client, invoker: FakeInvoker) -> None:
    body = [{"id": "v", "data": {"validationCode": "s3"}}]
    response = await client.post(PATH, json=body, headers={"aeg-event-type": "SubscriptionValidation"})
    assert response.status == 200
    assert await response.json() == {"validationResponse": "s3"}
    assert invoker.invocations == []


async def test_cloud_events_handshake(client: Client) -> None:
    response = await client.options(PATH, headers={"WebHook-Request-Origin": "eventgrid.azure.net"})
    assert response.status == 200
    assert response.headers["WebHook-Allowed-Origin"] == "eventgrid.azure.net"
    assert (await client.options(PATH)).status == 400


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        (PATH, {}, "[]", 400),
        (PATH, {"aeg-event-type": "Rumour"}, "[]", 400),
        (PATH, NOTIFICATION, "[", 400),
        (PATH, NOTIFICATION, "[1]", 400),
        (PATH, {"aeg-event-type": "SubscriptionValidation"}, "[]", 400),
        (PATH, {"aeg-event-type": "Unsubscribe"}, "", 202),
        ("/runtime/webhooks/EventGrid", NOTIFICATION, "[]", 404),
        ("/runtime/webhooks/EventGrid?functionName=nobody", NOTIFICATION, "[]", 404),
        ("/runtime/webhooks/EventGrid?functionName=web", NOTIFICATION, "[]", 404),
    ],
)
async def test_what_is_refused(
    client: Client, invoker: FakeInvoker, path: str, headers: dict[str, str], body: str, status: int
) -> None:
    assert (await client.post(path, data=body, headers=headers)).status == status
    assert invoker.invocations == []


@pytest.mark.parametrize("schema", ["EventGridSchema", "CloudEventSchemaV1_0"])
async def test_the_local_event_grid_gets_along_with_it(
    client: Client, invoker: FakeInvoker, schema: str, tmp_path: Path
) -> None:
    subscription = Subscription("s", str(client.make_url(PATH)), source="topics/models", schema=schema)
    event = EventGridEvent(subject="/m", event_type="Test.Happened", data={"n": 1}, data_version="1")
    async with running(Configuration(tmp_path, 0, (subscription,), topic_key=KEY, back_off=QUICK)) as port:
        with publisher(port) as topic:
            await asyncio.to_thread(topic.send, event)
        await eventually(lambda: events(invoker) == [str(event.id)])


async def test_only_post_delivers(client: Client) -> None:
    assert (await client.get(PATH, headers=NOTIFICATION)).status == 404
