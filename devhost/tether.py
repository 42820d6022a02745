"""Ties a command to the life of the process that started it: `tether.py FD GRACE -- command...`.

FD is one end of a socket pair whose other end only the supervisor holds. When that end closes, for whatever reason (a
clean stop, an exception, `kill -9`), the command gets SIGTERM, and what is left of its process group after GRACE
seconds gets SIGKILL. This works wherever there are process groups, so on macOS too, where no parent-death signal
exists; on Linux it also reaches descendants that have left the group. Run by its path and with `python -I -S`, because
it must start fast and needs the standard library alone.

On the socket the tether reports the command's process id (which is its process group too) as one line.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

POLL_SECONDS = 0.02
"""How often a dying group is looked at."""
REMAINDER_SECONDS = 1.0
"""How long processes that outlive the command itself may take to obey SIGTERM."""
PR_SET_CHILD_SUBREAPER = 36
"""From <linux/prctl.h>."""
CANNOT_START = 127
"""Exit status when the command cannot be started, as shells have it."""


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status, 128 + n when signal n ended it."""
    line = socket.socket(fileno=int(argv[0]))
    grace = float(argv[1])
    command = list(argv[argv.index("--") + 1 :])
    line.set_inheritable(False)
    _adopt_orphans()
    woken = _wake_on_signals()
    try:
        child = subprocess.Popen(command, start_new_session=True)  # its own group: signals reach all of it, never us
    except OSError as error:
        print(f"Cannot start {command[0]}: {error}", file=sys.stderr, flush=True)
        return CANNOT_START
    with contextlib.suppress(OSError):  # the supervisor may be gone already; then the wait below ends at once
        line.sendall(f"{child.pid}\n".encode())
    _wait_for_either(child, line, woken)
    status = _end(child, grace)
    return 128 - status if status < 0 else status


def _wake_on_signals() -> socket.socket:
    """A socket that becomes readable when a child ends or someone asks the tether itself to stop."""
    readable, writable = socket.socketpair()
    readable.setblocking(False)
    writable.setblocking(False)
    signal.set_wakeup_fd(writable.detach())
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, _noted)
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal's signals are for the supervisor to interpret
        signal.signal(number, signal.SIG_IGN)
    return readable


def _noted(number: int, frame: FrameType | None) -> None:
    """The wake-up socket carries the signal; a handler has to exist for it to be written to."""


def _wait_for_either(child: subprocess.Popen[bytes], line: socket.socket, woken: socket.socket) -> None:
    """Returns when the command has ended, the supervisor has gone, or SIGTERM has come."""
    while child.poll() is None:
        ready, _, _ = select.select([line, woken], [], [])
        if line in ready and not _received(line):
            return
        if woken in ready and signal.SIGTERM in _received(woken):
            return


def _received(source: socket.socket) -> bytes:
    try:
        return source.recv(64)
    except BlockingIOError:
        return b"\0"
    except OSError:  # a reset is as final as an end
        return b""


def _end(child: subprocess.Popen[bytes], grace: float) -> int:
    """Ends the command first, so that it can stop its own processes in its own order; then what it left behind."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        _until(lambda: child.poll() is not None, grace)
    if _signal_rest(child, signal.SIGTERM):
        _until(lambda: not _signal_rest(child, 0), REMAINDER_SECONDS)
        _signal_rest(child, signal.SIGKILL)
    return child.wait()


def _signal_rest(child: subprocess.Popen[bytes], number: int) -> bool:
    """Signals the command's group, and the processes that left it and were adopted. Whether there were any."""
    if child.poll() is not None:
        _collect_adopted()
    found = False
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
        os.killpg(child.pid, number)
        found = True
    for pid in _adopted(child.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            found = True
    return found


def _adopt_orphans() -> None:
    """Makes orphans below the command ours, where the kernel can (Linux): we collect and find them, init need not."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _collect_adopted() -> None:
    """Collects adopted processes that have ended. Only once the command itself is collected: its status is Popen's."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def _adopted(command: int) -> list[int]:
    """Our children but the command: orphans, such as daemons that made a session of their own. Linux only."""
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(pid) for pid in children.split() if int(pid) != command]


def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
