"""Starts child processes, waits until each is ready, and leaves none behind.

DevhostError
├── PartFailed     a part ended or was not ready in time; names its log and shows the log's last lines
└── PartUnknown    no part of that name was started

Every part runs under a tether (devhost/tether.py), which ends it when this process is gone, `kill -9` included. Parts
stop in the reverse of the order in which they started. Logs are appended to, so that whoever follows one across
restarts keeps its place; a log that has grown past LOG_LIMIT_BYTES is moved aside to NAME.log.1 at the next start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from devhost.display import Display, SilentDisplay
from devhost.errors import DevhostError
from devhost.probes import Probe

POLL_SECONDS = 0.05
READY_WITHIN_SECONDS = 60.0
GRACE_SECONDS = 8.0
"""How long a part may take to end after SIGTERM, before SIGKILL."""
TETHER_MARGIN_SECONDS = 5.0
"""How much longer than its grace a tether itself may take, before its part is killed without it."""
LAST_LINES = 15
LAST_BYTES = 16_384
LOG_LIMIT_BYTES = 16 * 2**20
TETHER = Path(__file__).with_name("tether.py")


class PartFailed(DevhostError):
    """A part ended, or was not ready in time. `log` is its log file; `last_lines` are the last of this start."""

    def __init__(self, name: str, reason: str, log: Path, last_lines: Sequence[str]) -> None:
        shown = "\n".join(f"    {line}" for line in last_lines) or "    (nothing was written)"
        super().__init__(f"{name} {reason}. Its log is {log}; the last lines:\n{shown}")
        self.name = name
        self.reason = reason
        self.log = log
        self.last_lines = tuple(last_lines)


class PartUnknown(DevhostError):
    """No part of that name was started."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no part called {name}: start it first.")
        self.name = name


@dataclass(frozen=True, slots=True)
class Part:
    """A process to run. `env` is added to this process's environment; `url` is shown to the user."""

    name: str
    command: Sequence[str]
    probe: Probe
    url: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    ready_within: float = READY_WITHIN_SECONDS
    grace: float = GRACE_SECONDS
    log_name: str = ""


@dataclass(slots=True)
class _Running:
    """A started part: its tether, our end of the socket to it, and where in the log this start begins."""

    part: Part
    tether: subprocess.Popen[bytes]
    line: socket.socket
    log: Path
    log_start: int
    pid: int | None


class Supervisor:
    """Starts parts and owns them until `stop`. Use as a context manager; SIGTERM and SIGHUP then unwind it too.

    `hold_fd` is a file descriptor that every tether keeps open, such as a lock that must last as long as any part.
    """

    def __init__(self, log_dir: Path, *, display: Display | None = None, hold_fd: int | None = None) -> None:
        self.log_dir = log_dir
        self._display = display or SilentDisplay()
        self._hold = () if hold_fd is None else (hold_fd,)
        self._running: dict[str, _Running] = {}
        self._signals = contextlib.ExitStack()
        log_dir.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self._signals.enter_context(exit_on_signals())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.close()
        with self._signals:
            self.stop()

    def start(self, *parts: Part) -> None:
        """Starts the parts side by side and returns when all are ready. Raises PartFailed and leaves the rest running.

        Whoever owns the supervisor stops it on failure; the context manager does.
        """
        started = time.monotonic()
        for part in parts:
            self._display.starting(part.name)
            self._running[part.name] = self._launch(part)
        waiting = {part.name: part for part in parts}
        while waiting:
            for name, part in list(waiting.items()):
                seconds = time.monotonic() - started
                if self._is_ready(part, seconds):
                    self._display.ready(name, part.url, seconds)
                    del waiting[name]
            if waiting:
                time.sleep(POLL_SECONDS)

    def _is_ready(self, part: Part, seconds: float) -> bool:
        running = self._running[part.name]
        ended = running.tether.poll()
        if ended is None and part.probe():
            return running.tether.poll() is None  # else somebody else answered the probe
        if ended is None and seconds < part.ready_within:
            return False
        self._display.failed(part.name)
        raise _failure(running, ready=False)

    def check(self) -> None:
        """Raises PartFailed when a part that was started has ended by itself."""
        for running in self._running.values():
            if running.tether.poll() is not None:
                raise _failure(running, ready=True)

    def watch(self) -> None:
        """Blocks until a part ends by itself (PartFailed) or a signal unwinds the stack."""
        while True:
            self.check()
            time.sleep(POLL_SECONDS * 4)

    def pid(self, name: str) -> int:
        """The process id of the part itself (not of its tether); also the id of its process group."""
        running = self._get(name)
        if running.pid is None:
            raise _failure(running, ready=False)
        return running.pid

    def log(self, name: str) -> Path:
        """The part's log file."""
        return self._get(name).log

    def kill(self, name: str) -> None:
        """SIGKILL to the part's whole process group at once, as a crash would. It can be started again."""
        running = self._get(name)
        pid = self.pid(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        self._end([running])

    def stop(self, *names: str) -> None:
        """Ends the named parts, or all, the last started first. Parts that are not running are passed over."""
        chosen = [running for name, running in self._running.items() if not names or name in names]
        for running in reversed(chosen):
            self._end([running])

    def _end(self, parts: Sequence[_Running]) -> None:
        for running in parts:
            running.line.close()  # what the tether waits for
            try:
                running.tether.wait(running.part.grace + TETHER_MARGIN_SECONDS)
            except subprocess.TimeoutExpired:
                running.tether.kill()
                running.tether.wait()
            if running.pid is not None and running.tether.returncode < 0:  # the tether was killed: do its work
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGKILL)
            self._running.pop(running.part.name, None)

    def _get(self, name: str) -> _Running:
        try:
            return self._running[name]
        except KeyError:
            raise PartUnknown(name) from None

    def _launch(self, part: Part) -> _Running:
        log = self.log_dir / f"{part.log_name or part.name.lower().replace(' ', '-')}.log"
        if log.exists() and log.stat().st_size > LOG_LIMIT_BYTES:
            log.replace(log.with_name(log.name + ".1"))
        ours, theirs = socket.socketpair()
        fd = theirs.fileno()
        tether = [sys.executable, "-I", "-S", str(TETHER), str(fd), str(part.grace), "--", *part.command]
        with theirs, log.open("ab") as output:
            log_start = output.tell()
            process = subprocess.Popen(
                tether,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=part.cwd,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **part.env},
                pass_fds=(fd, *self._hold),
                start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor alone
            )
        return _Running(part, process, ours, log, log_start, _reported_pid(ours))


def _reported_pid(line: socket.socket) -> int | None:
    """What the tether says its command's process id is; None when the command could not be started."""
    text = b""
    while not text.endswith(b"\n"):
        piece = line.recv(32)
        if not piece:
            return None
        text += piece
    return int(text)


def _failure(running: _Running, *, ready: bool) -> PartFailed:
    status = running.tether.poll()
    if status is None:
        reason = f"was not ready within {running.part.ready_within:.0f} s"
    else:
        reason = f"ended with exit status {status}" + ("" if ready else " before it was ready")
    return PartFailed(running.part.name, reason, running.log, _last_lines(running.log, running.log_start))


def _last_lines(log: Path, start: int) -> list[str]:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(start, size - LAST_BYTES))
        return file.read().decode(errors="replace").splitlines()[-LAST_LINES:]


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP raise SystemExit(128 + n), so that `with` blocks unwind as they do on Ctrl-C.

    Outside the main thread, where Python allows no handlers, it does nothing: the tethers still end the parts.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
