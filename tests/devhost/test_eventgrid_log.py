from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost.eventgrid.access_log import BLOB_ALTERED, BLOB_CREATED, BLOB_DELETED, LogFollower, Position, parse_line
from devhost.eventgrid.events import BlobProperties, blob_event


def line(request: str, status: int) -> bytes:
    return f'127.0.0.1 - - [24/Nov/2026:08:32:38 +0000] "{request} HTTP/1.1" {status} -'.encode()


@pytest.mark.parametrize(
    ("request_line", "status", "event_type", "api"),
    [
        ("PUT /devstoreaccount1/training/p/a.csv", 201, BLOB_CREATED, "PutBlob"),
        ("PUT /devstoreaccount1/training/p/a.csv?se=2030&sp=cw&sig=TDp%2F", 201, BLOB_CREATED, "PutBlob"),
        ("PUT /devstoreaccount1/training/copy.csv", 202, BLOB_CREATED, "CopyBlob"),
        ("PUT /devstoreaccount1/training/blk.csv?comp=blocklist", 201, BLOB_CREATED, "PutBlockList"),
        ("PUT /devstoreaccount1/training/blk.csv?sig=x&comp=blocklist", 201, BLOB_CREATED, "PutBlockList"),
        ("DELETE /devstoreaccount1/training/a.csv", 202, BLOB_DELETED, "DeleteBlob"),
        ("PUT /devstoreaccount1/training/a.csv?comp=metadata", 200, BLOB_ALTERED, "SetBlobMetadata"),
        ("PUT /devstoreaccount1/training/a.csv?comp=properties", 200, BLOB_ALTERED, "SetBlobProperties"),
        ("PUT /devstoreaccount1/training/a.csv?comp=appendblock", 201, BLOB_ALTERED, "AppendBlock"),
        ("PUT /devstoreaccount1/training/a.csv?comp=page", 201, BLOB_ALTERED, "PutPage"),
    ],
)
def test_writes_are_recognised(request_line: str, status: int, event_type: str, api: str) -> None:
    write = parse_line(line(request_line, status))
    assert write is not None
    assert (write.event_type, write.api, write.container) == (event_type, api, "training")
    assert write.time == datetime(2026, 11, 24, 8, 32, 38, tzinfo=UTC)
    assert "sig" not in repr(write)


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("PUT /devstoreaccount1/training?restype=container", 201),
        ("DELETE /devstoreaccount1/training?restype=container", 202),
        ("PUT /devstoreaccount1/training/a.csv", 409),
        ("PUT /devstoreaccount1/training/a.csv?comp=block&blockid=QUFBQQ%3D%3D", 201),
        ("PUT /devstoreaccount1/training/a.csv?comp=tags", 204),
        ("PUT /devstoreaccount1/training/a.csv?comp=snapshot", 201),
        ("PUT /devstoreaccount1/training/a.csv?comp=lease", 201),
        ("PUT /devstoreaccount1/training/a.csv?comp=tier", 200),
        ("DELETE /devstoreaccount1/training/a.csv", 404),
        ("DELETE /devstoreaccount1/training/a.csv?snapshot=2026-11-24T08%3A32%3A38.0000000Z", 202),
        ("POST /devstoreaccount1/training?restype=container&comp=batch", 202),
        ("GET /devstoreaccount1/training/a.csv", 200),
        ("HEAD /devstoreaccount1/training/a.csv", 200),
        ("PUT /devstoreaccount1/a-queue/messages/1?popreceipt=x", 204),
    ],
)
def test_everything_else_is_not(request_line: str, status: int) -> None:
    assert parse_line(line(request_line, status)) is None


@pytest.mark.parametrize("text", [b"", b"Azurite Blob service is starting at http://127.0.0.1:10000", b"\xff\xfe\x00"])
def test_lines_that_are_no_requests_are_passed_over(text: bytes) -> None:
    assert parse_line(text) is None


@given(st.binary())
def test_no_line_breaks_the_parser(text: bytes) -> None:
    parse_line(text)


def test_names_are_decoded_in_the_subject_and_encoded_in_the_url() -> None:
    write = parse_line(line("PUT /devstoreaccount1/training/p/a%20b%23%C3%A9%3F.csv?sig=secret", 201))
    assert write is not None
    properties = BlobProperties(etag="0x1", content_type="text/csv", length=3, blob_type="BlockBlob")
    event = blob_event(write, properties=properties, endpoint="http://127.0.0.1:10000/devstoreaccount1", sequence=18)
    assert event["subject"] == "/blobServices/default/containers/training/blobs/p/a b#é?.csv"
    assert event["data"]["url"] == "http://127.0.0.1:10000/devstoreaccount1/training/p/a%20b%23%C3%A9%3F.csv"
    assert event["data"]["sequencer"] == "00000000000000000000000000000012"
    assert event["eventTime"] == "2026-11-24T08:32:38Z"
    assert event["topic"].endswith("/providers/Microsoft.Storage/storageAccounts/devstoreaccount1")
    assert "secret" not in str(event)


