"""Bytes of an uploaded file to the raw rows in it, or a PartitionRejected that says what is wrong with the file.

CSV and JSON Lines come back as text, cell by cell, so that one bad cell can reject one row and not the file; Parquet
keeps its own types. Every row of the file is in the frame: a reader that disagrees about the number of rows rejects
the file rather than losing any.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NoReturn

import polars as pl

from models.errors import RatchetError, bounded

if TYPE_CHECKING:
    from models.partitions import CleanPartition

RejectionCode = Literal[
    "unknown_type",
    "empty",
    "not_readable",
    "not_text",
    "missing_columns",
    "no_rows",
    "too_many_bad_rows",
    "too_many_categories",
    "label_failed",
    "filter_failed",
    "not_processed",
    "too_large",
]
EXTENSIONS = (".csv", ".csv.gz", ".parquet", ".jsonl")
ROW = "__row"
REASON = "__reason"

MAX_EXPANDED_BYTES = 2 * 1024**3
"""Largest size of a file once expanded: a small archive can hold more than any worker's memory."""
MAX_EXPANSION = 200
"""Largest ratio of a gzip file's content to its size, from MIN_BOMB_BYTES on: data is below 50, a bomb near 1,000."""
MIN_BOMB_BYTES = 64 * 1024**2
EXPANSION_STEP_BYTES = 1024**2
"""How much is expanded between two looks at the limit."""
BYTES_PER_CELL = 8
"""What a Parquet cell is reckoned at: run lengths can hide a billion of them in a kilobyte."""
MAX_NAMED_COLUMNS = 40
"""Most column names that a message lists."""


class PartitionRejected(RatchetError):
    """A file cannot be used as a whole.

    `name` is the file's, `code` the kind of mistake, `detail` a sentence about it, `columns` the columns concerned.
    `partition` holds the rows when the file could be read but has too many bad ones.
    """

    def __init__(
        self,
        name: str,
        code: RejectionCode,
        detail: str,
        *,
        columns: Sequence[str] = (),
        partition: CleanPartition | None = None,
    ) -> None:
        super().__init__(f"{name} {detail}")
        self.name, self.code, self.detail = name, code, detail
        self.columns, self.partition = tuple(columns), partition


def read_rows(data: bytes, *, name: str, columns: Sequence[str]) -> tuple[pl.DataFrame, pl.Series | None]:
    """The raw rows of the file and, for CSV, how many fields each line has (UInt32 [N]) where that is wrong.

    `name` decides the type by its extension; `columns` are the ones that must be there. The second is None when every
    line has as many fields as the header; otherwise it is null for the rows that have. Raises PartitionRejected.
    """
    kind = next((ext for ext in sorted(EXTENSIONS, key=len, reverse=True) if name.lower().endswith(ext)), None)
    if kind is None:
        raise PartitionRejected(name, "unknown_type", f"is of an unknown type; upload {', '.join(EXTENSIONS)}")
    if not data:
        raise PartitionRejected(name, "empty", "is empty (0 bytes)")
    if kind == ".parquet":
        return _read_parquet(data, name, columns), None
    text = check_text(gunzip(data, name=name) if kind == ".csv.gz" else data, name=name)
    return (_read_jsonl(text, name, columns), None) if kind == ".jsonl" else _read_csv(text, name, columns)


def gunzip(data: bytes, *, name: str, limit: int = MAX_EXPANDED_BYTES) -> bytes:
    """`data` expanded (any number of gzip members), in steps, so that a bomb is stopped at `limit` bytes."""
    parts: list[bytes] = []
    size = 0
    try:
        for part in _expand(data):
            size += len(part)
            if size > limit or (size > MIN_BOMB_BYTES and size > MAX_EXPANSION * len(data)):
                raise PartitionRejected(
                    name, "too_large", f"expands to more than {limit:,} bytes, or out of proportion"
                )
            parts.append(part)
    except (zlib.error, EOFError) as exc:
        raise PartitionRejected(
            name, "not_readable", f"is not a whole gzip file ({bounded(exc)}); was the upload cut off?"
        ) from exc
    return b"".join(parts)


def _expand(data: bytes) -> Iterator[bytes]:
    rest = data
    while rest.strip(b"\0"):
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            # At most one step comes out at once; what was not taken in yet is in unconsumed_tail.
            part = member.decompress(rest, EXPANSION_STEP_BYTES)
            rest = member.unconsumed_tail
            if not part and not rest and not member.eof:
                raise EOFError("it ends in the middle")
            yield part
        rest = member.unused_data


def check_text(data: bytes, *, name: str) -> bytes:
    """`data` as UTF-8 without a byte order mark, trailing blank lines and lone carriage returns as line ends."""
    if data.startswith(b"\x1f\x8b"):
        raise PartitionRejected(name, "not_text", "is compressed with gzip; name it .csv.gz")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise PartitionRejected(name, "not_text", "is UTF-16; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise PartitionRejected(
            name, "not_text", f"is not UTF-8 text (line {line}, byte {exc.start}); save it as UTF-8"
        ) from exc
    if "\0" in text:
        raise PartitionRejected(name, "not_text", "holds NUL characters, so it is not text; was it renamed?")
    clean = data.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n \t")
    if b"\n" not in clean and b"\r" in clean:
        clean = clean.replace(b"\r", b"\n")
    if not clean:
        raise PartitionRejected(name, "empty", "holds nothing but blank lines")
    return clean


