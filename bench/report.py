"""The table of what was asked and what was measured, which every benchmark ends with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    asked: str
    measured: str
    held: bool


def print_rows(console: Console, rows: Iterable[Row]) -> None:
    table = Table("what", "asked", "measured", "", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.what, row.asked, row.measured, "[green]held[/]" if row.held else "[red]missed[/]")
    console.print(table)
