"""Azurite's access log: which of its lines are blob writes, and following the file as it grows.

A line looks like

    127.0.0.1 - - [24/Nov/2026:08:32:38 +0000] "PUT /devstoreaccount1/training/a%20b.csv?sig=... HTTP/1.1" 201 -

Its query may hold a SAS signature. Only `comp`, `restype` and `snapshot` are read from it; the rest is dropped here.
The log does not show what a batch (`comp=batch`) deletes, so such deletions raise no events.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, unquote

BLOB_CREATED = "Microsoft.Storage.BlobCreated"
BLOB_DELETED = "Microsoft.Storage.BlobDeleted"

BLOB_ALTERED = ""
"""No event in Azure either, but the blob has another eTag from then on."""

READ_BYTES = 256 * 1024
"""Most that one read takes: it bounds the events that one transaction accepts (some 2,000)."""

DIGESTED_BYTES = 4096
"""How much before a place in the log identifies it: some 20 lines with their times."""

_LINE = re.compile(
    rb'^\S+ \S+ \S+ \[([^\]]+)\] "(PUT|DELETE) /([^/ ?"]+)/([^/ ?"]+)/([^ ?"]+)(?:\?([^ "]*))? [^"]*" (\d{3}) '
)
_TIME = "%d/%b/%Y:%H:%M:%S %z"

_APIS: Mapping[tuple[str, str, int], tuple[str, str]] = {
    ("PUT", "", HTTPStatus.CREATED): (BLOB_CREATED, "PutBlob"),
    ("PUT", "", HTTPStatus.ACCEPTED): (BLOB_CREATED, "CopyBlob"),
    ("PUT", "blocklist", HTTPStatus.CREATED): (BLOB_CREATED, "PutBlockList"),
    ("PUT", "metadata", HTTPStatus.OK): (BLOB_ALTERED, "SetBlobMetadata"),
    ("PUT", "properties", HTTPStatus.OK): (BLOB_ALTERED, "SetBlobProperties"),
    ("PUT", "appendblock", HTTPStatus.CREATED): (BLOB_ALTERED, "AppendBlock"),
    ("PUT", "page", HTTPStatus.CREATED): (BLOB_ALTERED, "PutPage"),
    ("DELETE", "", HTTPStatus.ACCEPTED): (BLOB_DELETED, "DeleteBlob"),
}


@dataclass(frozen=True, slots=True)
class BlobWrite:
    """One successful write, change or deletion. `path` is the blob's path as the request had it, percent-encoded."""

    event_type: str
    api: str
    account: str
    container: str
    path: str
    time: datetime

    @property
    def name(self) -> str:
        """The blob's name, decoded."""
        return unquote(self.path)

    @property
    def subject(self) -> str:
        """The subject of the event."""
        return f"/blobServices/default/containers/{self.container}/blobs/{self.name}"


def parse_line(line: bytes) -> BlobWrite | None:
    """The write that a line of the log records; None for anything else."""
    match = _LINE.match(line)
    if match is None:
        return None
    time, method, account, container, path, query, status = (part.decode("ascii", "replace") for part in _parts(match))
    values = parse_qs(query)
    kind = _APIS.get((method, values.get("comp", [""])[0].lower(), int(status)))
    if kind is None or "restype" in values or "snapshot" in values:
        return None
    event_type, api = kind
    return BlobWrite(event_type, api, account, unquote(container), path, datetime.strptime(time, _TIME))  # noqa: DTZ007 (%z is in _TIME)


def _parts(match: re.Match[bytes]) -> tuple[bytes, ...]:
    return tuple(part if part is not None else b"" for part in match.groups())


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a log: `file` identifies it (device and inode), `offset` counts bytes of complete lines read.

    `digest` is of the bytes just before: a file that was truncated and has grown again is told by them. Empty in a
    state folder of an earlier version.
    """

    file: str
    offset: int
    digest: str = ""


class LogFollower:
    """Reads complete lines from where it was left, also across restarts of the writer and of the reader.

    The supervisor moves a log that has grown large aside to NAME.log.1 and starts a new one; the rest of the old one is
    read first. `gap` is set when lines may have been missed: the log was truncated, or replaced by another one.
    """

    def __init__(self, log: Path, start: Position | None) -> None:
        self.log = log
        self.gap = False
        self._position = start
        self._unchanged: tuple[int, ...] | None = None

    def read(self) -> tuple[list[bytes], Position | None]:
        """The complete lines written since the last read (at most about READ_BYTES), and the place behind them.

        An empty list when there is nothing new, or no log yet. The place moves only by `advance`.
        """
        state = _state(self.log)
        if state is not None and state == self._unchanged:
            return [], self._position  # it is asked hundreds of times a second
        aside = self.log.with_name(self.log.name + ".1")
        if self._holds_position(aside):
            lines, position = self._read(aside)
            if lines:
                return lines, position
        elif self._position is not None and self.log.exists() and not self._holds_position(self.log):
            self.gap = True
            self._position = None
        lines, position = self._read(self.log)
        self._unchanged = None if lines else state
        return lines, position

    def end(self) -> Position | None:
        """The end of the log as it is now; None when there is no log yet."""
        file = _identity(self.log)
        return None if file is None else _position(self.log, file, self.log.stat().st_size)

    def advance(self, position: Position) -> None:
        """Everything before `position` is dealt with."""
        self._position = position

    def _holds_position(self, log: Path) -> bool:
        """Whether the place that was reached is in this file, and the file has not been written anew since."""
        at = self._position
        if at is None or at.file != _identity(log):
            return False
        return log.stat().st_size >= at.offset and at.digest in ("", _digest(log, at.offset))

    def _read(self, log: Path) -> tuple[list[bytes], Position | None]:
        at, file = self._position, _identity(log)
        if file is None:
            return [], at
        lines, end = _complete_lines(log, at.offset if at is not None and at.file == file else 0)
        return (lines, _position(log, file, end)) if lines else ([], at)


def _state(log: Path) -> tuple[int, ...] | None:
    """What changes with every write."""
    try:
        state = log.stat()
    except FileNotFoundError:
        return None
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _identity(log: Path) -> str | None:
    try:
        state = log.stat()
    except FileNotFoundError:
        return None
    return f"{state.st_dev}:{state.st_ino}"


def _position(log: Path, file: str, offset: int) -> Position:
    return Position(file, offset, _digest(log, offset))


def _digest(log: Path, offset: int) -> str:
    """Of the last DIGESTED_BYTES before `offset`. A digest, not the bytes: they may hold a signature."""
    start = max(0, offset - DIGESTED_BYTES)
    with log.open("rb") as file:
        file.seek(start)
        return hashlib.blake2b(file.read(offset - start), digest_size=8).hexdigest()


def _complete_lines(log: Path, start: int) -> tuple[list[bytes], int]:
    with log.open("rb") as file:
        file.seek(start)
        data = file.read(READ_BYTES)
    end = data.rfind(b"\n") + 1
    if not end and len(data) == READ_BYTES:  # no request line is that long: pass over it rather than stop for ever
        return [b""], start + len(data)
    return data[:end].splitlines(), start + end
