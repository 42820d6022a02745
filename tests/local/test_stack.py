from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient
from rich.console import Console

from devhost.azurite import AzuritePorts
from devhost.display import LineDisplay
from devhost.errors import DevhostError
from devhost.ports import PortTaken, free_ports
from devhost.probes import http_probe
from devhost.supervisor import Part, PartFailed
from local import stack as stack_module
from local.__main__ import main
from local.display import TerminalDisplay, display_for
from local.parts import CONTAINERS, REPOSITORY, Places, event_grid_part, host_part
from local.stack import HostSilent, LocalStack, Ports, StackBusy, start_stack
from tests.devhost.test_supervisor import alive, wait_until

FAKE_HOST = Path(__file__).with_name("fake_host.py")


def new_ports() -> Ports:
    return Ports(*free_ports(6))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path, AzuritePorts(1, 2, 3), app=4, mlflow=5, events=6)


def test_the_host_gets_the_stacks_settings_and_the_callers_over_them(places: Places) -> None:
    override = {"RATCHET_SWEEP_SCHEDULE": "0 0 * * * *", "RATCHET_PIPELINES_DIR": "elsewhere"}
    part = host_part(places, app_dir=Path("/app"), workers=3, topic_key="key", webhook_secret="s", env=override)
    assert part.env["AzureWebJobsStorage"] == places.azurite.connection_string
    assert part.env["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5"
    assert part.env["RATCHET_EVENTS_TOPIC_ENDPOINT"] == "http://127.0.0.1:6/topics/ratchet/api/events"
    assert part.env["RATCHET_EVENTS_TOPIC_KEY"] == "key"
    assert part.env["RATCHET_SWEEP_SCHEDULE"] == "0 0 * * * *"
    assert part.env["RATCHET_PIPELINES_DIR"] == "elsewhere"
    assert "PYTHON_THREADPOOL_THREAD_COUNT" not in part.env
    assert part.command[1:5] == ["-m", "devhost", "start", "--app"]
    assert part.command[part.command.index("--workers") + 1] == "3"


def test_secrets_are_not_on_command_lines(places: Places) -> None:
    parts = [
        host_part(
            places, app_dir=Path("/app"), workers=2, topic_key="topic-secret", webhook_secret="hook-secret", env={}
        ),
        event_grid_part(places, azurite_log=Path("a.log"), topic_key="topic-secret"),
    ]
    for part in parts:
        secrets = ("topic-secret", "hook-secret", "AccountKey")
        assert not any(secret in word for word in part.command for secret in secrets)


def test_a_taken_port_is_replaced_and_told_at_each_start_and_an_insisted_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(stack_module, "DEFAULT_PORTS", new_ports())
    places = stack_module._places(tmp_path, Ports(), said.append)
    assert (places.app, places.azurite.table) == (stack_module.DEFAULT_PORTS.app, stack_module.DEFAULT_PORTS.table)
    assert said == []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", places.mlflow))
        listener.listen()
        for _ in range(2):
            moved = stack_module._places(tmp_path, Ports(), said.append)
            assert moved.mlflow != places.mlflow
            assert replace(moved, mlflow=places.mlflow) == places
            assert said.pop() == f"Port {places.mlflow} is in use: MLflow will be on {moved.mlflow}."
        with pytest.raises(PortTaken, match="MLflow"):
            stack_module._places(tmp_path, Ports(mlflow=places.mlflow), said.append)
    assert stack_module._places(tmp_path, Ports(), said.append) == places
    assert said == []


def test_a_stacks_storage_is_found_by_its_directory(tmp_path: Path) -> None:
    places = stack_module._places(tmp_path, new_ports(), lambda _: None)
    assert stack_module.storage_of(tmp_path) == places.azurite.connection_string
    (tmp_path / "stack.json").write_text("[]")
    assert stack_module._remembered(tmp_path / "stack.json") == {}


def test_a_second_stack_on_the_same_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_module, "STOPPING_SECONDS", 0.1)
    with stack_module._only_stack(tmp_path), pytest.raises(StackBusy, match="Another stack is running") as busy:
        start_stack(tmp_path, quiet=True)
    assert isinstance(busy.value, DevhostError)


