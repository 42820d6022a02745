"""Publishing to topics of a local Event Grid as an app does it, and the local Event Grid as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from azure.core.credentials import AzureKeyCredential
from azure.core.messaging import CloudEvent
from azure.eventgrid import EventGridEvent, EventGridPublisherClient

from devhost.eventgrid.delivery import BackOff

KEY = "the-key"
QUICK = BackOff(first=0.02, most=0.1)
REPOSITORY = Path(__file__).parents[2]


@contextlib.contextmanager
def publisher(port: int, key: str = KEY, topic: str = "models") -> Iterator[EventGridPublisherClient]:
    endpoint = f"http://127.0.0.1:{port}/topics/{topic}/api/events"
    with EventGridPublisherClient(endpoint, AzureKeyCredential(key)) as client:
        yield client


async def publish(port: int, *subjects: str) -> None:
    events: list[CloudEvent[object]] = [
        CloudEvent(source="ratchet", type="Test.Happened", subject=subject, data={"n": 1}) for subject in subjects
    ]
    await send(port, events)


async def send(
    port: int,
    events: CloudEvent[object] | EventGridEvent | list[CloudEvent[object]] | list[EventGridEvent],
    topic: str = "models",
) -> None:
    with publisher(port, topic=topic) as client:
        await asyncio.to_thread(client.send, events)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@contextlib.asynccontextmanager
async def event_grid_process(*options: str, **environment: str) -> AsyncIterator[list[str]]:
    """`python -m devhost.eventgrid`, ready; `kill -9` ends it. Yields what it prints, which is whole afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "devhost.eventgrid",
        *options,
        cwd=REPOSITORY,
        env={**os.environ, "EVENTGRID_TOPIC_KEY": KEY, **environment},
        stdout=PIPE,
        stderr=STDOUT,
    )
    printed: list[str] = []
    ready = asyncio.Event()

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            printed.append(line.decode().rstrip())
            if printed[-1].startswith("Event Grid ready on"):
                ready.set()
        ready.set()

    async with asyncio.TaskGroup() as reading:
        reading.create_task(read())
        try:
            await asyncio.wait_for(ready.wait(), 30)
            assert process.returncode is None, printed
            yield printed
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
