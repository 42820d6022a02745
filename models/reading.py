"""An uploaded file to the raw rows in it, batch after batch, or a PartitionRejected that says what is wrong with it.

CSV and JSON Lines come back as text, cell by cell, so that one bad cell can reject one row and not the file; Parquet
keeps its own types. Every row of the file is in a batch: a reader that disagrees about the number of rows rejects the
file rather than losing any. No file is in memory as a whole.
"""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn, cast

import polars as pl
import pyarrow.parquet as pq

from models.errors import bounded
from models.rejection import PartitionRejected, require_columns, unreadable
from models.text_files import MAX_EXPANDED_BYTES, Text, check_text, gunzip, is_bomb, refuse_bomb

EXTENSIONS = (".csv", ".csv.gz", ".parquet", ".jsonl")
ROW = "__row"
REASON = "__reason"

BYTES_PER_CELL = 8
"""What a Parquet cell is reckoned at: run lengths can hide a billion of them in a kilobyte."""
BATCH_CELLS = 2**20
"""How many cells of a Parquet file are read at once."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive raw rows of a file.

    `fields` (UInt32 [N]) is how many fields a CSV's line has where that is wrong, and null for the others; None where
    all lines have as many as the header.
    """

    rows: pl.DataFrame
    fields: pl.Series | None = None


def read_batches(file: Path, *, name: str, columns: Sequence[str]) -> Iterator[Batch]:
    """The rows of `file` in its order; all batches have the same columns.

    `name` decides the type by its extension; `columns` are the ones that must be there. Raises PartitionRejected.
    """
    kind = next((ext for ext in sorted(EXTENSIONS, key=len, reverse=True) if name.lower().endswith(ext)), None)
    if kind is None:
        raise PartitionRejected(name, "unknown_type", f"is of an unknown type; upload {', '.join(EXTENSIONS)}")
    if not file.stat().st_size:
        raise PartitionRejected(name, "empty", "is empty (0 bytes)")
    if kind == ".parquet":
        yield from _parquet_batches(file, name, columns)
        return
    with ExitStack() as stack:
        stream: BinaryIO = stack.enter_context(file.open("rb"))
        if kind == ".csv.gz":
            expanded = cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile(prefix="ratchet-")))
            gunzip(stream, expanded, name=name)
            stream = expanded
        text = check_text(stream, name=name)
        yield from (_jsonl_batches if kind == ".jsonl" else _csv_batches)(text, name, columns)


def _csv_batches(text: Text, name: str, columns: Sequence[str]) -> Iterator[Batch]:
    first, after = text.first_line()
    header = _header(first.decode(), name, columns)
    hint = "; its fields look separated by semicolons, use commas" if len(header) == 1 and ";" in header[0] else ""
    require_columns(name, columns, header, hint=hint)
    if after == text.end:
        raise PartitionRejected(name, "no_rows", "has a header and no rows")
    for body in text.blocks(after, quoted=True):
        yield _csv_batch(body, header, name)


def _csv_batch(body: bytes, header: list[str], name: str) -> Batch:
    fields = _fields_per_line(body)
    numbered = ",".join(f"c{index}" for index in range(len(header))).encode()
    try:
        frame = pl.read_csv(numbered + b"\n" + body, infer_schema=False, truncate_ragged_lines=True)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        unreadable(name, "is not well-formed CSV; look for a quotation mark that is not closed", exc)
    if frame.height != fields.len():
        raise PartitionRejected(
            name, "not_readable", f"is not well-formed CSV: {fields.len()} lines, {frame.height} rows; check its quotes"
        )
    frame.columns = header
    wrong = fields != len(header)
    return Batch(frame, fields.set(~wrong, None) if wrong.any() else None)


def _header(line: str, name: str, columns: Sequence[str]) -> list[str]:
    """Column names, stripped. One that the pipeline does not need and that is empty or given twice gets a number."""
    try:
        names = [cell.strip() for cell in next(csv.reader([line], strict=True))]
    except (csv.Error, StopIteration) as exc:
        raise PartitionRejected(name, "not_readable", f"has a header that is not CSV ({bounded(exc)})") from exc
    times = Counter(names)
    twice = [column for column in columns if times[column] > 1]
    if twice:
        detail = f"has more than one column `{twice[0]}`; which one is meant?"
        raise PartitionRejected(name, "not_readable", detail, columns=twice)
    return [column if column and times[column] == 1 else f"{column}#{index}" for index, column in enumerate(names, 1)]