def _read_csv(text: bytes, name: str, columns: Sequence[str]) -> tuple[pl.DataFrame, pl.Series | None]:
    first, _, body = text.partition(b"\n")
    header = _header(first.decode().rstrip("\r"), name, columns)
    hint = "; its fields look separated by semicolons, use commas" if len(header) == 1 and ";" in header[0] else ""
    require_columns(name, columns, header, hint=hint)
    if not body:
        raise PartitionRejected(name, "no_rows", "has a header and no rows")
    fields = _fields_per_line(body)
    numbered = ",".join(f"c{index}" for index in range(len(header))).encode()
    try:
        frame = pl.read_csv(numbered + b"\n" + body, infer_schema=False, truncate_ragged_lines=True)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        _unreadable(name, "is not well-formed CSV; look for a quotation mark that is not closed", exc)
    if frame.height != fields.len():
        raise PartitionRejected(
            name, "not_readable", f"is not well-formed CSV: {fields.len()} lines, {frame.height} rows; check its quotes"
        )
    frame.columns = header
    wrong = fields != len(header)
    return frame, fields.set(~wrong, None) if wrong.any() else None


def _header(line: str, name: str, columns: Sequence[str]) -> list[str]:
    """Column names, stripped. One that the pipeline does not need and that is empty or given twice gets a number."""
    try:
        names = [cell.strip() for cell in next(csv.reader([line], strict=True))]
    except (csv.Error, StopIteration) as exc:
        raise PartitionRejected(name, "not_readable", f"has a header that is not CSV ({bounded(exc)})") from exc
    twice = [column for column in columns if names.count(column) > 1]
    if twice:
        detail = f"has more than one column `{twice[0]}`; which one is meant?"
        raise PartitionRejected(name, "not_readable", detail, columns=twice)
    return [
        column if column and names.count(column) == 1 else f"{column}#{index}" for index, column in enumerate(names, 1)
    ]


def _fields_per_line(body: bytes) -> pl.Series:
    """UInt32 [N]: fields of every record. Counted apart from the parser, which pads and cuts lines in silence."""
    skeleton = re.sub(rb'"[^"]*"', b"_", body) if b'"' in body else body
    return pl.read_lines(skeleton).to_series().str.count_matches(",", literal=True) + 1


def _read_jsonl(text: bytes, name: str, columns: Sequence[str]) -> pl.DataFrame:
    lines = [line for line in text.split(b"\n") if line.strip()]
    first = _json_object(lines[0], 1, name)
    found = list(dict.fromkeys([*first, *columns]))
    try:
        frame = pl.read_ndjson(text, schema=dict.fromkeys(found, pl.String))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        for number, line in enumerate(text.split(b"\n"), 1):
            if line.strip():
                _json_object(line, number, name)
        _unreadable(name, "is not JSON Lines (one object on each line)", exc)
    if frame.height != len(lines):
        raise PartitionRejected(
            name, "not_readable", f"is not JSON Lines: {len(lines)} lines hold {frame.height} objects; use one a line"
        )
    # A column that is null throughout is missing only if no line has its key.
    present = [
        column
        for column in found
        if column in first or frame[column].null_count() < frame.height or json.dumps(column).encode() in text
    ]
    require_columns(name, columns, present)
    return frame


def _json_object(line: bytes, number: int, name: str) -> dict[str, object]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON, write null")

    try:
        value = json.loads(line, parse_constant=refuse)
    except (ValueError, RecursionError) as exc:
        raise PartitionRejected(name, "not_readable", f"is not JSON on line {number}: {bounded(exc)}") from exc
    if not isinstance(value, dict):
        raise PartitionRejected(name, "not_readable", f"holds no JSON object on line {number}; use one object a line")
    return value


def _read_parquet(data: bytes, name: str, columns: Sequence[str]) -> pl.DataFrame:
    try:
        found = list(pl.read_parquet_schema(io.BytesIO(data)))
        require_columns(name, columns, found)
        rows = pl.scan_parquet(io.BytesIO(data)).select(pl.len()).collect().item()
        if rows * len(found) * BYTES_PER_CELL > MAX_EXPANDED_BYTES:
            raise PartitionRejected(name, "too_large", f"expands to more than {MAX_EXPANDED_BYTES} bytes")
        frame = pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as exc:
        _unreadable(name, "is not a readable Parquet file; was the upload cut off?", exc)
    if frame.height == 0:
        raise PartitionRejected(name, "no_rows", "has columns and no rows")
    return frame


def require_columns(name: str, needed: Sequence[str], found: Sequence[str], *, hint: str = "") -> None:
    """Raises PartitionRejected (missing_columns) unless every needed column was found."""
    missing = [column for column in needed if column not in found]
    if not missing:
        return
    listed = "column " if len(missing) == 1 else "columns "
    listed += ", ".join(f"`{column}`" for column in missing[:MAX_NAMED_COLUMNS])
    raise PartitionRejected(
        name,
        "missing_columns",
        f"has no {listed}{hint}; the pipeline needs: {_names(needed)}; columns found: {_names(found)}",
        columns=missing,
    )


def _names(columns: Sequence[str]) -> str:
    shown = [bounded(column, 60) for column in columns[:MAX_NAMED_COLUMNS]]
    more = f" and {len(columns) - len(shown)} more" if len(columns) > len(shown) else ""
    return ", ".join(shown) + more


def _unreadable(name: str, detail: str, exc: BaseException) -> NoReturn:
    # The parser's first line says what is wrong; the others advise on its own options.
    first = next(iter(str(exc).splitlines()), type(exc).__name__)
    raise PartitionRejected(name, "not_readable", f"{detail} ({bounded(first, 200)})") from exc
