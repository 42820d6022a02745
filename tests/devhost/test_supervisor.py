from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from devhost.display import LineDisplay
from devhost.errors import DevhostError
from devhost.ports import NoPortFree, PortTaken, PortWish, choose_ports, free_port, free_ports, is_free
from devhost.probes import http_probe, port_probe
from devhost.supervisor import Part, PartFailed, PartUnknown, Supervisor

REPOSITORY = Path(__file__).parents[2]

FAMILY = """
import os, pathlib, signal, subprocess, sys, time
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
if "stubborn" in name:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
(folder / f"{name}.tmp").write_text(f"{os.getpid()} {grandchild.pid}")
(folder / f"{name}.tmp").rename(folder / f"{name}.pids")
print("family", name, flush=True)
def ended(*_):
    with (folder / "order").open("a") as file:
        file.write(name + "\\n")
    sys.exit(0)
if "stubborn" not in name:
    signal.signal(signal.SIGTERM, ended)
(folder / f"{name}.ready").touch()
time.sleep(600)
"""


def wait_until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has collected does not count."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S607
    return bool(state.stdout.strip()) and not state.stdout.strip().startswith("Z")


def family(folder: Path, name: str, **changes: object) -> Part:
    fields: dict[str, object] = {
        "name": name,
        "command": [sys.executable, "-c", FAMILY, str(folder), name],
        "probe": (folder / f"{name}.ready").exists,
        "grace": 3.0,
    }
    return Part(**(fields | changes))  # type: ignore[arg-type]


def pids(folder: Path, *names: str) -> list[int]:
    return [int(pid) for name in names for pid in (folder / f"{name}.pids").read_text().split()]


def test_parts_start_in_order_and_stop_in_reverse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Supervisor(tmp_path / "logs", display=LineDisplay()) as supervisor:
        supervisor.start(family(tmp_path, "first", url="http://127.0.0.1:1"))
        supervisor.start(family(tmp_path, "second"))
        running = pids(tmp_path, "first", "second")
        assert supervisor.pid("first") == running[0]
        assert all(alive(pid) for pid in running)
        assert supervisor.log("second").read_text() == "family second\n"
    assert (tmp_path / "order").read_text().split() == ["second", "first"]
    assert not any(alive(pid) for pid in running)
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[:3] == ["first", "http://127.0.0.1:1", "ready"]
    assert second.startswith("second")


WITH_THE_OTHER = """
import pathlib, sys, time

started, other, ready = map(pathlib.Path, sys.argv[1:])
started.touch()
while not other.exists():
    time.sleep(0.01)
ready.touch()
time.sleep(600)
"""


def test_parts_started_together_wait_side_by_side(tmp_path: Path) -> None:
    a, b = tmp_path / "a started", tmp_path / "b started"
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.start(_meeting(a, b, tmp_path / "a"), _meeting(b, a, tmp_path / "b"))
        assert all(path.exists() for path in (tmp_path / "a", tmp_path / "b"))


def _meeting(started: Path, other: Path, ready: Path) -> Part:
    """A part that is ready once the other one has started."""
    return Part(ready.name, [sys.executable, "-c", WITH_THE_OTHER, str(started), str(other), str(ready)], ready.exists)


def test_a_part_that_ends_early_is_named_with_its_log_and_last_lines(tmp_path: Path) -> None:
    crash = Part(
        "Broken one", [sys.executable, "-c", "print('line 1'); raise SystemExit('no database')"], lambda: False
    )
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.start(family(tmp_path, "healthy"))
        running = pids(tmp_path, "healthy")
        with pytest.raises(PartFailed) as failure:
            supervisor.start(crash)
    assert failure.value.name == "Broken one"
    assert failure.value.log == tmp_path / "logs" / "broken-one.log"
    assert failure.value.last_lines == ("line 1", "no database")
    assert "ended with exit status 1 before it was ready" in str(failure.value)
    assert str(failure.value.log) in str(failure.value)
    assert not any(alive(pid) for pid in running)


def test_last_lines_are_those_of_this_start(tmp_path: Path) -> None:
    (tmp_path / "quiet.log").write_text("an old line\n")
    with Supervisor(tmp_path) as supervisor, pytest.raises(PartFailed) as failure:
        supervisor.start(Part("quiet", [sys.executable, "-c", "raise SystemExit(3)"], lambda: False))
    assert failure.value.last_lines == ()
    assert "(nothing was written)" in str(failure.value)
    assert (tmp_path / "quiet.log").read_text() == "an old line\n"


