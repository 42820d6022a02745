"""Frames between the host and a worker process: a length, then one plain tuple.

Marshal carries tuples, lists, dictionaries, strings, bytes, numbers, booleans and None and nothing else, so neither
side can smuggle its own classes to the other, and both ends run the same interpreter, which is all marshal asks for.

Host to worker: `invoke_frame`, and STOP. Worker to host: READY with the functions, FAILED with a traceback, `log_frame`
and `outcome_frame`.
"""

from __future__ import annotations

import asyncio
import marshal
import struct
from collections.abc import Callable, Mapping
from typing import Any, cast

from devhost.errors import FrameInvalid
from devhost.protocol import FunctionInfo, Invocation, Outcome

type Frame = tuple[Any, ...]

INVOKE = "invoke"
STOP = "stop"
READY = "ready"
FAILED = "failed"
LOG = "log"
OUTCOME = "outcome"

_LENGTH = struct.Struct("!I")
LONGEST_FRAME = 2**31 - 1
"""Bytes in one frame: twenty times the largest HTTP body that the host takes."""


def encode(frame: Frame) -> bytes:
    """The bytes of a frame, length first. Raises FrameInvalid when it holds anything but plain values."""
    try:
        payload = marshal.dumps(frame)
    except ValueError as error:
        raise FrameInvalid(f"a {frame[0]!r} frame holds a value that is not plain: {error}") from error
    if len(payload) > LONGEST_FRAME:
        raise FrameInvalid(f"a {frame[0]!r} frame of {len(payload)} bytes is too long")
    return _LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Puts frames together from whatever pieces the socket delivers."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes."""
        if not self._buffer and len(data) > _LENGTH.size and _LENGTH.unpack_from(data)[0] == len(data) - _LENGTH.size:
            return [marshal.loads(memoryview(data)[_LENGTH.size :])]  # noqa: S302  (our own child's)
        self._buffer += data
        frames: list[Frame] = []
        position = 0
        while len(self._buffer) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, position)
            end = position + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            with memoryview(self._buffer) as view:
                frames.append(marshal.loads(view[position + _LENGTH.size : end]))  # noqa: S302  (our own child's)
            position = end
        if position:
            del self._buffer[:position]
        return frames


class Connection(asyncio.Protocol):
    """One end of the socket. `on_frame` gets every frame, `on_close` is told once when the other end has gone."""

    def __init__(self, on_frame: Callable[[Frame], None], on_close: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_close = on_close
        self._reader = FrameReader()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # those of uvloop do not say that they are

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_close()

    def data_received(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            self._on_frame(frame)

    def send(self, frame: Frame) -> None:
        """Sends without waiting. After the other end has gone, nothing: `on_close` says so."""
        data = encode(frame)
        if self._transport is not None:
            self._transport.write(data)

    def close(self) -> None:
        """Closes this end, after what was sent has gone out."""
        if self._transport is not None:
            self._transport.close()


def invoke_frame(invocation_id: str, invocation: Invocation) -> Frame:
    """Host to worker: run this."""
    return (
        INVOKE,
        invocation_id,
        invocation.function_id,
        tuple(invocation.inputs),
        dict(invocation.metadata),
        invocation.trace_parent,
        invocation.trace_state,
        invocation.retry_count,
        invocation.max_retry_count,
    )


def read_invoke(frame: Frame) -> tuple[str, Invocation]:
    """The invocation's id and the invocation, out of `invoke_frame`."""
    _, invocation_id, function_id, inputs, metadata, trace_parent, trace_state, retry_count, max_retry_count = frame
    return invocation_id, Invocation(
        function_id=function_id,
        inputs=inputs,
        metadata=metadata,
        trace_parent=trace_parent,
        trace_state=trace_state,
        retry_count=retry_count,
        max_retry_count=max_retry_count,
    )


def outcome_frame(invocation_id: str, outcome: Outcome) -> Frame:
    """Worker to host: how an invocation ended."""
    return (OUTCOME, invocation_id, outcome.ok, outcome.value, outcome.outputs, outcome.error, outcome.traceback)


def read_outcome(frame: Frame) -> tuple[str, Outcome]:
    """The invocation's id and its outcome, out of `outcome_frame`."""
    _, invocation_id, ok, value, outputs, error, trace = frame
    return invocation_id, Outcome(ok=ok, value=value, outputs=outputs, error=error, traceback=trace)


def ready_frame(functions: tuple[FunctionInfo, ...]) -> Frame:
    """Worker to host: the app is loaded, and these are its functions."""
    return (READY, tuple((f.id, f.name, f.bindings, _plain(f.retry)) for f in functions))


def read_ready(frame: Frame) -> tuple[FunctionInfo, ...]:
    """The functions, out of `ready_frame`."""
    return tuple(FunctionInfo(id=i, name=name, bindings=bindings, retry=retry) for i, name, bindings, retry in frame[1])


def log_frame(invocation_id: str, level: int, logger: str, message: str) -> Frame:
    """Worker to host: a log record. `invocation_id` is empty outside an invocation."""
    return (LOG, invocation_id, level, logger, message)


def _plain(retry: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if retry is None else dict(retry)
