from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.core.messaging import CloudEvent
from azure.eventgrid import EventGridEvent

from devhost.eventgrid import delivery
from devhost.eventgrid.delivery import BackOff
from devhost.eventgrid.errors import StateInUse
from devhost.eventgrid.server import Configuration, running
from devhost.eventgrid.store import Accepted, Delivery, Store
from devhost.eventgrid.subscriptions import Subscription
from devhost.ports import free_port
from tests.devhost.topics import KEY, QUICK, event_grid_process, lines, publish, publisher
from tests.devhost.webhook import Webhook, eventually


@pytest.fixture
async def webhook() -> AsyncIterator[Webhook]:
    hook = Webhook()
    async with hook.listening():
        yield hook


def grid(folder: Path, *subscriptions: Subscription) -> Configuration:
    return Configuration(folder, 0, subscriptions, topic_key=KEY, back_off=QUICK)


def to(hook: Webhook, **fields: Any) -> Subscription:
    return Subscription("sub", hook.url, source="topics/models", **fields)


async def test_a_published_cloud_event_reaches_the_subscriber_and_the_record(tmp_path: Path, webhook: Webhook) -> None:
    async with running(grid(tmp_path, to(webhook, begins_with="/models/"))) as port:
        await publish(port, "/models/a", "/other/b")
        await eventually(lambda: webhook.events)
    assert [event["subject"] for event in webhook.events] == ["/models/a"]
    assert webhook.events[0]["specversion"] == "1.0"
    assert webhook.events[0]["data"] == {"n": 1}
    assert webhook.headers[0]["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    assert webhook.headers[0]["aeg-subscription-name"] == "SUB"
    assert [event["subject"] for event in lines(tmp_path / "events.jsonl")] == ["/models/a", "/other/b"]
    assert [handshake["eventType"] for handshake in webhook.handshakes] == [
        "Microsoft.EventGrid.SubscriptionValidationEvent"
    ]


async def test_a_disk_that_was_full_for_a_while_ends_nothing(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(delivery, "STATE_AWAY_SECONDS", 0.0)
    delivered = Store.delivered
    failures = iter([sqlite3.OperationalError("database or disk is full")])

    def full_once(store: Store, what: Delivery) -> None:
        for failure in failures:
            raise failure
        delivered(store, what)

    monkeypatch.setattr(Store, "delivered", full_once)
    async with running(grid(tmp_path, to(webhook))) as port:
        await publish(port, "/models/a")
        await eventually(lambda: len(webhook.events) == 2)  # at least once: the first was not noted
        await publish(port, "/models/b")
        await eventually(lambda: len(webhook.events) == 3)
    assert "sub: the state cannot be written (database or disk is full). Trying again." in capsys.readouterr().out


async def test_a_delivery_under_way_at_a_stop_is_not_repeated(tmp_path: Path, webhook: Webhook) -> None:
    webhook.hold = asyncio.Event()
    async with running(grid(tmp_path, to(webhook))) as port:
        await publish(port, "/models/a")
        await eventually(lambda: webhook.events)
        asyncio.get_running_loop().call_later(0.1, webhook.hold.set)  # the answer comes while it stops
    async with running(grid(tmp_path, to(webhook))) as port:
        await publish(port, "/models/b")
        await eventually(lambda: len(webhook.events) == 2)
    assert [event["subject"] for event in webhook.events] == ["/models/a", "/models/b"]


async def test_an_event_in_the_event_grid_schema_is_completed(tmp_path: Path, webhook: Webhook) -> None:
    event = EventGridEvent(subject="/m", event_type="Test.Happened", data={"n": 1}, data_version="1")
    async with running(grid(tmp_path, to(webhook, event_types=("Test.Happened",)))) as port:
        with publisher(port) as client:
            await asyncio.to_thread(client.send, event)
        await eventually(lambda: webhook.events)
    (body,) = webhook.bodies
    assert isinstance(body, list)  # the Event Grid schema comes as an array
    assert body[0]["topic"].endswith("/providers/Microsoft.EventGrid/topics/models")
    assert body[0]["metadataVersion"] == "1"


async def test_a_wrong_key_and_bad_events_are_refused(tmp_path: Path) -> None:
    async with running(grid(tmp_path)) as port, aiohttp.ClientSession() as session:
        with publisher(port, key="wrong") as client, pytest.raises(ClientAuthenticationError, match="aeg-sas-key"):
            await asyncio.to_thread(client.send, CloudEvent(source="s", type="t"))
        url = f"http://127.0.0.1:{port}/topics/models/api/events"
        for body in ("[", "[]", "[3]", '[{"id": "1"}]', '{"specversion": "1.0", "id": "1"}'):
            async with session.post(url, data=body, headers={"aeg-sas-key": KEY}) as answer:
                assert answer.status == 400, body
        with publisher(port) as client, pytest.raises(HttpResponseError) as refused:
            await asyncio.to_thread(client.send, CloudEvent(source="s", type="t", data="x" * 2**20))
        assert refused.value.status_code == 413
    assert lines(tmp_path / "events.jsonl") == []


async def test_a_failing_webhook_gets_the_event_again(tmp_path: Path, webhook: Webhook) -> None:
    webhook.answers = [500, 404, 503]
    async with running(grid(tmp_path, to(webhook))) as port:
        await publish(port, "/a")
        await eventually(lambda: len(webhook.events) == 4)
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/subscriptions") as answer:
            (state,) = await answer.json()
    assert len({event["id"] for event in webhook.events}) == 1
    assert [headers["aeg-delivery-count"] for headers in webhook.headers] == ["0", "1", "2", "3"]
    assert state["validated"] is True
    assert "secret" not in str(state)
    assert lines(tmp_path / "deadletter.jsonl") == []


async def test_after_the_last_attempt_it_is_a_dead_letter(tmp_path: Path, webhook: Webhook) -> None:
    webhook.answers = [500, 500, 500]
    async with running(grid(tmp_path, to(webhook, max_attempts=3))) as port:
        await publish(port, "/a")
        await eventually(lambda: lines(tmp_path / "deadletter.jsonl"))
        await publish(port, "/b")
        await eventually(lambda: len(webhook.events) == 4)
    (letter,) = lines(tmp_path / "deadletter.jsonl")
    assert (letter["subject"], letter["deadletterreason"]) == ("/a", "MaxDeliveryAttemptsExceeded")
    assert (letter["deliveryattempts"], letter["subscription"]) == (3, "sub")
    assert "500" in letter["lastdeliveryoutcome"]


async def test_some_answers_are_not_worth_a_retry(tmp_path: Path, webhook: Webhook) -> None:
    webhook.answers = [400]
    async with running(grid(tmp_path, to(webhook))) as port:
        await publish(port, "/a")
        await eventually(lambda: lines(tmp_path / "deadletter.jsonl"))
    assert len(webhook.events) == 1
    assert lines(tmp_path / "deadletter.jsonl")[0]["deadletterreason"] == "UndeliverableEvent"


async def test_an_event_that_is_too_old_is_a_dead_letter(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = to(webhook, ttl_minutes=1)
    with contextlib.closing(Store(tmp_path)) as store, monkeypatch.context() as past:
        past.setattr("devhost.eventgrid.store.time.time", lambda: 1_000.0)
        store.accept([Accepted("sub", {"specversion": "1.0", "id": "old"})])
    async with running(grid(tmp_path, subscription)):
        await eventually(lambda: lines(tmp_path / "deadletter.jsonl"))
    assert lines(tmp_path / "deadletter.jsonl")[0]["deadletterreason"] == "TimeToLiveExceeded"
    assert webhook.events == []


async def test_it_waits_for_the_webhook_which_costs_no_attempt(tmp_path: Path) -> None:
    hook = Webhook()
    async with running(grid(tmp_path, to(hook, max_attempts=1))) as port, aiohttp.ClientSession() as session:
        await publish(port, "/a")
        async with session.get(f"http://127.0.0.1:{port}/ready") as answer:
            assert answer.status == 503
            assert list((await answer.json())["waiting"]) == ["sub"]
        async with hook.listening():
            await eventually(lambda: len(hook.events) == 1)
            async with session.get(f"http://127.0.0.1:{port}/ready") as answer:
                assert answer.status == 200
        await publish(port, "/b")  # the webhook has gone away again
        async with hook.listening():
            await eventually(lambda: len(hook.events) == 2)
    assert lines(tmp_path / "deadletter.jsonl") == []


async def test_a_webhook_that_fails_the_handshake_gets_nothing(tmp_path: Path, webhook: Webhook) -> None:
    webhook.echo = False
    async with running(grid(tmp_path, to(webhook))) as port:
        await publish(port, "/a")
        await eventually(lambda: len(webhook.handshakes) >= 2)
        assert webhook.events == []
        webhook.echo = True
        await eventually(lambda: webhook.events)


async def test_a_subscription_to_cloud_events_has_their_handshake_and_gets_nothing_else(
    tmp_path: Path, webhook: Webhook
) -> None:
    webhook.echo = False
    event = EventGridEvent(subject="/m", event_type="Test.Happened", data={"n": 1}, data_version="1")
    async with running(grid(tmp_path, to(webhook, schema="CloudEventSchemaV1_0"))) as port:
        with publisher(port) as client:
            await asyncio.to_thread(client.send, event)
        await publish(port, "/a")
        await eventually(lambda: len(webhook.origins) >= 2)
        assert webhook.events == []
        webhook.echo = True
        await eventually(lambda: len(webhook.events) == 2)
    assert set(webhook.origins) == {"eventgrid.azure.net"}
    assert webhook.handshakes == []
    (translated,) = [event for event in webhook.bodies if event["subject"] == "/m"]
    assert translated == {
        "id": str(event.id),
        "source": translated["source"],
        "type": "Test.Happened",
        "specversion": "1.0",
        "subject": "/m",
        "time": translated["time"],
        "data": {"n": 1},
    }
    assert translated["source"].endswith("/providers/Microsoft.EventGrid/topics/models")
    assert {headers["Content-Type"] for headers in webhook.headers} == {"application/cloudevents+json; charset=utf-8"}


async def test_a_restart_on_the_same_state_delivers_what_was_pending(tmp_path: Path) -> None:
    hook = Webhook()
    configuration = grid(tmp_path, to(hook))
    async with running(configuration) as port:
        await publish(port, "/a", "/b")
        with pytest.raises(StateInUse, match="Another local Event Grid"):
            Store(tmp_path)
    async with hook.listening(), running(configuration):
        await eventually(lambda: len(hook.events) == 2)
    async with hook.listening(), running(replace(configuration, subscriptions=())):
        pass
    assert sorted(event["subject"] for event in hook.events) == ["/a", "/b"]


async def test_nothing_accepted_is_lost_by_kill_9(tmp_path: Path) -> None:
    hook, port = Webhook(), free_port()
    options = ["--port", str(port), "--state", str(tmp_path), "--webhook", hook.url, "--source", "topics/models"]
    async with event_grid_process(*options):
        await publish(port, *(f"/{number}" for number in range(50)))
    async with event_grid_process(*options), hook.listening():
        await eventually(lambda: len(hook.events) == 50)
    assert len({event["subject"] for event in hook.events}) == 50


def test_the_back_off_doubles_up_to_its_limit() -> None:
    pauses = [BackOff(first=1.0, most=10.0).seconds(attempts) for attempts in (1, 2, 3, 9, 5_000)]
    for pause, middle in zip(pauses, (1, 2, 4, 10, 10), strict=True):
        assert 0.8 * middle <= pause <= 1.2 * middle
