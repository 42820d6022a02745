"""Blob triggers that Event Grid calls, with blobs in Azurite."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from azure.storage.blob import BlobServiceClient, ContentSettings

from devhost.azurite import AzuritePorts, azurite_part
from devhost.blobs import BlobWebhook, path_pattern
from devhost.caller import Caller
from devhost.catalog import Catalog
from devhost.errors import BindingInvalid
from devhost.host import Host, HostOptions
from devhost.ports import free_ports
from devhost.probes import http_probe
from devhost.storage import Storage
from devhost.supervisor import Part, Supervisor
from tests.devhost import sample_app
from tests.devhost.fakes import FakeInvoker, function, settings
from tests.devhost.waiting import until

APP = """
import os
from pathlib import Path

import azure.functions as func

app = func.FunctionApp()


@app.blob_trigger("blob", "%INBOX%/{dir}/{name}.csv", connection="STORE", source=func.BlobSource.EVENT_GRID)
def on_file(blob: func.InputStream) -> None:
    if blob.name.endswith("bad.csv"):
        raise ValueError("as expected")
    with (Path(os.environ["NOTES"]) / "blobs").open("a") as file:
        kind = blob.blob_properties["ContentType"]
        file.write(f"{blob.name} {blob.length} {blob.read()!r} {kind} {blob.metadata} {blob.uri.startswith('http')}\\n")
"""


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("azurite")
    ports = AzuritePorts(*free_ports(3))
    with Supervisor(folder / "logs") as supervisor:
        supervisor.start(azurite_part(folder / "data", ports))
        yield ports.connection_string


def created(path: str, event_type: str = "Microsoft.Storage.BlobCreated") -> dict[str, Any]:
    container, _, blob = path.partition("/")
    subject = f"/blobServices/default/containers/{container}/blobs/{blob}"
    return {"id": "1", "eventType": event_type, "subject": subject, "data": {}}


@pytest.mark.integration
async def test_a_blob_function(connection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE", connection)
    monkeypatch.setenv("INBOX", "inbox")
    with BlobServiceClient.from_connection_string(connection) as service:
        inbox = service.create_container("inbox")
        text = ContentSettings(content_type="text/csv")
        for name in ("a/b é#%.csv", "a/b/bad.csv"):
            inbox.upload_blob(name, b"1,2", content_settings=text, metadata={"by": "me"})
    app_dir = sample_app.write(tmp_path, APP)
    host = Host(HostOptions(app_dir=app_dir, state_dir=tmp_path / "state", port=0))
    await host.start()
    try:
        async with aiohttp.ClientSession(host.url, headers={"aeg-event-type": "Notification"}) as client:

            async def answer(*events: dict[str, Any], name: str = "Host.Functions.on_file") -> int:
                webhook = f"/runtime/webhooks/blobs?functionName={name}"
                async with client.post(webhook, json=list(events)) as response:
                    return response.status

            assert (
                await answer(created("inbox/a/b é#%.csv"), created("inbox/a/no.txt"), created("other/a/b.csv")) == 202
            )
            assert await answer(created("inbox/a/gone.csv")) == 202
            assert await answer(created("inbox/a/b é#%.csv", "Microsoft.Storage.BlobDeleted")) == 202
            assert await answer(created("inbox/a/b/bad.csv")) == 500
            assert await answer(created("inbox/a/x.csv"), name="Host.Functions.nobody") == 404
            async with client.post("/admin/functions/on_file", json={"input": 5}) as response:
                assert response.status == 400
            async with client.post("/admin/functions/on_file", json={"input": "inbox/a/b é#%.csv"}) as response:
                assert response.status == 202
            await until(lambda: len(sample_app.notes(tmp_path, "blobs")) == 2)
    finally:
        await host.stop()
    assert sample_app.notes(tmp_path, "blobs") == ["inbox/a/b é#%.csv 3 b'1,2' text/csv {'by': 'me'} True"] * 2


@pytest.mark.integration
async def test_an_upload_runs_a_blob_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All parts together: the local Event Grid calls the webhook for what is uploaded to Azurite."""
    ports = AzuritePorts(*free_ports(3))
    monkeypatch.setenv("STORE", ports.connection_string)
    monkeypatch.setenv("INBOX", "inbox")
    host = Host(HostOptions(app_dir=sample_app.write(tmp_path, APP), state_dir=tmp_path / "state", port=0))
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.start(azurite_part(tmp_path / "data", ports))
        await host.start()
        try:
            webhook = f"{host.url}/runtime/webhooks/blobs?functionName=Host.Functions.on_file"
            grid = event_grid(tmp_path, tmp_path / "logs" / "azurite.log", ports, webhook)
            await asyncio.to_thread(supervisor.start, grid)  # it wants the host's handshake meanwhile
            with BlobServiceClient.from_connection_string(ports.connection_string) as service:
                inbox = service.create_container("inbox")
                inbox.upload_blob("a/b.txt", b"no")
                inbox.upload_blob("a/b.csv", b"1,2")
            await until(lambda: sample_app.notes(tmp_path, "blobs") != [])
        finally:
            await host.stop()
    assert [note.split()[0] for note in sample_app.notes(tmp_path, "blobs")] == ["inbox/a/b.csv"]


def event_grid(folder: Path, log: Path, ports: AzuritePorts, webhook: str) -> Part:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "devhost", "eventgrid", "--port", str(port), "--state", str(folder / "grid")]
    command += ["--azurite-log", str(log), "--connection-string", ports.connection_string, "--webhook", webhook]
    ready = http_probe(f"http://127.0.0.1:{port}/ready")
    return Part("eventgrid", command, ready, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(
    ("path", "blob", "parameters"),
    [
        ("c/{name}", "c/a/b.csv", {"name": "a/b.csv"}),
        ("c/in/{name}.{extension}", "c/in/a.b.csv", {"name": "a.b", "extension": "csv"}),
        ("c/in.csv", "c/in.csv", {}),
        ("c/in.csv", "c/inxcsv", None),
        ("c/{name}", "cc/a", None),
        ("c", "c/a/b", {}),
        ("c", "cc/a", None),
    ],
)
def test_path_patterns(path: str, blob: str, parameters: dict[str, str] | None) -> None:
    found = path_pattern(path).fullmatch(blob)
    assert (None if found is None else found.groupdict()) == parameters


@pytest.mark.parametrize(
    ("source", "path", "problem"),
    [
        (None, "c/{name}", "source=EventGrid only"),
        ("LogsAndContainerScan", "c/{name}", "source=EventGrid only"),
        ("EventGrid", "c/{name", "a brace that belongs to no parameter"),
        ("EventGrid", "c/{a}/{a}", "does not work"),
        ("EventGrid", "c/{1}", "does not work"),
    ],
)
def test_a_trigger_that_cannot_be_is_named(source: str | None, path: str, problem: str) -> None:
    own = settings({"STORE": "UseDevelopmentStorage=true"})
    catalog = Catalog([function("f", "blobTrigger", source=source, path=path, connection="STORE")], own)
    with pytest.raises(BindingInvalid, match=f"The blob trigger of function f: .*{problem}"):
        BlobWebhook(catalog, Caller(FakeInvoker()), own, Storage(own))
