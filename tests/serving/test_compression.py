"""Compressed bodies, in and out."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.answers import Answer
from serving.compression import SMALLEST, compressed, decompressed
from serving.errors import BadRequest, BodyTooLarge, ServingError, UnknownEncoding
from serving.limits import Limits
from serving.service import InferenceService
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE, publish
from tests.serving.requests import ROW, body, read

LIMIT = 10_000


@given(st.binary(max_size=LIMIT))
def test_what_was_packed_comes_out(data: bytes) -> None:
    assert decompressed(data, None, LIMIT) == decompressed(data, " Identity ", LIMIT) == data
    assert decompressed(gzip.compress(data), "gzip", LIMIT) == data
    assert decompressed(gzip.compress(data), "X-GZip", LIMIT) == data
    assert decompressed(zlib.compress(data), "deflate", LIMIT) == data


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_what_is_not_packed_is_refused(data: bytes, encoding: str) -> None:
    packed = gzip.compress(data) if encoding == "gzip" else zlib.compress(data)
    with pytest.raises(BadRequest, match="ends in the middle"):
        decompressed(packed[:-1], encoding, LIMIT)
    with pytest.raises(BadRequest, match="goes on after the end"):
        decompressed(packed + b"x", encoding, LIMIT)
    try:
        decompressed(data, encoding, LIMIT)
    except ServingError as exc:
        assert isinstance(exc, BadRequest)  # noqa: PT017 (few texts are valid by chance, the empty one is)


def test_an_encoding_that_is_not_known_is_named() -> None:
    with pytest.raises(UnknownEncoding, match="'br' is not read; gzip and deflate are"):
        decompressed(b"", "br", LIMIT)


def test_a_bomb_stops_at_the_limit() -> None:
    """A hundred megabytes of zeros cost hardly more than the limit."""
    bomb = gzip.compress(b"\0" * 100_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge, match="more than 10,000 bytes without its compression"):
            decompressed(bomb, "gzip", LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 10 * LIMIT + 2 * len(bomb)
    finally:
        tracemalloc.stop()


LONG = Answer(200, b"x" * SMALLEST, {"content-type": "application/json"})


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0.1, deflate;q=0.5", "deflate"),
        ("br", None),
        ("*", "gzip"),
        ("*;q=0", None),
        ("gzip;q=0, *", "deflate"),
        ("gzip;q=x", None),
        ("GZIP", "gzip"),
    ],
)
def test_an_answer_is_packed_as_the_client_wants(accepted: str | None, encoding: str | None) -> None:
    answer = compressed(LONG, {} if accepted is None else {"accept-encoding": accepted})
    assert answer.headers.get("content-encoding") == encoding
    assert decompressed(answer.body, encoding, LIMIT) == LONG.body
    assert answer.headers["content-type"] == "application/json"


def test_a_short_answer_is_left_as_it_is() -> None:
    short = Answer(200, b"x" * (SMALLEST - 1))
    assert compressed(short, {"accept-encoding": "gzip"}) == short


def test_the_service_takes_and_gives_packed_bodies(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    headers = {"content-encoding": "gzip", "accept-encoding": "gzip"}
    packed = service.predict(PIPELINE, gzip.compress(body([ROW] * 100)), headers)
    assert (packed.status, packed.headers["content-encoding"]) == (200, "gzip")
    assert gzip.decompress(packed.body) == service.predict(PIPELINE, body([ROW] * 100)).body
    refused = service.predict(PIPELINE, body([ROW]), headers)
    assert refused.status == 400
    assert "the body is not gzip, as its Content-Encoding says" in read(refused)["error"]["message"]
    assert service.predict(PIPELINE, b"", {"content-encoding": "zstd"}).status == 415


def test_the_limit_holds_for_what_comes_out(blobs: MemoryBlobs, tmp_path: Path) -> None:
    publish(blobs, 1)
    service = InferenceService(blobs, tmp_path, 60.0, lambda: (PIPELINE,), limits=Limits(body_bytes=1000))
    packed = gzip.compress(body([ROW] * 100))
    assert len(packed) < 1000
    answer = service.infer(PIPELINE, packed, headers={"content-encoding": "gzip"})
    assert answer.status == 413
    assert "1,000 bytes without its compression" in read(answer)["error"]
