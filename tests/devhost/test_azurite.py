from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from azure.storage.blob import BlobBlock, BlobServiceClient

from devhost.azurite import AzuriteMissing, AzuritePorts, azurite_part
from devhost.eventgrid.server import Configuration, running
from devhost.eventgrid.subscriptions import Subscription
from devhost.ports import free_port, free_ports
from devhost.supervisor import Supervisor
from tests.devhost.webhook import Webhook, eventually

TRAINING = "/blobServices/default/containers/training/"


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AzuritePorts, Path]]:
    folder = tmp_path_factory.mktemp("azurite")
    ports = AzuritePorts(*free_ports(3))
    with Supervisor(folder / "logs") as supervisor:
        supervisor.start(azurite_part(folder / "data", ports))
        yield ports, supervisor.log("Azurite")


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devhost.azurite.sys.prefix", str(tmp_path))
    with pytest.raises(AzuriteMissing, match="make setup"):
        azurite_part(tmp_path, AzuritePorts(1, 2, 3))


@pytest.mark.integration
async def test_every_write_becomes_exactly_its_event(azurite: tuple[AzuritePorts, Path], tmp_path: Path) -> None:
    ports, log = azurite
    hook = Webhook()
    configuration = Configuration(
        tmp_path,
        0,
        (Subscription("training", hook.url, begins_with=TRAINING),),
        azurite_log=log,
        connection_string=ports.connection_string,
    )
    with BlobServiceClient.from_connection_string(ports.connection_string) as service:
        async with hook.listening(), running(configuration):
            training = service.create_container("training")
            other = service.create_container("training2")
            other.upload_blob("ignored.csv", b"1")
            first = training.upload_blob("p/a b#é.csv", b"1,2\n", content_settings=None)
            blocks = training.get_blob_client("blocks.parquet")
            blocks.stage_block("AAAA", b"12345")
            blocks.commit_block_list([BlobBlock("AAAA")])
            blocks.set_blob_metadata({"a": "b"})
            await eventually(lambda: len(hook.events) == 2)
            first.delete_blob()
            await eventually(lambda: len(hook.events) == 3)
        etags = {"blocks": blocks.get_blob_properties().etag}
        async with hook.listening(), running(configuration):  # the place in the log is kept: only what is new comes
            training.upload_blob("after.csv", b"")
            await eventually(lambda: len(hook.events) == 4)
    assert etags["blocks"]
    seen = [(e["eventType"], e["data"]["api"], e["subject"].removeprefix(TRAINING + "blobs/")) for e in hook.events]
    assert sorted(seen) == sorted(
        [
            ("Microsoft.Storage.BlobCreated", "PutBlob", "p/a b#é.csv"),
            ("Microsoft.Storage.BlobCreated", "PutBlockList", "blocks.parquet"),
            ("Microsoft.Storage.BlobDeleted", "DeleteBlob", "p/a b#é.csv"),
            ("Microsoft.Storage.BlobCreated", "PutBlob", "after.csv"),
        ]
    )
    created = next(e["data"] for e in hook.events if e["data"]["api"] == "PutBlob")
    assert created["eTag"].startswith("0x")
    assert (created["contentLength"], created["blobType"]) == (4, "BlockBlob")
    assert created["url"].startswith(f"http://127.0.0.1:{ports.blob}/devstoreaccount1/training/p/a%20b%23")
    by_name = [e["data"]["sequencer"] for e in hook.events if e["subject"].endswith("é.csv")]
    assert by_name == sorted(by_name)
    assert len({e["data"]["sequencer"] for e in hook.events}) == 4


@pytest.mark.integration
async def test_a_burst_is_seen_completely(azurite: tuple[AzuritePorts, Path], tmp_path: Path) -> None:
    ports, log = azurite
    hook = Webhook()
    subscription = Subscription("burst", hook.url, begins_with="/blobServices/default/containers/burst/")
    configuration = Configuration(
        tmp_path, 0, (subscription,), azurite_log=log, connection_string=ports.connection_string, from_end=True
    )
    with BlobServiceClient.from_connection_string(ports.connection_string) as service:
        container = service.create_container("burst")
        async with hook.listening(), running(configuration):
            for number in range(100):
                container.upload_blob(f"{number}.csv", b"x")
            await eventually(lambda: len(hook.events) >= 100)
    assert len({event["subject"] for event in hook.events}) == 100


@pytest.mark.integration
async def test_while_storage_does_not_answer_the_place_in_the_log_stays(
    azurite: tuple[AzuritePorts, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ports, log = azurite
    monkeypatch.setattr("devhost.eventgrid.storage.AWAY_SECONDS", 0.05)
    hook = Webhook()
    subscription = Subscription("late", hook.url, begins_with="/blobServices/default/containers/late/")
    wrong = AzuritePorts(free_port(), ports.queue, ports.table).connection_string
    configuration = Configuration(tmp_path, 0, (subscription,), azurite_log=log, connection_string=wrong)
    with BlobServiceClient.from_connection_string(ports.connection_string) as service:
        service.create_container("late").upload_blob("a.csv", b"x")
    said = ""

    def complained() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return "Storage did not say what late/a.csv is: ServiceRequestError" in said

    async with hook.listening():
        async with running(configuration):
            await eventually(complained)
        assert hook.events == []
        async with running(replace(configuration, connection_string=ports.connection_string)):
            await eventually(lambda: len(hook.events) == 1)


@pytest.mark.integration
async def test_a_blob_that_is_gone_already_raises_only_its_deletion(
    azurite: tuple[AzuritePorts, Path], tmp_path: Path
) -> None:
    ports, log = azurite
    hook = Webhook()
    subscription = Subscription("gone", hook.url, begins_with="/blobServices/default/containers/gone/")
    with BlobServiceClient.from_connection_string(ports.connection_string) as service:
        service.create_container("gone").upload_blob("a.csv", b"x").delete_blob()
    configuration = Configuration(
        tmp_path, 0, (subscription,), azurite_log=log, connection_string=ports.connection_string
    )
    async with hook.listening(), running(configuration):
        await eventually(lambda: hook.events)
    assert [event["data"]["api"] for event in hook.events] == ["DeleteBlob"]