def test_a_part_that_never_gets_ready_fails_after_its_limit(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        with pytest.raises(PartFailed, match="was not ready within 1 s"):
            supervisor.start(family(tmp_path, "slow", probe=lambda: False, ready_within=1.0))
        running = pids(tmp_path, "slow")
        assert all(alive(pid) for pid in running)
    assert not any(alive(pid) for pid in running)


def test_a_command_that_does_not_exist_says_so(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor, pytest.raises(PartFailed, match="Cannot start /no/such/program"):
        supervisor.start(Part("ghost", ["/no/such/program"], lambda: False))


def test_a_part_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(family(tmp_path, "stubborn", grace=0.3))
        running = pids(tmp_path, "stubborn")
    assert not any(alive(pid) for pid in running)


def test_a_killed_part_is_gone_with_its_children_and_starts_again(tmp_path: Path) -> None:
    part = family(tmp_path, "host")
    with Supervisor(tmp_path / "logs") as supervisor:
        supervisor.start(part)
        before = pids(tmp_path, "host")
        supervisor.kill("host")
        wait_until(lambda: not any(alive(pid) for pid in before))
        assert not (tmp_path / "order").exists()  # SIGKILL, not SIGTERM
        supervisor.check()  # killed on purpose is no failure
        (tmp_path / "host.ready").unlink()
        supervisor.start(part)
        after = pids(tmp_path, "host")
        assert set(before).isdisjoint(after)
    assert not any(alive(pid) for pid in after)


def test_check_raises_when_a_part_ends_by_itself(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(family(tmp_path, "fragile"))
        supervisor.check()
        os.kill(supervisor.pid("fragile"), signal.SIGKILL)
        with pytest.raises(PartFailed, match=r"fragile ended with exit status 137\."):
            supervisor.watch()
        assert not any(alive(pid) for pid in pids(tmp_path, "fragile"))  # its child went with it


def test_a_killed_tether_does_not_free_its_part(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(family(tmp_path, "loose"))
        running = pids(tmp_path, "loose")
        tether = int(subprocess.check_output(["ps", "-o", "ppid=", "-p", str(running[0])], text=True))  # noqa: S607
        os.kill(tether, signal.SIGKILL)
        wait_until(lambda: not alive(tether))
    wait_until(lambda: not any(alive(pid) for pid in running))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt the orphans below it")
def test_a_daemon_that_left_the_group_is_ended_too(tmp_path: Path) -> None:
    daemon = "import subprocess, sys; subprocess.Popen([sys.executable, *sys.argv[1:]], start_new_session=True)"
    inner = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
    file = tmp_path / "daemon"
    command = [sys.executable, "-c", daemon + "; import time; time.sleep(600)", "-c", inner, str(file)]
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(Part("parent", command, lambda: file.exists() and bool(file.read_text())))
        pid = int(file.read_text())
        assert alive(pid)
    assert not alive(pid)


def test_an_unknown_part_is_named(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor, pytest.raises(PartUnknown, match="no part called host"):
        supervisor.kill("host")


def test_a_log_grown_too_large_is_moved_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devhost.supervisor.LOG_LIMIT_BYTES", 10)
    (tmp_path / "big.log").write_text("eleven bytes and more")
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(family(tmp_path, "big"))
        assert (tmp_path / "big.log").read_text() == "family big\n"
    assert (tmp_path / "big.log.1").read_text() == "eleven bytes and more"


SUPERVISE = """
import sys
from pathlib import Path
from tests.devhost.test_supervisor import family
from devhost.supervisor import Supervisor
folder = Path(sys.argv[1])
with Supervisor(folder / "logs") as supervisor:
    supervisor.start(family(folder, "one"), family(folder, "two-stubborn", grace=0.5))
    (folder / "all-ready").touch()
    supervisor.watch()
"""


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, None)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_nothing_survives_the_supervisor(tmp_path: Path, number: signal.Signals, status: int | None) -> None:
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(tmp_path)], cwd=REPOSITORY, stderr=subprocess.DEVNULL
    )
    try:
        wait_until((tmp_path / "all-ready").exists)
        running = pids(tmp_path, "one", "two-stubborn")
        assert all(alive(pid) for pid in running)
        supervisor.send_signal(number)
        left = supervisor.wait(15)
        assert status is None or left == status
        assert left != 0
        wait_until(lambda: not any(alive(pid) for pid in running), seconds=8)
        assert (tmp_path / "order").read_text() == "one\n"  # it was asked politely first
    finally:
        supervisor.kill()
        supervisor.wait()


def test_ports_fall_back_unless_somebody_insists() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert not is_free(taken)
        assert port_probe(taken)()
        choice = choose_ports({"app": PortWish("the app", taken)})["app"]
        assert choice.moved
        assert choice.port != taken
        with pytest.raises(PortTaken, match=rf"Port {taken} \(--port, the app\) is in use") as failure:
            choose_ports({"app": PortWish("--port, the app", taken, firm=True)})
        assert isinstance(failure.value, DevhostError)
        assert (failure.value.port, failure.value.asked_by) == (taken, "--port, the app")


def test_when_nothing_is_free_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devhost.ports.is_free", lambda port: False)
    with pytest.raises(NoPortFree, match="between 20000 and 31999"):
        free_port()


def test_free_ports_are_all_different() -> None:
    assert len(set(free_ports(200))) == 200


def test_chosen_ports_differ_and_a_firm_wish_wins() -> None:
    port = free_port()
    chosen = choose_ports({"soft": PortWish("soft", port), "firm": PortWish("firm", port, firm=True)})
    assert list(chosen) == ["soft", "firm"]
    assert chosen["firm"].port == port
    assert chosen["soft"].port != port
    assert is_free(port)
    assert not port_probe(port)()
    assert not http_probe(f"http://127.0.0.1:{port}/")()
