"""The local Event Grid killed again and again while blobs are written to a real Azurite, and its log misused."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient, ContainerClient

from devhost.azurite import AzuritePorts, azurite_part
from devhost.ports import free_port, free_ports
from devhost.supervisor import Supervisor
from tests.devhost.topics import event_grid_process
from tests.devhost.webhook import Webhook, eventually

BLOBS = "/blobServices/default/containers/training/blobs/"
LIVES = 4


@pytest.fixture
def azurite(tmp_path: Path) -> Iterator[tuple[AzuritePorts, Path]]:
    ports = AzuritePorts(*free_ports(3))
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.start(azurite_part(tmp_path / "data", ports))
        yield ports, supervisor.log("Azurite")


def options(tmp_path: Path, log: Path, hook: Webhook) -> list[str]:
    chosen = ["--port", str(free_port()), "--state", str(tmp_path / "state"), "--azurite-log", str(log)]
    return [*chosen, "--webhook", hook.url, "--subject-begins-with", "/blobServices/default/containers/training/"]


def misuse(log: Path, chance: random.Random) -> str:
    """What can happen to a log while nobody follows it. Azurite appends to the file that it has open."""
    what = chance.choice(["nothing", "truncated", "truncated and grown", "copied aside"])
    if what == "truncated":
        os.truncate(log, 0)
    elif what == "truncated and grown":
        size = log.stat().st_size
        log.write_bytes(b"something else\n" * (size // 8))
    elif what == "copied aside":
        log.with_name(log.name + ".1").write_bytes(log.read_bytes())
        os.truncate(log, 0)
    return what


def write_some(training: ContainerClient, chance: random.Random, etags: dict[str, str]) -> None:
    for _ in range(15):
        name = f"{chance.randrange(25)}.csv"
        if name in etags and chance.random() < 0.25:
            training.delete_blob(name)
            del etags[name]
        elif name in etags and chance.random() < 0.1:
            training.delete_blobs(name)  # a batch, of which the log does not say what it deletes
            del etags[name]
        else:
            etags[name] = str(
                training.upload_blob(name, chance.randbytes(9), overwrite=True).get_blob_properties().etag
            )


def heard(hook: Webhook) -> tuple[set[tuple[str, str]], dict[str, str]]:
    """All (name, eTag) that were delivered, and the type of each blob's last event by its sequencer."""
    told: set[tuple[str, str]] = set()
    last: dict[str, tuple[str, str]] = {}
    for event in hook.events:
        name, data = event["subject"].removeprefix(BLOBS), event["data"]
        if "eTag" in data:
            told.add((name, data["eTag"]))
        last[name] = max(last.get(name, ("", "")), (data["sequencer"], event["eventType"].rpartition("Blob")[2]))
    return told, {name: kind for name, (_, kind) in last.items()}


def missing(hook: Webhook, etags: dict[str, str]) -> list[str]:
    """What was not delivered: the last write of every blob that is there, the deletion of every one that is not."""
    told, last = heard(hook)
    wrong = [f"{name} {etag}" for name, etag in etags.items() if (name, etag.strip('"')) not in told]
    wrong += [f"{name} is there" for name in etags if last.get(name) != "Created"]
    return wrong + [f"{name} is gone" for name in last.keys() - etags.keys() - {"first"} if last[name] != "Deleted"]


def heard_of(hook: Webhook) -> list[str]:
    """The blobs that different events were about. An event may come twice: what delivers it was killed."""
    different = {event["id"]: event["subject"].removeprefix(BLOBS) for event in hook.events}
    return sorted(different.values())


@pytest.mark.integration
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_killed_at_any_point_and_the_log_misused_it_delivers_all(
    azurite: tuple[AzuritePorts, Path], tmp_path: Path, seed: int
) -> None:
    (ports, log), hook, chance = azurite, Webhook(), random.Random(seed)
    command = options(tmp_path, log, hook)
    connection = {"AzureWebJobsStorage": ports.connection_string}
    etags: dict[str, str] = {}
    misused: list[str] = []
    with BlobServiceClient.from_connection_string(ports.connection_string) as service:
        training = service.create_container("training")
        async with hook.listening():
            async with event_grid_process(*command, **connection):
                training.upload_blob("first", b"")
                await eventually(lambda: hook.events)
            for _ in range(LIVES):
                await asyncio.to_thread(write_some, training, chance, etags)  # while it is down
                misused.append(misuse(log, chance))
                async with event_grid_process(*command, **connection):
                    await asyncio.to_thread(write_some, training, chance, etags)  # while it is up, until it is killed

            async with event_grid_process(*command, **connection) as printed:
                with contextlib.suppress(AssertionError):
                    await eventually(lambda: not missing(hook, etags), seconds=60)
                assert not missing(hook, etags), printed
    assert len(set(misused)) > 1, misused
    assert not [line for line in printed if "Traceback" in line]


@pytest.mark.integration
async def test_a_first_start_tells_nothing_that_was_there_before_the_log(
    azurite: tuple[AzuritePorts, Path], tmp_path: Path
) -> None:
    (ports, log), hook = azurite, Webhook()
    with BlobServiceClient.from_connection_string(ports.connection_string) as service:
        training = service.create_container("training")
        training.upload_blob("old", b"1")
        written = time.time()
        await eventually(lambda: b"/training/old" in log.read_bytes() and time.time() > int(written) + 2)
        os.truncate(log, 0)
        command = options(tmp_path, log, hook)
        connection = {"AzureWebJobsStorage": ports.connection_string}
        async with hook.listening():
            async with event_grid_process(*command, **connection):
                training.upload_blob("new", b"2")
                await eventually(lambda: heard_of(hook) == ["new"])
            async with event_grid_process(*command, **connection) as printed:
                training.get_blob_client("new").set_blob_metadata({"a": "b"})
                training.upload_blob("newer", b"3")
                await eventually(lambda: heard_of(hook) == ["new", "newer"])
            async with event_grid_process(*command, **connection):
                training.upload_blob("newest", b"4")
                await eventually(lambda: heard_of(hook) == ["new", "newer", "newest"])
    assert not [line for line in printed if line.startswith("Caught up")]
