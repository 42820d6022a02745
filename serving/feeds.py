"""From requests to graph inputs: types checked against the signature, the row and the column of a mistake named."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from models.errors import bounded
from models.manifest import InputKind, Signature
from models.texts import ISO_8601
from serving.errors import BadRequest

if TYPE_CHECKING:
    import numpy as np

NAN = math.nan
SHOWN = 60
"""How many characters of a request's own words an error repeats."""
_ISO_8601 = re.compile(ISO_8601)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECONDS_A_DAY, MICROSECONDS = 86_400, 1_000_000

type Values = Sequence[Any] | np.ndarray[Any, Any]
"""One column of a request: JSON values, or a numeric or Boolean array of one dimension."""


def number(value: Any) -> float:
    """A JSON number; null is missing."""
    if value is None:
        return NAN
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is not a number")
    result = float(value)
    if math.isinf(result):
        raise ValueError("is not a finite number")
    return result


def integer(value: Any) -> float:
    """A JSON number without a fraction; null is missing."""
    result = number(value)
    if not math.isnan(result) and not result.is_integer():
        raise ValueError("is not an integer")
    return result


def boolean(value: Any) -> float:
    """true, false, 1 or 0; null is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
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
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH
    # Not `timestamp()`: training divides a float64 of the microseconds, which rounds twice in the far past and future.
    return ((since.days * SECONDS_A_DAY + since.seconds) * MICROSECONDS + since.microseconds) / float(MICROSECONDS)


READERS: Mapping[InputKind, Callable[[Any], Any]] = {
    "number": number,
    "integer": integer,
    "boolean": boolean,
    "category": category,
    "timestamp": timestamp,
}
"""What a single value means, and what is wrong with it. Arrays are read with the same rules, all values at once."""
NUMBERS: frozenset[type] = frozenset({int, float, type(None)})
"""Types that numpy turns into float64 as the readers of numbers do."""
PLAIN: Mapping[InputKind, frozenset[type]] = {
    "number": NUMBERS,
    "timestamp": NUMBERS,
    "integer": NUMBERS,
    "boolean": NUMBERS | {bool},
}
CHECKS: Sequence[InputKind] = ("number", "timestamp", "integer", "boolean")
"""The numeric kinds by what is asked of their values: nothing more than to be finite, a whole number, zero or one."""


class FeedReader:
    """Turns records or columns into a feed for one signature. Made once per model, used for every request."""

    def __init__(self, signature: Signature) -> None:
        self._names = tuple(column.name for column in signature.inputs)
        self._known = frozenset(self._names)
        # Of one name, itemgetter makes no tuple.
        self._values: Callable[[Any], Any] | None = itemgetter(*self._names) if len(self._names) > 1 else None
        self._ignores_unknown = signature.unknown_columns == "ignore"
        self._needs_all = signature.missing_columns == "error"
        self._categories = tuple(column.name for column in signature.inputs if column.kind == "category")
        # By kind, so that values of one kind lie together and are checked together.
        numeric = [column for kind in CHECKS for column in signature.inputs if column.kind == kind]
        self._numeric = tuple((place, column.name, column.kind) for place, column in enumerate(numeric))
        kinds = [column.kind for column in numeric]
        self._whole = sum(kind in {"number", "timestamp"} for kind in kinds)
        self._binary = self._whole + kinds.count("integer")

    def from_records(self, records: Sequence[Any]) -> dict[str, np.ndarray[Any, Any]]:
        """One object per row. A column that a record lacks is missing in that row, or an error: as the signature says.

        Raises BadRequest.
        """
        for row, record in enumerate(records):
            if not isinstance(record, dict):
                raise BadRequest(f"row {row} is not an object of columns", row=row)
        if (rows := self._complete(records)) is not None:
            columns = map(list, zip(*rows, strict=True))
            return self.from_columns(dict(zip(self._names, columns, strict=True)), len(records))
        if not self._ignores_unknown and not self._known.issuperset(chain.from_iterable(records)):
            self._refuse_unknown(records)
        if self._needs_all:
            for row, record in enumerate(records):
                self._require(record, row)
        return self.from_columns({name: [record.get(name) for record in records] for name in self._names}, len(records))

    def _complete(self, records: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]] | None:
        """The values of records that all have all columns and no other, in the signature's order; or else None.

        Most requests are like that, and are read several times as fast so.
        """
        width = len(self._names)
        if self._values is None or {width} != set(map(len, records)):
            return None
        try:
            return list(map(self._values, records))
        except KeyError:
            return None

    def from_columns(self, columns: Mapping[str, Values], rows: int) -> dict[str, np.ndarray[Any, Any]]:
        """`rows` values per column. A column that is not there is missing in all rows, or an error.

        Raises BadRequest.
        """
        import numpy as np

        if not self._ignores_unknown and not columns.keys() <= self._known:
            raise self._unknown(columns, None)
        if self._needs_all:
            self._require(columns, None)
        for name, values in columns.items():
            if len(values) != rows:
                shown = bounded(name, SHOWN)
                raise BadRequest(f"{shown} has {len(values)} values; other columns have {rows}", column=name)
        matrix = self._at_once(columns, rows)
        if matrix is None:
            matrix = np.empty((len(self._numeric), rows))
            for place, name, kind in self._numeric:
                matrix[place] = NAN if (given := columns.get(name)) is None else _numbers(name, kind, given)
        self._check(matrix, columns)
        feed: dict[str, np.ndarray[Any, Any]] = {name: matrix[place] for place, name, _ in self._numeric}
        for name in self._categories:
            feed[name] = _texts(name, columns.get(name), rows)
        return feed

    def _at_once(self, columns: Mapping[str, Values], rows: int) -> np.ndarray[Any, Any] | None:
        """All numeric columns [K, N] in one conversion, when all are lists of plain JSON numbers; or else None.

        A call of numpy costs as much as some twenty values, so a request of one row is twice as fast like this.
        """
        import numpy as np

        flat: list[Any] = []
        for _, name, _ in self._numeric:
            values = columns.get(name)
            if values is None:
                flat += [None] * rows
            elif type(values) is list:
                flat += values
            else:
                return None
        flags = self._binary * rows
        plain = PLAIN["number"].issuperset(map(type, flat[:flags])) and PLAIN["boolean"].issuperset(
            map(type, flat[flags:])
        )
        if not plain:
            return None
        try:
            return np.array(flat, dtype=np.float64).reshape(len(self._numeric), rows)
        except OverflowError:
            return None  # one by one, to say which

    def _check(self, matrix: np.ndarray[Any, Any], columns: Mapping[str, Values]) -> None:
        """All numeric columns [K, N] at once; NaN is missing and never wrong. Raises BadRequest."""
        import numpy as np

        infinite = np.isinf(matrix)
        if infinite.any():
            raise self._mistake(infinite, columns)
        whole, binary = matrix[self._whole :], matrix[self._binary :]
        if len(whole):
            wrong = whole - np.floor(whole) > 0
            if len(binary):
                wrong[self._binary - self._whole :] |= (binary < 0) | (binary > 1)
            if wrong.any():
                raise self._mistake(wrong, columns, self._whole)

    def _mistake(self, wrong: np.ndarray[Any, Any], columns: Mapping[str, Values], first: int = 0) -> BadRequest:
        _, name, kind = self._numeric[first + int(wrong.any(axis=1).argmax())]
        return _wrong(name, kind, columns[name])

    def _require(self, given: Mapping[str, Any], row: int | None) -> None:
        if given.keys() >= self._known:
            return
        absent = next(name for name in self._names if name not in given)
        where = f"row {row}: " if row is not None else ""
        message = f"{where}the column {absent} is missing; the model takes: {', '.join(self._names)}"
        raise BadRequest(message, row=row, column=absent)

    def _refuse_unknown(self, records: Iterable[Mapping[str, Any]]) -> None:
        for row, record in enumerate(records):
            if not record.keys() <= self._known:
                raise self._unknown(record, row)

    def _unknown(self, names: Mapping[str, Any], row: int | None) -> BadRequest:
        unknown = min(names.keys() - self._known)
        where = f"row {row}: " if row is not None else ""
        message = f"{where}the model has no column {bounded(unknown, SHOWN)!r}; it has: {', '.join(self._names)}"
        return BadRequest(message, row=row, column=unknown)


def _numbers(name: str, kind: InputKind, values: Values) -> Any:
    """What numpy can take for a numeric column: the values as they are, or read one by one."""
    if not isinstance(values, Sequence):
        if values.dtype.kind == "b" and kind != "boolean" and len(values):
            raise _wrong(name, kind, values)
        return values
    if PLAIN[kind].issuperset(map(type, values)):
        try:
            return _float64(values)
        except OverflowError as exc:
            raise _wrong(name, kind, values) from exc
    read = READERS[kind]
    try:
        return [read(value) for value in values]
    except (ValueError, OverflowError) as exc:
        raise _wrong(name, kind, values) from exc


def _float64(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.array(values, dtype=np.float64)


def _texts(name: str, values: Values | None, rows: int) -> np.ndarray[Any, Any]:
    import numpy as np

    if values is None:
        return np.full(rows, "", dtype=object)
    types = set(map(type, values))
    if types == {str}:
        return np.array(values, dtype=object)
    if types <= {str, type(None)}:
        return np.array(["" if value is None else value for value in values], dtype=object)
    raise _wrong(name, "category", values)


def _wrong(name: str, kind: InputKind, values: Values) -> BadRequest:
    """The error for the first wrong one of a column's values."""
    read = READERS[kind]
    for row, value in enumerate(values if isinstance(values, Sequence) else values.tolist()):
        try:
            read(value)
        except OverflowError:
            why = "is too large"
        except ValueError as exc:
            why = str(exc)
        else:
            continue
        return BadRequest(f"row {row}: {name} {why}: {bounded(repr(value), SHOWN)}", row=row, column=name)
    raise AssertionError(f"no value of {name} is wrong")
