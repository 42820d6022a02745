"""A CSV's last row, when the upload was cut off inside of it and it can be told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from models.spec import ColumnType

TOLD_BY: frozenset[ColumnType] = frozenset({"boolean", "category", "text", "timestamp"})
"""Types of a last column that can tell."""
MIN_ROWS_TO_COMPARE = 3
"""Fewer rows do not show what a column's values look like."""


def looks_cut_off(last: str, others: Iterable[pl.Series], kind: ColumnType) -> bool:
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
