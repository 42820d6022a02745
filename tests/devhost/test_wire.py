from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost import wire
from devhost.errors import FrameInvalid
from devhost.protocol import FunctionInfo, Invocation, Outcome

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=10,
)


@given(st.lists(st.tuples(st.just("kind"), plain), max_size=5), st.integers(1, 40))
def test_frames_come_out_as_they_went_in_however_the_socket_cuts_them(frames: list[wire.Frame], piece: int) -> None:
    data = b"".join(wire.encode(frame) for frame in frames)
    reader = wire.FrameReader()
    received = [frame for i in range(0, len(data), piece) for frame in reader.feed(data[i : i + piece])]
    assert received == frames


def test_a_frame_with_anything_but_plain_values_is_refused() -> None:
    class Text(str):
        __slots__ = ()

    for value in (object(), Text("x")):
        with pytest.raises(FrameInvalid, match="not plain"):
            wire.encode(("outcome", value))


def through_the_wire(frame: wire.Frame) -> wire.Frame:
    (received,) = wire.FrameReader().feed(wire.encode(frame))
    return received


def test_invocations_outcomes_and_functions_survive_the_wire() -> None:
    http: tuple[str, Any] = ("http", ("GET", "http://x/", {"a": "b"}, b"\0body", {}, {}))
    invocation = Invocation("id", (("req", http),), {"m": ("json", "1")}, trace_parent="00-1", retry_count=1)
    assert wire.read_invoke(through_the_wire(wire.invoke_frame("i1", invocation))) == ("i1", invocation)
    outcome = Outcome(ok=False, value=("json", "{}"), outputs=(("o", ("bytes", b"x")),), error="E: m", traceback="t")
    assert wire.read_outcome(through_the_wire(wire.outcome_frame("i2", outcome))) == ("i2", outcome)
    functions = (FunctionInfo("id", "f", ({"type": "timerTrigger", "name": "t"},), {"max_retry_count": 2}),)
    assert wire.read_ready(through_the_wire(wire.ready_frame(functions))) == functions


class _Counted(asyncio.Protocol):
    """The other end: the frames that came, and in how many pieces."""

    def __init__(self) -> None:
        self.reader = wire.FrameReader()
        self.frames: list[wire.Frame] = []
        self.closed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.frames += self.reader.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


@pytest.mark.parametrize("held", [[True] * 50, [False] * 50, [True, False] * 25, [True, True, False, True]])
async def test_frames_that_wait_for_each_other_arrive_in_order_and_before_the_end(held: list[bool]) -> None:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    _, sending = await loop.create_unix_connection(lambda: wire.Connection(lambda _: None, lambda: None), sock=ours)
    _, receiving = await loop.create_unix_connection(_Counted, sock=theirs)
    sent: list[wire.Frame] = []
    for number, more_soon in enumerate(held):
        sent.append((wire.LOG, str(number)))
        sending.send(sent[-1], more_soon=more_soon)
        if number % 7 == 0:
            await asyncio.sleep(0)
    sending.close()
    await asyncio.wait_for(receiving.closed.wait(), 10)
    assert receiving.frames == sent


async def test_frames_of_one_turn_go_out_together() -> None:
    written: list[bytes] = []

    class Transport(asyncio.WriteTransport):
        def write(self, data: object) -> None:
            written.append(bytes(data))  # type: ignore[call-overload]

    connection = wire.Connection(lambda _: None, lambda: None)
    connection.connection_made(Transport())
    for _ in range(3):
        connection.send((wire.STOP,), more_soon=True)
    assert written == []
    await asyncio.sleep(0)
    assert written == [wire.encode((wire.STOP,)) * 3]
    connection.send((wire.STOP,))
    assert len(written) == 2, "one without company goes out at once"
