"""A text file in blocks of whole records: checked to be text before any of it is parsed, never in memory as a whole."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from models.errors import bounded
from models.rejection import PartitionRejected

MAX_EXPANDED_BYTES = 2 * 1024**3
"""Largest size of a file once expanded: a small archive can hold more than any worker's disk."""
MAX_EXPANSION = 200
"""Largest ratio of a gzip file's content to its size, from MIN_BOMB_BYTES on: data is below 50, a bomb near 1,000."""
MIN_BOMB_BYTES = 64 * 1024**2
STEP_BYTES = 1024**2
"""How much is expanded or checked at once."""
BLOCK_BYTES = 8 * 1024**2
"""How much text is parsed at once: enough to keep the parser busy, some hundred megabytes once it is cells."""
MAX_RECORD_BYTES = 64 * 1024**2
"""Largest record. A quotation mark that is not closed makes one of all that follows it."""
OTHER_FORMATS = {
    b"\xff\xfe": "is UTF-16; save it as UTF-8",
    b"\xfe\xff": "is UTF-16; save it as UTF-8",
    b"PK\x03": "is an Excel workbook or a ZIP archive; save what is in it as CSV",
    b"\xd0\xcf\x11": "is an Excel workbook of an older kind; save what is in it as CSV",
}
"""By the first three bytes of a file, or fewer: what it is instead of text."""
_BLANK = b"\r\n \t"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def gunzip(packed: BinaryIO, into: BinaryIO, *, name: str, limit: int = MAX_EXPANDED_BYTES) -> None:
    """Writes `packed` expanded (any number of gzip members), in steps, so that a bomb is stopped at `limit` bytes."""
    size = 0
    packed_size = packed.seek(0, 2)
    packed.seek(0)
    try:
        with gzip.GzipFile(fileobj=packed) as content:
            while part := content.read(STEP_BYTES):
                size += len(part)
                if is_bomb(size, packed_size, limit):
                    refuse_bomb(name, limit)
                into.write(part)
    except (zlib.error, EOFError, gzip.BadGzipFile) as exc:
        raise PartitionRejected(
            name, "not_readable", f"is not a whole gzip file ({bounded(exc)}); was the upload cut off?"
        ) from exc


def is_bomb(size: int, packed: int, limit: int) -> bool:
    """Whether `packed` bytes that expand to `size` are more than anybody's data."""
    return size > limit or (size > MIN_BOMB_BYTES and size > MAX_EXPANSION * packed)


def refuse_bomb(name: str, limit: int) -> NoReturn:
    raise PartitionRejected(name, "too_large", f"expands to more than {limit:,} bytes, or out of proportion")


@dataclass(frozen=True, slots=True)
class Text:
    """The bytes `begin` to `end` of `file`: UTF-8 without a byte order mark and without blank lines behind it.

    With `returns`, lone carriage returns end its lines; blocks and lines have line feeds instead.
    """

    file: BinaryIO
    name: str
    begin: int
    end: int
    returns: bool

    def first_line(self) -> tuple[bytes, int]:
        """The first line, without its end, and where the next one begins (`end` if there is none)."""
        self.file.seek(self.begin)
        most = min(MAX_RECORD_BYTES, self.end - self.begin)
        line = self.file.read(most).partition(b"\r")[0] if self.returns else self.file.readline(most)
        after = min(self.begin + len(line) + self.returns, self.end)
        return line.removesuffix(b"\n").removesuffix(b"\r"), after

    def blocks(self, begin: int, *, quoted: bool) -> Iterator[bytes]:
        """The records from `begin` on, some at a time; all blocks but the last end with a line feed.

        With `quoted`, line ends between quotation marks do not end a record. Raises PartitionRejected for a record that
        is larger than MAX_RECORD_BYTES.
        """
        self.file.seek(begin)
        left, held = self.end - begin, b""
        while left:
            block = self.file.read(min(BLOCK_BYTES, left))
            left -= len(block)
            held += block.replace(b"\r", b"\n") if self.returns else block
            end = _last_record_end(held, quoted=quoted) if left else len(held)
            if end:
                yield held[:end]
                held = held[end:]
            elif len(held) > MAX_RECORD_BYTES:
                detail = f"has a record of more than {MAX_RECORD_BYTES // 1024**2} MB"
                hint = "; look for a quotation mark that is not closed" if quoted else ""
                raise PartitionRejected(self.name, "not_readable", detail + hint)


def check_text(file: BinaryIO, *, name: str) -> Text:
    """The text of a file. Raises PartitionRejected when it is none (not_text), or blank (empty)."""
    file.seek(0)
    beginning = file.read(len(_BYTE_ORDER_MARK))
    _refuse_other_formats(beginning, name)
    begin = len(_BYTE_ORDER_MARK) if beginning == _BYTE_ORDER_MARK else 0
    decoder = codecs.getincrementaldecoder("utf-8")()
    at = end = lines = 0
    first = {b"\0": -1, b"\n": -1, b"\r": -1}
    file.seek(0)
    while block := file.read(STEP_BYTES):
        kept = len(decoder.getstate()[0])
        try:
            decoder.decode(block)
        except UnicodeDecodeError as exc:
            _refuse_encoding(name, lines + block.count(b"\n", 0, max(0, exc.start - kept)), at - kept + exc.start, exc)
        for byte, place in first.items():
            if place < 0 and byte in block:
                first[byte] = at + block.index(byte)
        if content := len(block.rstrip(_BLANK)):
            end = at + content
        lines += block.count(b"\n")
        at += len(block)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as exc:
        _refuse_encoding(name, lines, at - len(exc.object), exc)
    if first[b"\0"] >= 0:
        raise PartitionRejected(name, "not_text", "holds NUL characters, so it is not text; was it renamed?")
    if end <= begin:
        raise PartitionRejected(name, "empty", "holds nothing but blank lines")
    return Text(file, name, begin, end, returns=not 0 <= first[b"\n"] < end and 0 <= first[b"\r"] < end)


def _last_record_end(text: bytes, *, quoted: bool) -> int:
    """Where the last record ends whose line feed is in `text`, or 0.

    One beside a blank line does not count: parsers drop such lines at the ends of what they are given, but not within.
    """
    blank_first = 1 if text.startswith(b"\r\n") else 0  # where the first line ends, if it is blank
    at, after = text.rfind(b"\n"), len(text)
    inside = quoted and text.count(b'"') % 2 == 1
    while at >= 0:
        inside ^= quoted and text.count(b'"', at, after) % 2 == 1
        blank_before = at == blank_first or text.endswith((b"\n", b"\n\r"), 0, at)
        blank_after = at + 1 == len(text) or text.startswith((b"\n", b"\r"), at + 1)
        if not inside and not blank_before and not blank_after:
            return at + 1
        at, after = text.rfind(b"\n", 0, at), at
    return 0


def _refuse_other_formats(beginning: bytes, name: str) -> None:
    for sign, words in OTHER_FORMATS.items():
        if beginning.startswith(sign):
            raise PartitionRejected(name, "not_text", words)
    if beginning.startswith(b"\x1f\x8b"):
        packed = "twice: compress it once" if name.lower().endswith(".gz") else "with gzip: name it .csv.gz"
        raise PartitionRejected(name, "not_text", f"is compressed {packed}")


def _refuse_encoding(name: str, lines_before: int, byte: int, exc: UnicodeDecodeError) -> NoReturn:
    raise PartitionRejected(
        name, "not_text", f"is not UTF-8 text (line {lines_before + 1}, byte {byte}); save it as UTF-8"
    ) from exc