def read_all(follower: LogFollower) -> list[bytes]:
    found: list[bytes] = []
    while True:
        lines, position = follower.read()
        if not lines or position is None:
            return found
        found += lines
        follower.advance(position)


def test_only_complete_lines_are_read_and_each_once(tmp_path: Path) -> None:
    log = tmp_path / "azurite.log"
    follower = LogFollower(log, None)
    assert read_all(follower) == []
    log.write_bytes(b"one\ntw")
    assert read_all(follower) == [b"one"]
    with log.open("ab") as file:
        file.write(b"o\nthree\n")
    assert read_all(follower) == [b"two", b"three"]
    assert read_all(follower) == []


def test_what_is_not_advanced_over_is_read_again_also_by_the_next_process(tmp_path: Path) -> None:
    log = tmp_path / "azurite.log"
    log.write_bytes(b"one\n")
    follower = LogFollower(log, None)
    lines, position = follower.read()
    assert position is not None
    assert follower.read() == (lines, position)
    with log.open("ab") as file:
        file.write(b"two\n")
    assert read_all(LogFollower(log, position)) == [b"two"]


def test_a_truncated_log_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = tmp_path / "azurite.log"
    log.write_bytes(b"one\ntwo\n")
    follower = LogFollower(log, None)
    read_all(follower)
    log.write_bytes(b"new\n")
    assert read_all(follower) == [b"new"]
    assert follower.gap


def test_a_truncated_log_that_has_grown_again_is_told_by_what_it_holds(tmp_path: Path) -> None:
    log = tmp_path / "azurite.log"
    log.write_bytes(b"one\ntwo\n")
    follower = LogFollower(log, None)
    _, position = follower.read()
    assert position is not None
    log.write_bytes(b"new\nand\nmore\n")  # the same file, longer than the place that was reached
    later = LogFollower(log, position)
    assert read_all(later) == [b"new", b"and", b"more"]
    assert later.gap
    unknown = LogFollower(log, Position(position.file, 4))  # kept by a version that knew no digests
    assert read_all(unknown) == [b"and", b"more"]
    assert not unknown.gap


def test_an_empty_log_is_a_gap_once(tmp_path: Path) -> None:
    log = tmp_path / "azurite.log"
    log.write_bytes(b"one\n")
    follower = LogFollower(log, None)
    read_all(follower)
    gaps = []
    for text in (b"", b"", b"two\n"):
        log.write_bytes(text)
        assert read_all(follower) == text.splitlines()
        gaps.append(follower.gap)
        follower.gap = False
    assert gaps == [True, False, False]


def test_a_log_that_is_away_for_a_while_is_no_gap(tmp_path: Path) -> None:
    log = tmp_path / "azurite.log"
    log.write_bytes(b"one\n")
    follower = LogFollower(log, None)
    read_all(follower)
    log.rename(tmp_path / "azurite.log.1")
    assert read_all(follower) == []
    log.write_bytes(b"two\n")
    assert read_all(follower) == [b"two"]
    assert not follower.gap


def test_a_log_moved_aside_twice_is_a_gap(tmp_path: Path) -> None:
    log = tmp_path / "azurite.log"
    log.write_bytes(b"one\n")
    follower = LogFollower(log, None)
    read_all(follower)
    for text in (b"two\n", b"three\n"):
        log.rename(tmp_path / "azurite.log.1")
        log.write_bytes(text)
    assert read_all(follower) == [b"three"]
    assert follower.gap


def test_the_rest_of_a_log_moved_aside_comes_first(tmp_path: Path) -> None:
    log = tmp_path / "azurite.log"
    log.write_bytes(b"one\ntwo\n")
    follower = LogFollower(log, None)
    read_all(follower)
    with log.open("ab") as file:
        file.write(b"three\n")
    log.rename(tmp_path / "azurite.log.1")
    log.write_bytes(b"four\n")
    assert read_all(follower) == [b"three", b"four"]


def test_a_log_moved_aside_by_somebody_else_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "azurite.log.1").write_bytes(b"old\n")
    (tmp_path / "azurite.log").write_bytes(b"one\n")
    assert read_all(LogFollower(tmp_path / "azurite.log", None)) == [b"one"]


def test_a_long_log_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devhost.eventgrid.access_log.READ_BYTES", 10)
    (tmp_path / "azurite.log").write_bytes(b"one\ntwo\nthree\nx" + b"y" * 25 + b"\nfour\n")
    found = read_all(LogFollower(tmp_path / "azurite.log", None))
    assert found[:3] == [b"one", b"two", b"three"]
    assert found[-1] == b"four"
