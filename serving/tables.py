"""The tables of MLflow's scoring protocol: pandas' layouts in JSON, TF Serving's, and CSV. Each becomes columns of
values, as pandas would read them; what the values mean is for serving/scoring.py.

Source: mlflow/utils/proto_json_utils.py, pandas.DataFrame and pandas.read_csv.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.errors import bounded
from serving.errors import BadRequest, SchemaMismatch, ValuesRefused
from serving.feeds import SHOWN

NOT_A_VALUE = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"),
        *("NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)
"""Texts that pandas reads as missing in a CSV."""
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class Table:
    """`rows` values in each of the columns `names`; None is missing.

    A column is made when it is asked for: of a request's columns there may be as many as it has bytes, and its rows
    times those would be more than any memory.
    """

    rows: int
    names: Container[str]
    values: Callable[[str], Sequence[Any]]
    written: bool = False
    """Whether every value is a text, whatever it means: as in a CSV."""
    twice: frozenset[str] = frozenset()
    """Names that several columns have, so that none of them is meant."""


def from_records(data: Any) -> Table:
    """`dataframe_records`: one object per row. A column that only some have is missing in the others."""
    if not isinstance(data, list):
        raise BadRequest(f"dataframe_records is a list of objects, one per row; this is {_kind(data)}")
    return _from_objects("dataframe_records", data)


def from_split(data: Any) -> Table:
    """`dataframe_split`: {"columns": [...], "data": [[...], ...]}, rows in the order of the columns; an index beside
    them is of no use."""
    if not isinstance(data, dict) or "data" not in data or not data.keys() <= {"columns", "data", "index"}:
        message = 'dataframe_split is an object with "columns" and "data", a list of rows, and perhaps "index"'
        raise BadRequest(f"{message}; this is {_kind(data)}")
    columns, rows, index = data.get("columns"), data["data"] or [], data.get("index")
    if columns is None:
        raise ValuesRefused("dataframe_split needs columns: without them nothing tells which value is which")
    if not isinstance(columns, list):
        raise BadRequest(f"columns of dataframe_split is a list of names; this is {_kind(columns)}")
    if not isinstance(rows, list):
        raise BadRequest(f"data of dataframe_split is a list of rows; this is {_kind(rows)}")
    if index is not None and (not isinstance(index, list) or len(index) != len(rows)):
        raise BadRequest("index of dataframe_split is a list with one entry per row; it may be left out")
    for row, values in enumerate(rows):
        if not isinstance(values, list):
            raise BadRequest(f"row {row} of dataframe_split is a list of values; this is {_kind(values)}")
    width = max(map(len, rows), default=len(columns))
    if width != len(columns):
        raise BadRequest(f"dataframe_split has {len(columns)} columns, and rows of up to {width} values")
    named = Counter(name for name in columns if isinstance(name, str))
    return replace(_from_rows(columns, rows), twice=frozenset(name for name, times in named.items() if times > 1))


def from_instances(data: Any) -> Table:
    """`instances`: one object per row, all with the same columns; or columns, as `inputs` has them."""
    if not isinstance(data, list) or not data or not isinstance(data[0], dict):
        return from_inputs(data)
    for row, record in enumerate(data):
        if not isinstance(record, dict):
            raise BadRequest(f"row {row} of instances is an object of columns; this is {_kind(record)}")
        if record.keys() != data[0].keys():
            name = min(record.keys() ^ data[0].keys())
            raise SchemaMismatch(f"instances do not all have the same columns: see {bounded(name, SHOWN)} in row {row}")
    return _from_objects("instances", data)


def from_inputs(data: Any) -> Table:
    """`inputs`: one list per column. A single value stands for the same one in all rows, or for the only row.

    A list of objects is read like records.
    """
    if isinstance(data, list) and data and all(isinstance(record, dict) for record in data):
        return _from_objects("inputs", data)
    if data == [] or (isinstance(data, dict) and data and all(values == [] for values in data.values())):
        raise ValuesRefused("there are no rows")
    if not isinstance(data, dict):
        # MLflow tries to make a table of what begins with an object.
        refusal = SchemaMismatch if isinstance(data, list) and isinstance(data[0], dict) else ValuesRefused
        raise refusal(f"inputs is an object with one list of values per column; this is {_kind(data)}")
    sizes = {name: len(values) for name, values in data.items() if isinstance(values, list)}
    rows = next(iter(sizes.values()), 1)
    for name, size in sizes.items():
        if size != rows:
            raise SchemaMismatch(f"the column {bounded(name, SHOWN)} has {size} values; others have {rows}")

    def values(name: str) -> Sequence[Any]:
        given = data[name]
        return given if isinstance(given, list) else [given] * rows

    return Table(rows, data.keys(), values)


def from_csv(data: bytes) -> Table:
    """A CSV with a header. Blank lines are no rows, short rows end in missing values."""
    try:
        text = data.decode().removeprefix(BYTE_ORDER_MARK)
    except UnicodeDecodeError as exc:
        raise BadRequest(f"the CSV is not UTF-8, from byte {exc.start} on") from exc
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if _has_cells(line)]
    except csv.Error as exc:
        raise BadRequest(f"the CSV cannot be read: {bounded(exc)}") from exc
    if not lines:
        raise BadRequest("the CSV is empty: it begins with a line that names the columns")
    header, *rows = lines
    for row, cells in enumerate(rows):
        if len(cells) > len(header):
            raise BadRequest(f"row {row} of the CSV has {len(cells)} values; the header names {len(header)} columns")
    table = _from_rows(header, rows)
    return replace(
        table, written=True, values=lambda name: [None if cell in NOT_A_VALUE else cell for cell in table.values(name)]
    )


JSON_LAYOUTS: Mapping[str, Callable[[Any], Table]] = {
    "dataframe_split": from_split,
    "dataframe_records": from_records,
    "instances": from_instances,
    "inputs": from_inputs,
}


def _from_objects(layout: str, records: Sequence[Any]) -> Table:
    for row, record in enumerate(records):
        if not isinstance(record, dict):
            # Where the first row is none, MLflow makes a table without names of columns.
            refusal = BadRequest if row else ValuesRefused
            raise refusal(f"row {row} of {layout} is an object of columns; this is {_kind(record)}")
    names = set().union(*records)
    return Table(len(records), names, lambda name: [record.get(name) for record in records])


def _from_rows(names: Iterable[Any], rows: Sequence[Sequence[Any]]) -> Table:
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        # In a CSV the first of two columns with one name is the one that pandas calls by it.
        if isinstance(name, str):
            places.setdefault(name, place)

    def values(name: str) -> Sequence[Any]:
        place = places[name]
        return [row[place] if place < len(row) else None for row in rows]

    return Table(len(rows), places, values)


def _has_cells(line: list[str]) -> bool:
    return len(line) > 1 or (len(line) == 1 and bool(line[0].strip()))


def _kind(value: Any) -> str:
    """What a JSON value is, in JSON's words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    if isinstance(value, dict) and value:
        return f"an object with {bounded(', '.join(map(str, value)), SHOWN)}"
    return names.get(type(value), "a number")
