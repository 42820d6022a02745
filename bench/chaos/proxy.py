"""A proxy in front of a storage account or another HTTP server, which answers as badly as the network may.

Which request is hit by what is a hash of the seed and of the request (its names made free of what differs from run to
run), so that a scenario can be repeated. A request that is hit in vain may be hit again: its repetition is another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import socket
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

Fault = Literal["busy", "error", "lost error", "reset", "lost reset", "hang", "slow", "cut"]
"""busy, error: 503 and 500 before the request arrived. lost error, lost reset: it arrived, but its answer does not.
reset: the connection is reset before. hang: no answer for longer than the client waits. slow: the answer trickles.
cut: the answer ends in its middle."""

FAULTS: tuple[Fault, ...] = ("busy", "error", "lost error", "reset", "lost reset", "hang", "slow", "cut")
HANG_SECONDS = 4.0
"""Longer than a client of the stack under test waits (RATCHET_STORAGE_TIMEOUT_SECONDS)."""
SLOW_SECONDS = 0.6
SLOW_PIECES = 6
LIMIT_BYTES = 64 * 1024 * 1024
_VOLATILE = re.compile(rb"\d{8}T\d{6}-[0-9a-f]{8}|[0-9a-f]{32,64}|\?.*$|=[^&]*(?=&|$)")
_HOP = 65536

type Action = Callable[[], None]


@dataclass(slots=True)
class Trap:
    """Springs once, at the first request whose first line matches: before it arrives, or before its answer leaves.

    `action` runs outside of the proxy's loop; the request's connection is reset.
    """

    pattern: re.Pattern[bytes]
    after: bool
    action: Action
    sprung: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Weather:
    """What the proxy does: the share of requests that each fault hits. `down`: every connection is closed at once."""

    seed: int = 0
    shares: Mapping[Fault, float] = field(default_factory=dict)
    down: bool = False

    def fault(self, request: bytes, repetition: int) -> Fault | None:
        """What hits this request, or None. At most one fault hits a request."""
        name = _VOLATILE.sub(b"*", request)
        digest = hashlib.blake2b(b"\0".join((b"%d" % self.seed, name, b"%d" % repetition)), digest_size=8).digest()
        draw = (int.from_bytes(digest) >> 11) / 2.0**53
        for kind in FAULTS:
            draw -= self.shares.get(kind, 0.0)
            if draw < 0.0:
                return kind
        return None


FAIR = Weather()


class FaultProxy:
    """Forwards HTTP/1.1 from a loopback port to another one, in a thread of its own. A context manager.

    `weather` and `trap` may be set at any time, and so may `local`: the weather of the requests that have a name in
    them, in their first line or their body. `injected` counts the faults by kind, `injected_at` those of a name.
    """

    def __init__(self, port: int, upstream: int) -> None:
        self.port, self.upstream = port, upstream
        self.weather = FAIR
        self.local: dict[bytes, Weather] = {}
        self.trap: Trap | None = None
        self.injected: Counter[str] = Counter()
        self.injected_at: defaultdict[bytes, Counter[str]] = defaultdict(Counter)
        self._seen: Counter[bytes] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=f"proxy-{port}", daemon=True)
        self._ready, self._stop = threading.Event(), asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def clear(self) -> None:
        """Fair weather from now on, and everything counted anew."""
        self.weather, self.trap, self.injected, self._seen = FAIR, None, Counter(), Counter()
        self.local.clear()
        self.injected_at.clear()

    def take(self, name: bytes) -> Counter[str]:
        """The faults that hit requests with this name, and those without any, since the last call."""
        common, self.injected = self.injected, Counter()
        return common + self.injected_at.pop(name, Counter())

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
        finally:
            self._loop.close()

    async def _listen(self) -> None:
        tasks: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._connection(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            task.add_done_callback(lambda _: writer.close())  # one that was cancelled before it began has not

        server = await asyncio.start_server(accept, "127.0.0.1", self.port, limit=LIMIT_BYTES)
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection with one of its own to the other side."""
        writers = [writer]
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                if self.weather.down:
                    _reset(writer)
                    return
                back = await asyncio.open_connection("127.0.0.1", self.upstream, limit=LIMIT_BYTES)
                writers.append(back[1])
                while (request := await _next_request(reader, back[0])) is not None:
                    if not await self._exchange(request, writer, *back):
                        return
        finally:
            for each in writers:
                each.close()
            for each in writers:
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    async def _exchange(
        self,
        request: bytes,
        writer: asyncio.StreamWriter,
        back_reader: asyncio.StreamReader,
        back_writer: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer; whether the connection can go on."""
        line = request.partition(b"\r\n")[0]
        trap = self.trap if self.trap is not None and self.trap.pattern.search(line) else None
        if trap is not None and not trap.after:
            return await self._spring(trap, writer)
        fault = self._fault(line, request)
        if self.weather.down or fault == "reset":
            _reset(writer)
            return False
        if fault == "hang":
            await asyncio.sleep(HANG_SECONDS)
            return False
        if fault in {"busy", "error"}:
            writer.write(_refusal(fault))
            await writer.drain()
            return False
        back_writer.write(request)
        await back_writer.drain()
        answer = await read_message(back_reader, bodiless=line.startswith(b"HEAD "))
        if answer is None:
            return False
        if trap is not None:
            return await self._spring(trap, writer)
        return await _deliver(answer, fault, writer)

    def _fault(self, line: bytes, request: bytes) -> Fault | None:
        repetition = self._seen[line]
        self._seen[line] += 1
        name = next((name for name in tuple(self.local) if name in line or name in request), None)
        weather, counter = self.weather, self.injected
        if name is not None:
            weather, counter = self.local.get(name, FAIR), self.injected_at[name]
        fault = weather.fault(line, repetition)
        if fault is not None:
            counter[fault] += 1
        return fault

    async def _spring(self, trap: Trap, writer: asyncio.StreamWriter) -> bool:
        if self.trap is trap:
            self.trap = None
            self.injected["trap"] += 1
            await asyncio.get_running_loop().run_in_executor(None, trap.action)
            trap.sprung.set()
        _reset(writer)
        return False


async def _next_request(reader: asyncio.StreamReader, back_reader: asyncio.StreamReader) -> bytes | None:
    """None when either side has gone: that a server closes a connection which idles, its client has to see at once."""
    asked, gone = asyncio.ensure_future(read_message(reader)), asyncio.ensure_future(back_reader.read(1))
    try:
        await asyncio.wait({asked, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await asked if asked.done() else None
    finally:
        for each in (asked, gone):
            each.cancel()
        await asyncio.gather(asked, gone, return_exceptions=True)


async def read_message(reader: asyncio.StreamReader, *, bodiless: bool = False) -> bytes | None:
    """A whole HTTP/1.1 message, head and body as they came; None when the other side has gone."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    lower = head.lower()
    if bodiless or b" 304 " in lower[:16] or b" 204 " in lower[:16]:
        return head
    if b"\r\ntransfer-encoding: chunked" in lower:
        return head + await _chunks(reader)
    length = re.search(rb"\r\ncontent-length: *(\d+)", lower)
    return head + await reader.readexactly(int(length[1])) if length else head


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while True:
        size = await reader.readuntil(b"\r\n")
        parts += [size, await reader.readexactly(int(size.partition(b";")[0], 16) + 2)]
        if int(size.partition(b";")[0], 16) == 0:
            return b"".join(parts)


async def _deliver(answer: bytes, fault: Fault | None, writer: asyncio.StreamWriter) -> bool:
    if fault == "lost reset":
        _reset(writer)
        return False
    if fault == "lost error":
        writer.write(_refusal(fault))
    elif fault == "cut":
        head, end, body = answer.partition(b"\r\n\r\n")
        writer.write(head + end + body[: len(body) // 2] if body else answer[: len(answer) // 2])
    elif fault == "slow":
        step = max(1, len(answer) // SLOW_PIECES + 1)
        for start in range(0, len(answer), step):
            writer.write(answer[start : start + step])
            await writer.drain()
            await asyncio.sleep(SLOW_SECONDS / SLOW_PIECES)
    else:
        writer.write(answer)
    await writer.drain()
    return fault in {None, "slow"}


def _refusal(fault: Fault) -> bytes:
    """As Azure Storage says it."""
    status, code = (b"503 Server Busy", b"ServerBusy") if fault == "busy" else (b"500 Internal", b"InternalError")
    body = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>injected</Message></Error>' % code
    head = b"HTTP/1.1 %s\r\nx-ms-error-code: %s\r\nContent-Type: application/xml\r\n" % (status, code)
    return head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes with RST and not with FIN, as when the other side died."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
