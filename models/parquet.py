"""Clean partitions as Parquet, written and read some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl
import pyarrow.parquet as pq

GROUP_ROWS = 65_536
"""Rows of each row group, but for the last: few enough to bound the memory of whoever reads one."""
COMPRESSION = "lz4"
"""A retrain reads what earlier ones wrote, all of it: this is read twice as fast as zstd and is a tenth larger."""


class ParquetSink:
    """Writes frames, one after another, into one file.

    Rows decide its bytes, not how they were cut into frames. Without a single frame there is no file; a frame without
    rows makes one that has columns.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._held: list[pl.DataFrame] = []
        self._writer: Any = None

    def add(self, frame: pl.DataFrame) -> None:
        """Appends the rows of `frame`, which has the columns of the others."""
        self._held.append(frame)
        while sum(part.height for part in self._held) >= GROUP_ROWS:
            rows = pl.concat(self._held)
            self._write(rows[:GROUP_ROWS])
            self._held = [rows[GROUP_ROWS:]]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held:
            self._write(pl.concat(self._held))
            self._held = []
        if self._writer is not None:
            self._writer.close()

    def _write(self, rows: pl.DataFrame) -> None:
        table = rows.rechunk().to_arrow()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema, compression=COMPRESSION, write_statistics=False)
        if len(table):
            self._writer.write_table(table, row_group_size=GROUP_ROWS)


def row_groups(file: Path, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
    """The rows that a sink wrote, GROUP_ROWS at a time; one frame without rows if there are none."""
    rows = pq.read_metadata(file).num_rows
    scan = pl.scan_parquet(file, glob=False)
    chosen = scan if columns is None else scan.select(columns)
    for start in range(0, max(rows, 1), GROUP_ROWS):
        yield chosen.slice(start, GROUP_ROWS).collect()