def _fields_per_line(body: bytes) -> pl.Series:
    """UInt32 [N]: fields of every record. Counted apart from the parser, which pads and cuts lines in silence."""
    skeleton = re.sub(rb'"[^"]*"', b"_", body) if b'"' in body else body
    return pl.read_lines(skeleton).to_series().str.count_matches(",", literal=True) + 1


def _jsonl_batches(text: Text, name: str, columns: Sequence[str]) -> Iterator[Batch]:
    found: list[str] = []
    present: set[str] = set()
    number = 1
    for block in text.blocks(text.begin, quoted=False):
        lines = [line for line in block.split(b"\n") if line.strip()]
        if not found:
            first = _json_object(lines[0], 1, name)
            found = list(dict.fromkeys([*first, *columns]))
            present.update(first)
        frame = _json_rows(block, found, name, number, len(lines))
        # A column that is null throughout is missing only if no line has its key.
        present.update(
            column
            for column in found
            if column not in present
            and (frame[column].null_count() < frame.height or json.dumps(column).encode() in block)
        )
        yield Batch(frame)
        number += block.count(b"\n")
    require_columns(name, columns, [column for column in found if column in present])


def _json_rows(block: bytes, found: Sequence[str], name: str, number: int, objects: int) -> pl.DataFrame:
    """The `objects` in the lines of `block`, the first of which is the file's line `number`."""
    try:
        frame = pl.read_ndjson(block, schema=dict.fromkeys(found, pl.String))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        for place, line in enumerate(block.split(b"\n"), number):
            if line.strip():
                _json_object(line, place, name)
        unreadable(name, "is not JSON Lines (one object on each line)", exc)
    if frame.height != objects:
        raise PartitionRejected(
            name, "not_readable", f"is not JSON Lines: {objects} lines hold {frame.height} objects; use one a line"
        )
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


def _parquet_batches(file: Path, name: str, columns: Sequence[str]) -> Iterator[Batch]:
    def read[T](what: Callable[[], T]) -> T:
        try:
            return what()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as exc:
            unreadable(name, "is not a readable Parquet file; was the upload cut off?", exc)

    scan = pl.scan_parquet(file, glob=False)
    found = read(lambda: scan.collect_schema().names())
    require_columns(name, columns, found)
    rows = read(lambda: int(scan.select(pl.len()).collect().item()))
    _refuse_to_expand(read(lambda: pq.read_metadata(file)), file.stat().st_size, name)
    if rows == 0:
        raise PartitionRejected(name, "no_rows", "has columns and no rows")
    step = max(1, BATCH_CELLS // len(found))
    size = 0
    for start in range(0, rows, step):
        frame = read(scan.slice(start, step).collect)
        if frame.height != min(step, rows - start):
            raise PartitionRejected(name, "not_readable", f"has fewer rows than the {rows:,} it says")
        size += _text_bytes(frame)
        if size > MAX_EXPANDED_BYTES:
            refuse_bomb(name, MAX_EXPANDED_BYTES)
        yield Batch(frame)


def _refuse_to_expand(footer: pq.FileMetaData, packed: int, name: str) -> None:
    """By what the file says of itself: its bytes once they are not compressed, and its cells, those in lists too."""
    groups = (footer.row_group(number) for number in range(footer.num_row_groups))
    sizes = [
        (column.total_uncompressed_size, column.num_values)
        for group in groups
        for column in (group.column(number) for number in range(group.num_columns))
    ]
    cells = sum(values for _, values in sizes) * BYTES_PER_CELL
    if cells > MAX_EXPANDED_BYTES or is_bomb(sum(size for size, _ in sizes), packed, MAX_EXPANDED_BYTES):
        refuse_bomb(name, MAX_EXPANDED_BYTES)


def _text_bytes(frame: pl.DataFrame) -> int:
    """The length of all texts. In the file, and as long as nobody asks for them, equal ones may be there once."""
    written = pl.selectors.by_dtype(pl.String, pl.Categorical, pl.Enum)
    texts = frame.select(written.cast(pl.String).str.len_bytes().sum().cast(pl.Int64))
    return int(sum(texts.row(0))) if texts.width else 0
