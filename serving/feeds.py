"""From requests to graph inputs: types checked against the signature, the row and the column of a mistake named."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from models.errors import bounded
from models.manifest import InputKind, Signature
from models.texts import ISO_8601
from serving.errors import BadRequest

if TYPE_CHECKING:
    import numpy as np

MAX_ROWS = 100_000
"""Rows in one request: beyond this, a request should be several."""

NAN = math.nan
_ISO_8601 = re.compile(ISO_8601)


def number(value: Any) -> float:
    """A JSON number; null is missing."""
    if value is None:
        return NAN
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is not a number")
    return float(value)


def integer(value: Any) -> float:
    """A JSON number without a fraction; null is missing."""
    result = number(value)
    if math.isfinite(result) and not result.is_integer():
        raise ValueError("is not an integer")
    return result


def boolean(value: Any) -> float:
    """true, false, 1 or 0; null is missing."""
    if value is None:
        return NAN
    if value is True or value is False or (isinstance(value, int | float) and value in {0, 1}):
        return float(value)
    raise ValueError("is not true or false")


def category(value: Any) -> str:
    """A text; null is missing. Which texts mean "missing" is in the model's graph."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("is not a text")
    return value


def timestamp(value: Any) -> float:
    """ISO 8601 as files may have it (UTC when it names no zone), or seconds since 1970 UTC; null is missing."""
    if not isinstance(value, str):
        return number(value)
    if not _ISO_8601.match(value):
        raise ValueError("is not an ISO 8601 time")
    try:
        # In what the pattern lets through, these are the only liberties that `fromisoformat` does not know.
        moment = datetime.fromisoformat(value[:11] + value[11:].upper().replace("UTC", "Z").replace(" ", ""))
    except ValueError as exc:
        raise ValueError("is not an ISO 8601 time") from exc
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


READERS: Mapping[InputKind, Callable[[Any], Any]] = {
    "number": number,
    "integer": integer,
    "boolean": boolean,
    "category": category,
    "timestamp": timestamp,
}


class FeedReader:
    """Turns records or columns into a feed for one signature. Made once per model, used for every request."""

    def __init__(self, signature: Signature) -> None:
        self._columns = tuple((column.name, column.kind, READERS[column.kind]) for column in signature.inputs)
        self._names = frozenset(name for name, _, _ in self._columns)

    def from_records(self, records: Sequence[Any]) -> dict[str, np.ndarray[Any, Any]]:
        """One object per row. A column that a record lacks is missing in that row. Raises BadRequest."""
        self._check_size(len(records))
        for row, record in enumerate(records):
            if not isinstance(record, dict):
                raise BadRequest(f"row {row} is not an object of columns", row=row)
            if not record.keys() <= self._names:
                self._unknown(record, row)
        return {
            name: self._array(name, kind, read, [record.get(name) for record in records])
            for name, kind, read in self._columns
        }

    def from_columns(self, columns: Mapping[str, Sequence[Any]], rows: int) -> dict[str, np.ndarray[Any, Any]]:
        """One list of `rows` values per column. A column that is not there is missing in all rows."""
        self._check_size(rows)
        if not columns.keys() <= self._names:
            self._unknown(columns, None)
        for name, values in columns.items():
            if len(values) != rows:
                raise BadRequest(f"{name} has {len(values)} values; other columns have {rows}", column=name)
        nothing = [None] * rows
        return {name: self._array(name, kind, read, columns.get(name, nothing)) for name, kind, read in self._columns}

    def _array(
        self, name: str, kind: InputKind, read: Callable[[Any], Any], values: Sequence[Any]
    ) -> np.ndarray[Any, Any]:
        import numpy as np

        try:
            converted = [read(value) for value in values]
        except (ValueError, OverflowError) as exc:
            row, why = _first_mistake(read, values)
            shown = bounded(repr(values[row]), 60)
            raise BadRequest(f"row {row}: {name} {why}: {shown}", row=row, column=name) from exc
        return np.array(converted, dtype=object if kind == "category" else np.float64)

    def _check_size(self, rows: int) -> None:
        if not 0 < rows <= MAX_ROWS:
            raise BadRequest(f"a request carries 1 to {MAX_ROWS:,} rows; this one has {rows:,}")

    def _unknown(self, names: Mapping[str, Any], row: int | None) -> None:
        unknown = sorted(names.keys() - self._names)[0]
        known = ", ".join(name for name, _, _ in self._columns)
        where = f"row {row}: " if row is not None else ""
        message = f"{where}the model has no column {bounded(unknown, 60)!r}; it has: {known}"
        raise BadRequest(message, row=row, column=unknown)


def _first_mistake(read: Callable[[Any], Any], values: Sequence[Any]) -> tuple[int, str]:
    for row, value in enumerate(values):
        try:
            read(value)
        except OverflowError:
            return row, "is too large"
        except ValueError as exc:
            return row, str(exc)
    raise AssertionError("called without a mistake")
