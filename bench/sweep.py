"""The sweep's look at a container of 100,000 blobs: seconds, requests and memory. A part of `make bench-skew`."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import requests
from azure.storage.blob import BlobServiceClient, ResourceTypes, generate_account_sas

from activities.dependencies import Dependencies
from activities.sweep import look_over
from activities.uploads import TRAINING
from adapters.azure_blobs import AzureBlobStore
from adapters.blobs import BlobNotFound
from adapters.events import NoListeners
from adapters.registry import Registry
from adapters.settings import read_settings
from adapters.specs import SpecFiles
from adapters.table_ledger import TableLedger
from bench.retrain import SMALL
from devhost.azurite import AzuritePorts, azurite_part
from devhost.ports import free_ports
from devhost.supervisor import Supervisor

BLOBS = 100_000
PIPELINE = "wide"
UPLOADERS = 4
MISSED = 10
"""Blobs that come, and blobs that go, without an event."""
MAX_LOOKS = 50


@dataclass(frozen=True, slots=True)
class Look:
    """What looking until nothing was left cost: looks, changes, seconds, requests, and megabytes above what was."""

    looks: int
    changes: int
    seconds: float
    requests: int
    megabytes: float


@dataclass(frozen=True, slots=True)
class Load:
    """What was put on the stack, how long it took, and what came of it."""

    what: str
    seconds: float
    outcome: str


def sweep_loads(count: int = BLOBS) -> Iterator[Load]:
    """The first look at so many blobs, one that finds nothing, and one after lost events."""
    with tempfile.TemporaryDirectory(prefix="ratchet-sweep-") as temporary, Supervisor(Path(temporary)) as supervisor:
        Path(temporary, f"{PIPELINE}.yaml").write_text(SMALL.format(name=PIPELINE, quiet=60), encoding="utf-8")
        ports = AzuritePorts(*free_ports(3))
        supervisor.start(azurite_part(Path(temporary, "azurite"), ports))
        with BlobServiceClient.from_connection_string(ports.connection_string) as service:
            service.create_container(TRAINING)
            _upload(ports, service, range(count))
            yield _look_at(f"the sweep's first look at {count:,} blobs", ports, temporary)
            yield _look_at("the next one, which finds nothing", ports, temporary)
            _behind_its_back(ports, service, count)
            yield _look_at(f"one that finds {MISSED} new and {MISSED} deleted", ports, temporary)


def _look_at(what: str, ports: AzuritePorts, folder: str) -> Load:
    look = _in_a_process(ports.connection_string, folder)
    found = f"{look.changes:,} changes in {look.looks} looks, {look.requests:,} requests, {look.megabytes:.0f} MB"
    return Load(what, look.seconds, found)


def _behind_its_back(ports: AzuritePorts, service: BlobServiceClient, count: int) -> None:
    _upload(ports, service, range(count, count + MISSED))
    for number in range(MISSED):
        service.get_blob_client(TRAINING, _name(number * count // MISSED)).delete_blob()


def _name(number: int) -> str:
    return f"{PIPELINE}/{number:07}.csv"


def _upload(ports: AzuritePorts, service: BlobServiceClient, numbers: range) -> None:
    """Tiny blobs, past the SDK, which would take four times as long."""
    account, credential = service.account_name or "", service.credential.account_key
    kinds = ResourceTypes(object=True)
    expiry = datetime.now(UTC) + timedelta(days=1)
    sas = generate_account_sas(account, credential, resource_types=kinds, permission="cw", expiry=expiry)

    def put(part: range) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", ports.blob)
        for number in part:
            path = f"/{account}/{TRAINING}/{quote(_name(number))}?{sas}"
            connection.request("PUT", path, b"x", {"x-ms-blob-type": "BlockBlob", "x-ms-version": "2021-12-02"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != http.client.CREATED:
                raise RuntimeError(f"Azurite answered {answer.status}")
        connection.close()

    with ThreadPoolExecutor(UPLOADERS) as pool:
        list(pool.map(put, [numbers[start::UPLOADERS] for start in range(UPLOADERS)]))


def _in_a_process(connection: str, folder: str) -> Look:
    """So that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_look, connection, folder).result()


def _look(connection: str, folder: str) -> Look:
    settings = read_settings({"AzureWebJobsStorage": connection})
    to = Dependencies(
        blobs=AzureBlobStore.from_settings(settings),
        ledger=TableLedger.from_settings(settings),
        registry=_no_registry,
        events=NoListeners(),
        specs=SpecFiles(Path(folder)),
        threads=1,
    )
    looks = changes = 0
    with _counted() as asked:
        before, started = _megabytes(), time.monotonic()
        while looks < MAX_LOOKS:
            looks += 1
            changes += look_over(PIPELINE, to).changes
            if not _stopped_half_way(to):
                break
        return Look(looks, changes, time.monotonic() - started, asked(), _megabytes() - before)


def _stopped_half_way(to: Dependencies) -> bool:
    try:
        return bool(json.loads(to.blobs.get(f"features/{PIPELINE}/sweep.json").data)["token"])
    except BlobNotFound:
        return False


def _no_registry() -> Registry:
    raise AssertionError("the sweep has no business in the registry")


def _megabytes() -> float:
    """The most memory that this process has had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


@contextmanager
def _counted() -> Iterator[Callable[[], int]]:
    """How many requests were made so far within the block."""
    send, count = requests.Session.send, [0]

    def counting(self: requests.Session, *arguments: object, **options: object) -> requests.Response:
        count[0] += 1
        return send(self, *arguments, **options)  # type: ignore[arg-type]

    requests.Session.send = counting  # type: ignore[method-assign]
    try:
        yield lambda: count[0]
    finally:
        requests.Session.send = send  # type: ignore[method-assign]
