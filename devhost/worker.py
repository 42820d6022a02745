"""One language worker process: `python -m devhost.worker SOCKET APP_DIR`. The host starts it; people do not.

SOCKET is the number of an inherited descriptor, one end of a socket pair, whose other end only the host holds. When
that end closes, the process ends at once, whatever its threads are doing.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import select
import signal
import socket
import sys
import threading
import traceback

from azure_functions_runtime.utils.executor import invocation_id_cv

from devhost import runtime, wire
from devhost.errors import FrameInvalid
from devhost.protocol import Outcome

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""
LOOK_AT_PARENT_MS = 1000
"""How often to ask who the parent is, for a system whose poll does not report a hang-up that nobody reads."""
NATIVE_FAILURE = ("azure.functions", "Native invocation failed")
"""The library's own line about a failed function, which the host says better: with its name and id."""
CHATTY_LOGGERS = ("azure.core.pipeline.policies.http_logging_policy", "azure.functions")
"""Loggers that write a line or more for each request, or for each start, at the level INFO."""


class _LogForwarder(logging.Handler):
    """Sends log records to the host, with the id of the invocation that wrote them."""

    def __init__(self, connection: wire.Connection, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._connection = connection
        self._loop = loop
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if (record.name, record.msg) == NATIVE_FAILURE:
            return
        frame = wire.log_frame(invocation_id_cv.get() or "", record.levelno, record.name, self.format(record))
        if self._loop.is_closed():
            print(f"{record.levelname} {record.name} {frame[-1]}", file=sys.stderr, flush=True)
        else:
            self._loop.call_soon_threadsafe(self._connection.send, frame)


async def serve(line: socket.socket, app_dir: str) -> int:
    """Loads the app, then runs invocations until the host says stop. Returns the exit status."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    running: set[asyncio.Task[None]] = set()

    async def run(frame: wire.Frame) -> None:
        invocation_id, invocation = wire.read_invoke(frame)
        outcome = await runtime.invoke(invocation_id, invocation)
        try:
            connection.send(wire.outcome_frame(invocation_id, outcome))
        except FrameInvalid as error:
            failed = Outcome(ok=False, error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
            connection.send(wire.outcome_frame(invocation_id, failed))

    def on_frame(frame: wire.Frame) -> None:
        if frame[0] == wire.STOP:
            stopped.set()
            return
        # Begun at once: most functions end without waiting for anything, and need no turn of the loop then.
        task = asyncio.Task(run(frame), loop=loop, eager_start=True)
        if not task.done():
            running.add(task)
            task.add_done_callback(running.discard)

    _, connection = await loop.create_unix_connection(lambda: wire.Connection(on_frame, stopped.set), sock=line)
    logging.getLogger().addHandler(_LogForwarder(connection, loop))
    try:
        functions = runtime.index(app_dir)
    except (Exception, SystemExit):
        connection.send((wire.FAILED, traceback.format_exc()))
        connection.close()
        return 1
    connection.send(wire.ready_frame(functions))
    await stopped.wait()
    return 0


def _end_with_the_host(line: socket.socket) -> None:
    """Ends this process when the host's end of the socket closes, from a thread that a busy event loop cannot hold up.

    No event is asked for: a hang-up is always reported, and incoming frames are the event loop's business.
    """
    parent = os.getppid()
    hang_up = select.poll()
    hang_up.register(os.dup(line.fileno()), 0)

    def watch() -> None:
        while not hang_up.poll(LOOK_AT_PARENT_MS) and os.getppid() == parent:
            pass
        os._exit(0)

    threading.Thread(target=watch, name="devhost-end-with-the-host", daemon=True).start()
    if sys.platform == "linux":  # for the case that native code holds the interpreter's lock
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main(argv: list[str]) -> int:
    """Runs one worker. Returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the host drains and then says stop
    line = socket.socket(fileno=int(argv[0]))
    line.set_inheritable(False)
    _end_with_the_host(line)
    logging.getLogger().setLevel(os.environ.get("DEVHOST_WORKER_LOG_LEVEL", "INFO"))
    for name in CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    return asyncio.run(serve(line, argv[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
