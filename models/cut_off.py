"""A CSV's last row, when the upload was cut off inside of it and it can be told."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from models.cells import Problem, as_text
from models.reading import read_batches

if TYPE_CHECKING:
    from models.spec import ColumnType, PipelineSpec

TOLD_BY: frozenset[ColumnType] = frozenset({"boolean", "category", "text", "timestamp"})
"""Types of a last column that can tell."""
MIN_ROWS_TO_COMPARE = 3
"""Fewer rows do not show what a column's values look like."""


def cut_off(raw: pl.DataFrame, file: Path, earlier: int, name: str, spec: PipelineSpec) -> list[Problem]:
    """A CSV's last row, when its line has no end and its last cell seems to be the beginning of one.

    `raw` are the last rows of the file, and `earlier` batches come before them: they are read once more.
    """
    column = raw.columns[-1]
    if column not in spec.columns or not name.lower().endswith(".csv") or _has_a_last_line_end(file):
        return []
    last = raw[column][-1]
    if not last or (not earlier and raw.height < MIN_ROWS_TO_COMPARE):
        return []

    def others() -> Iterator[pl.Series]:
        yield raw[column][:-1]
        if earlier:
            for batch in islice(read_batches(file, name=name, columns=[column]), earlier):
                yield batch.rows[column]

    if not _looks_cut_off(last, others(), spec.columns[column].type):
        return []
    rows = pl.zeros(raw.height, pl.Boolean, eager=True)
    rows[-1] = True
    return [Problem("line: cut off", rows, "line: it has no end, and ", as_text(raw[column]), " looks cut off")]


def _has_a_last_line_end(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(-1, io.SEEK_END)
        return stream.read(1) in {b"\n", b"\r"}


def _looks_cut_off(last: str, others: Iterable[pl.Series], kind: ColumnType) -> bool:
    """Whether `last`, the last cell of a line without an end, seems to be the beginning of a cell.

    A boolean, category or text that none of the `others` is and that some begin with ("f" among "false"), a timestamp
    that is shorter than all others. A number that lost its last digits looks like any other: that cannot be told.
    """
    begun = there = False
    shortest: int | None = None
    for cells in others:
        present = cells.drop_nulls()
        begun = begun or bool((present.str.starts_with(last) & (present != last)).any())
        there = there or last in present
        length = present.str.len_chars().min()
        if isinstance(length, int):
            shortest = length if shortest is None else min(shortest, length)
    if kind == "timestamp":
        return shortest is not None and len(last) < shortest
    return kind in TOLD_BY and begun and not there
