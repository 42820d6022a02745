"""A file that cannot be used as a whole, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NoReturn

from models.errors import RatchetError, bounded

if TYPE_CHECKING:
    from models.partitions import Tally

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
MAX_NAMED_COLUMNS = 40
"""Most column names that a message lists."""


class PartitionRejected(RatchetError):
    """A file cannot be used as a whole.

    `name` is the file's, `code` the kind of mistake, `detail` a sentence about it, `columns` the columns concerned.
    `tally` counts the rows when the file could be read but has too many bad ones.
    """

    def __init__(
        self,
        name: str,
        code: RejectionCode,
        detail: str,
        *,
        columns: Sequence[str] = (),
        tally: Tally | None = None,
    ) -> None:
        super().__init__(f"{name} {detail}")
        self.name, self.code, self.detail = name, code, detail
        self.columns, self.tally = tuple(columns), tally


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


def unreadable(name: str, detail: str, exc: BaseException) -> NoReturn:
    """Raises PartitionRejected (not_readable) for what a parser said."""
    # The parser's first line says what is wrong; the others advise on its own options.
    first = next(iter(str(exc).splitlines()), type(exc).__name__)
    raise PartitionRejected(name, "not_readable", f"{detail} ({bounded(first, 200)})") from exc


def _names(columns: Sequence[str]) -> str:
    shown = [bounded(column, 60) for column in columns[:MAX_NAMED_COLUMNS]]
    more = f" and {len(columns) - len(shown)} more" if len(columns) > len(shown) else ""
    return ", ".join(shown) + more
