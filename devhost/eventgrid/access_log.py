"""Azurite's access log: which of its lines are blob writes, and following the file as it grows.

A line looks like

    127.0.0.1 - - [24/Nov/2026:08:32:38 +0000] "PUT /devstoreaccount1/training/a%20b.csv?sig=... HTTP/1.1" 201 -

Its query may hold a SAS signature. Only `comp`, `restype` and `snapshot` are read from it; the rest is dropped here.
The log does not show what a batch (`comp=batch`) deletes, so such deletions raise no events.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, unquote

BLOB_CREATED = "Microsoft.Storage.BlobCreated"
BLOB_DELETED = "Microsoft.Storage.BlobDeleted"

READ_BYTES = 256 * 1024
"""Most that one read takes: it bounds the events that one transaction accepts (some 2,000)."""

_LINE = re.compile(
    rb'^\S+ \S+ \S+ \[([^\]]+)\] "(PUT|DELETE) /([^/ ?"]+)/([^/ ?"]+)/([^ ?"]+)(?:\?([^ "]*))? [^"]*" (\d{3}) '
)
_TIME = "%d/%b/%Y:%H:%M:%S %z"

_APIS: Mapping[tuple[str, str, int], tuple[str, str]] = {
    ("PUT", "", HTTPStatus.CREATED): (BLOB_CREATED, "PutBlob"),
    ("PUT", "", HTTPStatus.ACCEPTED): (BLOB_CREATED, "CopyBlob"),
    ("PUT", "blocklist", HTTPStatus.CREATED): (BLOB_CREATED, "PutBlockList"),
    ("DELETE", "", HTTPStatus.ACCEPTED): (BLOB_DELETED, "DeleteBlob"),
}


@dataclass(frozen=True, slots=True)
class BlobWrite:
    """One successful write or deletion. `path` is the blob's path as the request had it, percent-encoded."""

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
    """A place in a log: `file` identifies it (device and inode), `offset` counts bytes of complete lines read."""

    file: str
    offset: int


class LogFollower:
    """Reads complete lines from where it was left, also across restarts of the writer and of the reader.

    The supervisor moves a log that has grown large aside to NAME.log.1 and starts a new one; the rest of the old one is
    read first.
    """

    def __init__(self, log: Path, start: Position | None) -> None:
        self.log = log
        self._position = start

    def read(self) -> tuple[list[bytes], Position | None]:
        """The complete lines written since the last read (at most about READ_BYTES), and the place behind them.

        An empty list when there is nothing new, or no log yet. The place moves only by `advance`.
        """
        for candidate in (self.log.with_name(self.log.name + ".1"), self.log):
            current = _identity(candidate)
            if current is None or (candidate != self.log and not self._is_at(current)):
                continue
            at = self._position
            start = at.offset if at is not None and at.file == current.file and at.offset <= current.offset else 0
            lines, end = _complete_lines(candidate, start)
            if lines:
                return lines, Position(current.file, end)
        return [], self._position

    def end(self) -> Position | None:
        """The end of the log as it is now; None when there is no log yet."""
        return _identity(self.log)

    def advance(self, position: Position) -> None:
        """Everything before `position` is dealt with."""
        self._position = position

    def _is_at(self, current: Position) -> bool:
        return self._position is not None and self._position.file == current.file


def _identity(log: Path) -> Position | None:
    try:
        state = log.stat()
    except FileNotFoundError:
        return None
    return Position(f"{state.st_dev}:{state.st_ino}", state.st_size)


def _complete_lines(log: Path, start: int) -> tuple[list[bytes], int]:
    with log.open("rb") as file:
        file.seek(start)
        data = file.read(READ_BYTES)
    end = data.rfind(b"\n") + 1
    if not end and len(data) == READ_BYTES:  # no request line is that long: pass over it rather than stop for ever
        return [b""], start + len(data)
    return data[:end].splitlines(), start + end
