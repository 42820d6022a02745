"""A short way for the requests that there are most of: plain ones to HTTP functions, with nothing special about them.

aiohttp reads every kind of request, and takes half of the host's time for that. So each connection begins here. While
its requests are of the plainest form (`_HEAD`), come whole, and are for a function, they are read and answered here, in
one write each. With the first that is not, the connection is aiohttp's, with all that it has sent and will send.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple, cast

from aiohttp.http import SERVER_SOFTWARE

from devhost.front import WITHOUT_BODY, PlainRequest, Reply

type Answering = Callable[[PlainRequest], Awaitable[Reply] | None]
"""The reply to a request, or None for one that is not to be answered here."""

LONGEST_HEAD = 8190
"""Bytes of a request line and headers. aiohttp's limit for a single line of them."""
LONGEST_BODY = 2**20
KEEP_ALIVE_SECONDS = 3630.0
"""How long a connection may be idle: as long as with aiohttp."""
LOOK_SECONDS = 60.0
SPECIAL = frozenset({"connection", "expect", "trailer", "transfer-encoding", "upgrade"})
"""Request headers that ask the server for something. `Connection: keep-alive` asks for what is done anyway."""
REASONS = {status.value: status.phrase for status in HTTPStatus}

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_HEAD = re.compile(rb"(DELETE|GET|PATCH|POST|PUT) (/[!-\"$-~]*) HTTP/1\.1\r\n((?:" + _TOKEN + rb":[\t -~]*\r\n)+)\r\n")
"""A request without a fragment in its target, in ASCII and with whole lines."""

_log = logging.getLogger("devhost.express")


class _Head(NamedTuple):
    """The last head of a connection, read. The next one is the same, with most clients, and needs no reading then."""

    text: bytes
    method: str
    target: str
    headers: dict[str, str]
    length: int


class Express:
    """All connections of one port that aiohttp has not taken."""

    def __init__(self, answering: Answering, others: Callable[[], asyncio.Protocol], *, body_limit: int) -> None:
        """`others` makes the protocol that a connection goes on with; beyond `body_limit` it says what is wrong."""
        self.answering, self.others = answering, others
        self.longest_body = min(LONGEST_BODY, body_limit)
        self.closing = False
        self.lines: set[Line] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.TimerHandle | None = None
        self._date = (0, "")

    def connection(self) -> Line:
        """For a connection that is about to be made."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        return Line(self)

    async def close(self, seconds: float) -> None:
        """Closes the idle connections now, and each other one after its reply, at the latest after so many seconds."""
        self.closing = True
        if self._looking is not None:
            self._looking.cancel()
        for line in list(self.lines):
            line.close_if_idle()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=seconds)
        rest = list(self.tasks)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def date(self) -> str:
        """Now, as HTTP has it."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True))
        return self._date[1]

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(LOOK_SECONDS, self._look)
        for line in list(self.lines):
            if line.since < loop.time() - KEEP_ALIVE_SECONDS:
                line.close_if_idle()


class Line(asyncio.Protocol):
    """One connection. `since` is the loop's time when its last request came or ended."""

    def __init__(self, express: Express) -> None:
        self._express = express
        self._loop = asyncio.get_running_loop()
        self._data = b""
        self._head: _Head | None = None
        self._needed = 0
        self._busy = self._held = self._full = self._stepping = False
        self.since = self._loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._express.lines.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._express.lines.discard(self)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if not self._busy:
            self._next()

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        if not (self._busy or self._full):
            self._next()
        elif not self._held:  # requests that came before they were due wait in the system's buffers
            self._held = True
            self._transport.pause_reading()

    def close_if_idle(self) -> None:
        """Closes the connection, unless a request is being answered."""
        if not self._busy:
            self._transport.close()

    def _next(self) -> None:
        """Begins with the next request, when it is there as a whole."""
        if self._stepping:  # the loop below goes on by itself: a hundred requests may have come at once
            return
        self._stepping = True
        while self._data and not (self._busy or self._full) and len(self._data) >= self._needed:
            read = self._read()
            if read is None and len(self._data) < self._needed:
                break
            reply = None if read is None else self._express.answering(read)
            if reply is None:
                self._hand_over()
                return
            self._data, self._needed = self._data[self._needed :], 0
            self._busy, self.since = True, self._loop.time()
            # Begun at once: it needs no turn of the loop to reach the worker.
            task = asyncio.Task(self._answer(reply), loop=self._loop, eager_start=True)
            if not task.done():
                self._express.tasks.add(task)
                task.add_done_callback(self._express.tasks.discard)
        self._stepping = False
        if self._held and not (self._busy or self._full):
            self._held = False
            self._transport.resume_reading()

    def _read(self) -> PlainRequest | None:
        """The request that the data begin with. None when it is not plain, or not there as a whole: then `_needed` is
        more than there is."""
        if self._head is None or not self._data.startswith(self._head.text):
            self._head = self._read_head()
        if self._head is None:
            return None
        text, method, target, headers, length = self._head
        self._needed = len(text) + length
        if len(self._data) < self._needed:
            return None
        return PlainRequest(method, target, headers, self._data[len(text) : self._needed])

    def _read_head(self) -> _Head | None:
        """The head that the data begin with, if it is plain."""
        found = _HEAD.match(self._data, 0, LONGEST_HEAD)
        if found is None:
            return None
        headers: dict[str, str] = {}
        for line in found[3].decode("ascii").splitlines():
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip()
            if name in headers or (name in SPECIAL and (name, value.lower()) != ("connection", "keep-alive")):
                return None
            headers[name] = value
        length = headers.get("content-length", "0")
        if "host" not in headers or not length.isdigit() or len(length) > len(str(LONGEST_BODY)):
            return None
        if int(length) > self._express.longest_body:
            return None
        return _Head(found[0], found[1].decode("ascii"), found[2].decode("ascii"), headers, int(length))

    def _hand_over(self) -> None:
        """From here on the connection is aiohttp's."""
        self._express.lines.discard(self)
        other, transport = self._express.others(), self._transport
        transport.set_protocol(other)
        other.connection_made(transport)
        if self._held:
            transport.resume_reading()
        other.data_received(self._data)

    async def _answer(self, reply: Awaitable[Reply]) -> None:
        try:
            data = written(await reply, self._express.date())
        except asyncio.CancelledError:
            self._transport.close()
            raise
        except Exception:
            _log.exception("a request could not be answered")
            data = written(Reply(HTTPStatus.INTERNAL_SERVER_ERROR), self._express.date())
        if not self._transport.is_closing():
            self._transport.write(data)
        self._busy, self.since = False, self._loop.time()
        if self._express.closing or self._transport.is_closing():
            self._transport.close()
        else:
            self._next()


def written(reply: Reply, date: str) -> bytes:
    """The bytes of a response. Raises ValueError for a header that would be several."""
    status, headers, body = reply
    lines = [f"HTTP/1.1 {status:d} {REASONS.get(status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if status not in WITHOUT_BODY:
        if not any(name.lower() == "content-type" for name, _ in headers):
            lines.append("Content-Type: application/octet-stream")
        lines.append(f"Content-Length: {len(body)}")
    lines += (f"Date: {date}", f"Server: {SERVER_SOFTWARE}", "", "")
    head = "\r\n".join(lines)
    if head.count("\r") != len(lines) - 1 or head.count("\n") != len(lines) - 1:
        raise ValueError("a response header has a line break in it")
    return head.encode() + body
