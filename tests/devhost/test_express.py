from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost.express import KEEP_ALIVE_SECONDS, LONGEST_HEAD, Express, Line, written
from devhost.front import PlainRequest, Reply
from tests.devhost.waiting import until

POST = b"POST /api/f?a=1 HTTP/1.1\r\nHost: h\r\nX-Name:  v \r\nContent-Length: 3\r\n\r\nabc"
DONE = Reply(200, [("a", "b")], b"x")
LIMIT = 100


class FakeTransport(asyncio.Transport):
    """Keeps what is written, and what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.closed = self.paused = False
        self.protocol: asyncio.BaseProtocol | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False

    def is_reading(self) -> bool:
        return not self.paused

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


class Other(asyncio.Protocol):
    """Stands in for aiohttp."""

    def __init__(self) -> None:
        self.got = b""

    def data_received(self, data: bytes) -> None:
        self.got += data


class Stand:
    """One connection. Requests to /at-once are answered at once, to /other not at all, the rest once `finish` says."""

    def __init__(self) -> None:
        self.other = Other()
        self.asked: list[PlainRequest] = []
        self.open: list[asyncio.Future[Reply]] = []
        self.express = Express(self._answering, lambda: self.other, body_limit=LIMIT)
        self.transport = FakeTransport()
        self.line: Line = self.express.connection()
        self.line.connection_made(self.transport)

    def _answering(self, asked: PlainRequest) -> Awaitable[Reply] | None:
        if asked.target == "/other":
            return None
        self.asked.append(asked)
        future = asyncio.get_running_loop().create_future()
        if asked.target == "/at-once":
            future.set_result(Reply(200, [], asked.body))
        else:
            self.open.append(future)
        return self._reply(future)

    async def _reply(self, future: asyncio.Future[Reply]) -> Reply:
        return future.result() if future.done() else await future

    async def finish(self, reply: Reply = DONE) -> None:
        self.open.pop(0).set_result(reply)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def handed_over(self) -> bool:
        return self.transport.protocol is self.other


async def test_a_request_is_read_and_answered_in_one_write() -> None:
    stand = Stand()
    stand.line.data_received(POST)
    headers = {"host": "h", "x-name": "v", "content-length": "3"}
    assert stand.asked == [PlainRequest("POST", "/api/f?a=1", headers, b"abc")]
    assert stand.asked[0].query == {"a": "1"}
    await stand.finish()
    (sent,) = stand.transport.sent
    head, _, body = sent.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    names = [line.partition(b":")[0] for line in lines]
    assert (first, body) == (b"HTTP/1.1 200 OK", b"x")
    assert names == [b"a", b"Content-Type", b"Content-Length", b"Date", b"Server"]
    assert b"Content-Length: 1" in lines


@given(cuts=st.lists(st.integers(POST.index(b"\r\n\r\n") + 4, len(POST) - 1), max_size=3), more=st.booleans())
def test_a_body_may_come_in_pieces(cuts: list[int], *, more: bool) -> None:
    async def run() -> None:
        stand = Stand()
        data = POST + (POST if more else b"")
        places = [0, *sorted(cuts), len(data)]
        for start, end in itertools.pairwise(places):
            if end > start:
                stand.line.data_received(data[start:end])
        assert [asked.body for asked in stand.asked] == [b"abc"]
        await stand.finish()
        assert len(stand.asked) == 1 + more
        assert not stand.handed_over()

    asyncio.run(run())


async def test_requests_of_one_connection_are_answered_in_their_order() -> None:
    stand = Stand()
    stand.line.data_received(POST + POST.replace(b"abc", b"def"))
    stand.line.data_received(POST.replace(b"abc", b"ghi")[:-2])
    assert not stand.transport.is_reading()  # what follows waits in the system's buffers
    assert [asked.body for asked in stand.asked] == [b"abc"]
    await stand.finish()
    assert [asked.body for asked in stand.asked] == [b"abc", b"def"]
    await stand.finish()
    assert stand.transport.is_reading()  # the third one is not there as a whole
    stand.line.data_received(b"hi")
    assert [asked.body for asked in stand.asked] == [b"abc", b"def", b"ghi"]
    assert len(stand.transport.sent) == 2


async def test_very_many_requests_may_come_at_once() -> None:
    stand = Stand()
    count = 5000
    stand.line.data_received(b"GET /at-once HTTP/1.1\r\nHost: h\r\n\r\n" * count)
    assert len(stand.transport.sent) == count


async def test_no_request_begins_while_the_client_does_not_read() -> None:
    stand = Stand()
    stand.line.pause_writing()
    stand.line.data_received(POST)
    assert stand.asked == []
    stand.line.resume_writing()
    assert len(stand.asked) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"GET /other HTTP/1.1\r\nHost: h\r\n\r\n",
        POST[:20],
        POST.replace(b"POST", b"HEAD"),
        POST.replace(b"POST", b"post"),
        POST.replace(b"/api/f", b"http://h/api/f"),
        POST.replace(b"?a=1", b"?a=1#b"),
        POST.replace(b"1.1", b"1.0"),
        POST.replace(b"\r\n", b"\n"),
        POST.replace(b"Host: h\r\n", b""),
        POST.replace(b"Host: h", b"Host: h\r\nhost: h"),
        POST.replace(b"Host: h", b"Host : h"),
        POST.replace(b"Host: h", b"Host: h\r\n more"),
        POST.replace(b" v ", b" \xff "),
        POST.replace(b" v ", b" \0 "),
        POST.replace(b"X-Name:  v", b"Connection: close"),
        POST.replace(b"X-Name:  v", b"Connection: upgrade"),
        POST.replace(b"X-Name:  v", b"Transfer-Encoding: chunked"),
        POST.replace(b"X-Name:  v", b"Expect: 100-continue"),
        POST.replace(b"X-Name:  v", b"Upgrade: websocket"),
        POST.replace(b"Length: 3", b"Length: +3"),
        POST.replace(b"Length: 3", b"Length: 3, 3"),
        POST.replace(b"Length: 3", b"Length: %d" % (LIMIT + 1)),
        POST.replace(b"Length: 3", b"Length: " + b"9" * 5000),
        POST.replace(b" v ", b"v" * LONGEST_HEAD),
    ],
)
async def test_what_is_not_plain_is_handed_over_with_all_that_came(data: bytes) -> None:
    stand = Stand()
    stand.line.data_received(data)
    assert stand.handed_over()
    assert stand.other.got == data
    assert stand.asked == []


async def test_a_connection_is_handed_over_after_the_replies_that_are_due() -> None:
    stand = Stand()
    special = POST.replace(b"POST", b"HEAD")
    stand.line.data_received(POST)
    stand.line.data_received(special)
    assert not stand.handed_over()
    await stand.finish()
    assert stand.handed_over()
    assert stand.other.got == special
    assert stand.transport.is_reading()


@pytest.mark.parametrize("line", [b"Connection: keep-alive", b"connection: Keep-Alive"])
async def test_keeping_the_connection_is_nothing_special(line: bytes) -> None:
    stand = Stand()
    stand.line.data_received(POST.replace(b"X-Name:  v", line))
    assert len(stand.asked) == 1


async def test_a_head_that_begins_like_the_last_one_is_read_anew() -> None:
    stand = Stand()
    stand.line.data_received(POST)
    await stand.finish()
    stand.line.data_received(POST.replace(b"X-Name:  v", b"X-Name:  vv"))
    assert [asked.headers["x-name"] for asked in stand.asked] == ["v", "vv"]


async def test_a_reply_that_cannot_be_made_or_written_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    stand = Stand()
    stand.line.data_received(POST)
    await stand.finish(Reply(200, [("a", "b\r\nc: d")], b"x"))
    stand.line.data_received(POST)
    stand.open.pop(0).set_exception(KeyError("k"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [sent.split(b"\r\n")[0] for sent in stand.transport.sent] == [b"HTTP/1.1 500 Internal Server Error"] * 2
    assert caplog.text.count("a request could not be answered") == 2


@pytest.mark.parametrize(("status", "first"), [(204, b"HTTP/1.1 204 No Content"), (304, b"HTTP/1.1 304 Not Modified")])
def test_some_statuses_have_no_body(status: int, first: bytes) -> None:
    data = written(Reply(status), "now")
    assert data.startswith(first)
    assert b"content" not in data.lower().partition(b"\r\n")[2]
    assert data.endswith(b"\r\n\r\n")


def test_a_status_without_a_name_is_written() -> None:
    assert written(Reply(299, [("content-type", "a/b")], b"x"), "now").startswith(b"HTTP/1.1 299 \r\ncontent-type: a/b")


async def test_closing_lets_a_request_end() -> None:
    busy, idle = Stand(), Stand()
    busy.line.data_received(POST)
    idle.line.data_received(POST[:-1])
    closing = [asyncio.create_task(stand.express.close(5)) for stand in (busy, idle)]
    await asyncio.sleep(0)
    assert (busy.transport.closed, idle.transport.closed) == (False, True)
    await busy.finish()
    await asyncio.gather(*closing)
    assert busy.transport.closed
    assert len(busy.transport.sent) == 1


async def test_closing_cuts_off_what_takes_too_long() -> None:
    stand = Stand()
    stand.line.data_received(POST)
    await stand.express.close(0)
    assert stand.transport.closed
    assert stand.transport.sent == []
    assert stand.open[0].cancelled()


async def test_a_client_that_has_gone_gets_nothing_and_begins_nothing() -> None:
    stand = Stand()
    stand.line.data_received(POST + POST)
    stand.transport.close()
    stand.line.connection_lost(None)
    await stand.finish()
    assert stand.transport.sent == []
    assert len(stand.asked) == 1
    assert stand.express.lines == set()


async def test_connections_that_are_idle_for_long_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devhost.express.LOOK_SECONDS", 0.0)
    used, idle = Stand(), Stand()
    idle.line.since -= 2 * KEEP_ALIVE_SECONDS
    await until(lambda: idle.transport.closed)
    assert not used.transport.closed
    for stand in (used, idle):
        await stand.express.close(0)