def test_a_second_stack_need_not_wait_for_one_that_lives(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(json.dumps({"pid": os.getpid(), "ports": {}}))
    begun = time.monotonic()
    with stack_module._only_stack(tmp_path), pytest.raises(StackBusy):
        start_stack(tmp_path, quiet=True)
    assert time.monotonic() - begun < stack_module.STOPPING_SECONDS / 2


def fast_mlflow(places: Places) -> Part:
    """MLflow's place taken by nothing in particular, for tests that are not about it."""
    return Part("MLflow", [sys.executable, "-c", "import time; time.sleep(600)"], lambda: True)


@pytest.mark.integration
def test_a_failing_host_takes_the_rest_down_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(places: Places, **_: object) -> Part:
        return Part("Functions", [sys.executable, "-c", "raise SystemExit('no such app')"], lambda: False)

    monkeypatch.setattr(stack_module, "mlflow_part", fast_mlflow)
    monkeypatch.setattr(stack_module, "host_part", broken)
    ports = new_ports()
    arguments = ["up", "--data", str(tmp_path), "--port", str(ports.app), "--blob-port", str(ports.blob)]
    assert main(arguments) == 1
    shown = capsys.readouterr().out
    assert "Functions ended with exit status 1 before it was ready." in shown
    assert "no such app" in shown
    with stack_module._only_stack(tmp_path):  # every tether has let go of the lock, so every part has ended
        pass


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalStack, Path]]:
    folder = tmp_path_factory.mktemp("stack")
    record = folder / "events"

    def host(places: Places, **given: Any) -> Part:
        real = host_part(places, **given)
        return replace(real, command=[sys.executable, str(FAKE_HOST), str(places.app), str(record)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack_module, "host_part", host)
        with start_stack(folder, ports=new_ports(), quiet=True) as stack:
            yield stack, record


@pytest.mark.integration
def test_an_upload_reaches_the_function_also_across_a_crash_of_the_host(running: tuple[LocalStack, Path]) -> None:
    stack, record = running

    def names() -> list[str]:
        lines = record.read_text().splitlines() if record.exists() else []
        return [json.loads(line)["subject"].rpartition("/")[2] for line in lines]

    with BlobServiceClient.from_connection_string(stack.blob_connection_string) as service:
        assert {container.name for container in service.list_containers()} == set(CONTAINERS)
        service.get_blob_client("features", "own-output.csv").upload_blob(b"1")
        training = service.get_container_client("training")
        training.upload_blob("flights/first.csv", b"1")
        wait_until(lambda: names() == ["first.csv"])
        before = stack.host_pids()
        assert len(before) == 3
        assert stack.worker_pids() == before[1:]
        stack.kill_host()
        wait_until(lambda: not any(alive(pid) for pid in before))
        with pytest.raises(HostSilent, match="start_host"):
            stack.worker_pids()
        training.upload_blob("flights/second.csv", b"2")
        stack.start_host()
        assert set(before).isdisjoint(stack.host_pids())
        wait_until(lambda: names() == ["first.csv", "second.csv"])


@pytest.mark.integration
def test_mlflow_answers_and_every_part_has_its_log(running: tuple[LocalStack, Path]) -> None:
    stack, _ = running
    assert http_probe(f"{stack.mlflow_url}/health")()
    assert http_probe(f"{stack.events_url}/ready")()
    assert {log.name for log in stack.log_dir.iterdir()} == {"azurite.log", "mlflow.log", "host.log", "eventgrid.log"}


def test_the_display_suits_where_the_output_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(display_for(Console(force_terminal=False)), LineDisplay)
    console = Console(force_terminal=True, width=100, highlight=False, color_system=None)
    display = display_for(console)
    assert isinstance(display, TerminalDisplay)
    display.starting("Azurite")
    display.starting("MLflow")
    display.ready("Azurite", "http://127.0.0.1:10000", 0.93)
    display.failed("MLflow")
    display.starting("Functions")
    display.close()  # as when Ctrl-C comes while it waits
    shown = capsys.readouterr().out
    assert "✓ Azurite" in shown
    assert "http://127.0.0.1:10000" in shown
    assert "0.9 s" in shown
    assert "✗ MLflow" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is visible again


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main(["up", "--data", str(file / "data")]) == 1
    assert "Not a directory" in capsys.readouterr().out


def test_help_names_every_port_option() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "local", "up", "--help"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "200"},
    ).stdout  # fmt: skip
    for flag in ("--port", "--mlflow-port", "--events-port", "--blob-port", "--queue-port", "--table-port", "--data"):
        assert flag in shown
    assert set(asdict(Ports())) == set(stack_module.ASKED_BY)


def test_a_part_failed_carries_its_log(tmp_path: Path) -> None:
    error = PartFailed("MLflow", "ended with exit status 1", tmp_path / "mlflow.log", ["a", "b"])
    assert str(error).splitlines()[1:] == ["    a", "    b"]
