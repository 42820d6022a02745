"""Publishing with Microsoft's client, azure-eventgrid: topics, several subscribers, filters, both schemas."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from azure.core.credentials import AzureKeyCredential
from azure.core.messaging import CloudEvent
from azure.eventgrid import EventGridEvent
from azure.eventgrid.aio import EventGridPublisherClient

from devhost.eventgrid.cli import EPILOG
from devhost.eventgrid.server import Configuration, running
from devhost.eventgrid.subscriptions import Subscription
from tests.devhost.topics import KEY, QUICK, lines, send
from tests.devhost.webhook import Webhook, eventually

HOOKS = ("all", "promoted", "flights", "csv", "other_topic", "blobs")


@pytest.fixture
async def hooks() -> AsyncIterator[dict[str, Webhook]]:
    async with AsyncExitStack() as stack:
        found = {name: Webhook() for name in HOOKS}
        for hook in found.values():
            await stack.enter_async_context(hook.listening())
        yield found


def grid(folder: Path, hooks: dict[str, Webhook]) -> Configuration:
    models = "topics/models"
    subscriptions = (
        Subscription("all", hooks["all"].url, source=models),
        Subscription("promoted", hooks["promoted"].url, source=models, event_types=("Model.Promoted",)),
        Subscription("flights", hooks["flights"].url, source=models, begins_with="/Pipelines/flights/"),
        Subscription("csv", hooks["csv"].url, source=models, ends_with=".csv", case_sensitive=True),
        Subscription("other_topic", hooks["other_topic"].url, source="topics/other"),
        Subscription("blobs", hooks["blobs"].url, source="topics/storage"),
    )
    return Configuration(folder, 0, subscriptions, topic_key=KEY, back_off=QUICK)


async def settled(port: int, hooks: dict[str, Webhook], expected: dict[str, set[str]]) -> None:
    """Exactly these subjects reach these subscribers, and nothing else is on its way."""
    await eventually(lambda: all(len(hooks[name].events) == len(subjects) for name, subjects in expected.items()))
    for name, hook in hooks.items():
        subjects = {str(event["subject"]) for event in hook.events}
        assert subjects == expected.get(name, set()), name


EXPECTED = {
    "all": {"/pipelines/flights/1", "/pipelines/flights/a.csv", "/pipelines/trains/B.CSV"},
    "promoted": {"/pipelines/flights/1"},
    "flights": {"/pipelines/flights/1", "/pipelines/flights/a.csv"},
    "csv": {"/pipelines/flights/a.csv"},
}
PUBLISHED = (
    ("Model.Promoted", "/pipelines/flights/1"),
    ("Run.Finished", "/pipelines/flights/a.csv"),
    ("model.promoted", "/pipelines/trains/B.CSV"),  # types match exactly
)


async def test_cloud_events_fan_out_by_the_filters(tmp_path: Path, hooks: dict[str, Webhook]) -> None:
    events: list[CloudEvent[object]] = [
        CloudEvent(source="ratchet", type=kind, subject=subject, data={"n": 1}, extensions={"run": "r7"})
        for kind, subject in PUBLISHED
    ]
    async with running(grid(tmp_path, hooks)) as port:
        await send(port, events)
        await settled(port, hooks, EXPECTED)
    (seen,) = hooks["promoted"].events
    back: CloudEvent[object] = CloudEvent.from_dict(seen)
    assert (back.id, back.source, back.type) == (events[0].id, "ratchet", "Model.Promoted")
    assert (back.data, back.extensions) == ({"n": 1}, {"run": "r7"})


async def test_events_in_the_event_grid_schema_fan_out_by_the_filters(
    tmp_path: Path, hooks: dict[str, Webhook]
) -> None:
    events = [
        EventGridEvent(subject=subject, event_type=kind, data={"n": 1}, data_version="1.0")
        for kind, subject in PUBLISHED
    ]
    async with running(grid(tmp_path, hooks)) as port:
        await send(port, events)
        await settled(port, hooks, EXPECTED)
    (seen,) = hooks["promoted"].events
    back = EventGridEvent.from_dict(seen)
    assert (back.id, back.event_type, back.data) == (str(events[0].id), "Model.Promoted", {"n": 1})
    assert str(back.topic).endswith("/topics/models")


async def test_one_event_by_the_asynchronous_client(tmp_path: Path, hooks: dict[str, Webhook]) -> None:
    async with running(grid(tmp_path, hooks)) as port:
        endpoint = f"http://127.0.0.1:{port}/topics/other/api/events"
        async with EventGridPublisherClient(endpoint, AzureKeyCredential(KEY)) as client:
            await client.send(CloudEvent(source="s", type="t", subject="x", data=b"\x00\xff"))
            await client.send({"specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": "y"})
        await settled(port, hooks, {"other_topic": {"x", "y"}})
    (binary,) = [event for event in hooks["other_topic"].events if event["subject"] == "x"]
    assert CloudEvent.from_dict(binary).data == b"\x00\xff"


async def test_a_topic_called_storage_is_not_the_storage_source(tmp_path: Path, hooks: dict[str, Webhook]) -> None:
    async with running(grid(tmp_path, hooks)) as port:
        await send(port, CloudEvent(source="s", type="t", subject="x"), topic="storage")
        await settled(port, hooks, {"blobs": {"x"}})


async def test_one_subscriber_that_fails_does_not_hold_up_the_others(tmp_path: Path, hooks: dict[str, Webhook]) -> None:
    hooks["all"].answers = [500] * 3
    async with running(grid(tmp_path, hooks)) as port:
        await send(port, CloudEvent(source="s", type="Model.Promoted", subject="x"))
        await eventually(lambda: hooks["promoted"].events)
        await eventually(lambda: len(hooks["all"].events) == 4)
    assert len(hooks["promoted"].events) == 1


async def test_many_publishers_at_once_lose_nothing(tmp_path: Path, hooks: dict[str, Webhook]) -> None:
    batches: list[list[CloudEvent[object]]] = [
        [CloudEvent(source="s", type="t", subject=f"{batch}/{n}", time=datetime.now(UTC)) for n in range(20)]
        for batch in range(8)
    ]
    async with running(grid(tmp_path, hooks)) as port:
        await asyncio.gather(*(send(port, batch) for batch in batches))
        await settled(port, hooks, {"all": {f"{batch}/{n}" for batch in range(8) for n in range(20)}})
    recorded = lines(tmp_path / "events.jsonl")
    assert len({json.dumps(event) for event in recorded}) == len(recorded) == 160


async def test_the_snippet_of_the_help_publishes(tmp_path: Path, hooks: dict[str, Webhook]) -> None:
    snippet = EPILOG[EPILOG.index("  from azure.core.credentials") : EPILOG.index("\nCloudEvents (")]
    subscription = Subscription("orders", hooks["all"].url, source="topics/orders")
    async with running(Configuration(tmp_path, 0, (subscription,))) as port:
        program = textwrap.dedent(snippet).replace(":7072/", f":{port}/")
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
        assert await process.wait() == 0
        await settled(port, hooks, {"all": {"/orders/1"}})
