from __future__ import annotations

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
