from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from devhost.__main__ import main, options, parser
from devhost.errors import DevhostError
from devhost.eventgrid.cli import parser as eventgrid_parser


def test_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FUNCTIONS_WORKER_PROCESS_COUNT", raising=False)
    chosen = options(parser().parse_args(["start", "--app", str(tmp_path)]))
    assert (chosen.app_dir, chosen.state_dir) == (tmp_path, tmp_path / ".devhost")
    assert (chosen.host, chosen.port, chosen.workers) == ("127.0.0.1", 7071, 1)
    assert chosen.keys_file is None
    with_keys = options(parser().parse_args(["start", "--app", str(tmp_path), "--auth", str(tmp_path / "keys.json")]))
    assert with_keys.keys_file == tmp_path / "keys.json"
    monkeypatch.setenv("FUNCTIONS_WORKER_PROCESS_COUNT", "3")
    assert options(parser().parse_args(["start", "--app", str(tmp_path)])).workers == 3


def test_local_settings_give_port_and_workers_where_nobody_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FUNCTIONS_WORKER_PROCESS_COUNT", raising=False)
    local = {"Values": {"FUNCTIONS_WORKER_PROCESS_COUNT": "2"}, "Host": {"LocalHttpPort": 7123}}
    (tmp_path / "local.settings.json").write_text(json.dumps(local))
    chosen = options(parser().parse_args(["start", "--app", str(tmp_path)]))
    assert (chosen.port, chosen.workers) == (7123, 2)
    chosen = options(parser().parse_args(["start", "--app", str(tmp_path), "--port", "0", "--workers", "4"]))
    assert (chosen.port, chosen.workers) == (0, 4)
    monkeypatch.setenv("FUNCTIONS_WORKER_PROCESS_COUNT", "3")
    assert options(parser().parse_args(["start", "--app", str(tmp_path)])).workers == 3
    (tmp_path / "local.settings.json").write_text("{")
    assert options(parser().parse_args(["start", "--app", str(tmp_path)])).port == 7071


@pytest.mark.parametrize(("argument", "value"), [("--workers", "0"), ("--app", "nowhere/at/all")])
def test_impossible_options_are_named(tmp_path: Path, argument: str, value: str) -> None:
    with pytest.raises(DevhostError, match=value):
        options(parser().parse_args(["start", "--app", str(tmp_path), argument, value]))


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_an_impossible_port_is_named(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["start", "--port", port])
    assert f"{port!r} is no port" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        eventgrid_parser().parse_args(["--port", port])
    assert f"{port!r} is no port" in capsys.readouterr().err


def test_impossible_workers_in_the_environment_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNCTIONS_WORKER_PROCESS_COUNT", "many")
    with pytest.raises(DevhostError, match="many workers"):
        options(parser().parse_args(["start", "--app", str(tmp_path)]))


def test_event_grid_has_a_command_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def event_grid(argv: list[str]) -> int:
        seen.append(argv)
        return 5

    package, cli = types.ModuleType("devhost.eventgrid"), types.ModuleType("devhost.eventgrid.cli")
    vars(cli)["main"] = event_grid
    vars(package)["cli"] = cli
    monkeypatch.setitem(sys.modules, "devhost.eventgrid", package)
    monkeypatch.setitem(sys.modules, "devhost.eventgrid.cli", cli)
    assert main(["eventgrid", "--help"]) == 5
    assert seen == [["--help"]]


def test_help_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["start", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    shown = capsys.readouterr().out
    for word in ("eventgrid", "--state", "/admin/host/status", "local.settings.json", "Ctrl-C"):
        assert word in shown


def test_the_workers_start_before_the_http_library_is_loaded() -> None:
    program = "import sys, devhost.__main__; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
