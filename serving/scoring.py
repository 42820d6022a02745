"""MLflow's scoring protocol: what `mlflow models serve` takes for a registered version, and what it answers.

A registered version reads numbers and texts by itself, and this module as it does: values are not taken
as strictly as in the other protocols: a number may come as a text, an integer column takes 2.5. Extra columns are
ignored and missing ones are an error, whatever the pipeline's spec says, because MLflow knows no such policy.

Source: mlflow/pyfunc/scoring_server/__init__.py as of MLFLOW_VERSION, and adapters/ratchet_model.py.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from models.errors import bounded
from models.manifest import InputColumn, Signature
from serving.answers import Answer, answer
from serving.errors import BadRequest, SchemaMismatch, UnknownEncoding, ValuesRefused
from serving.feeds import SHOWN, timestamp
from serving.tables import JSON_LAYOUTS, Table, from_csv

if TYPE_CHECKING:
    import numpy as np

MLFLOW_VERSION = "3.17.2"
"""The MLflow whose server is followed here, and which the tests compare with."""
CSV, JSON = "text/csv", "application/json"
PLAIN_NUMBERS = frozenset({int, float, bool, type(None)})
"""Types that numpy turns into float64 as MLflow does."""
LANGUAGE = frozenset({"messages", "input", "prompt"})
"""Members by which MLflow knows a request to a language model, whatever else it has."""
NO_TIME = frozenset({"", "NaT", "nat", "NAT", "nan", "NaN", "NAN"})
"""Texts that pandas reads as a missing time."""
ALIVE = Answer(200, b"\n", {"content-type": JSON})
VERSION = Answer(200, MLFLOW_VERSION.encode(), {"content-type": JSON})


def read_table(body: bytes, content_type: str | None) -> Table:
    """The rows of a request, in JSON or CSV. Raises BadRequest, UnknownEncoding."""
    if _media_type(content_type) == CSV:
        return from_csv(body)
    document = _load(body)
    if not isinstance(document, dict):
        raise BadRequest(f"the body is not an object with one of {', '.join(JSON_LAYOUTS)}")
    if not LANGUAGE.isdisjoint(document):
        words = ", ".join(sorted(LANGUAGE & document.keys()))
        raise ValuesRefused(
            f"the body has {words}, as language models take it; this one takes {', '.join(JSON_LAYOUTS)}"
        )
    given = [name for name in JSON_LAYOUTS if name in document]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise BadRequest(f"the body has one of {', '.join(JSON_LAYOUTS)}; this one has {found}")
    return JSON_LAYOUTS[given[0]](document[given[0]])


def read_feed(table: Table, signature: Signature) -> dict[str, np.ndarray[Any, Any]]:
    """The graph's inputs [N]. Raises ValuesRefused and SchemaMismatch."""
    absent = [column.name for column in signature.inputs if column.name not in table.names]
    if absent:
        takes = ", ".join(column.name for column in signature.inputs)
        raise ValuesRefused(f"missing: {', '.join(absent)}. The model takes the columns {takes}", column=absent[0])
    if double := [column.name for column in signature.inputs if column.name in table.twice]:
        raise SchemaMismatch(f"the column {double[0]} is there more than once", column=double[0])
    return {column.name: _read(table, column) for column in signature.inputs}


def write_answer(answers: np.ndarray[Any, Any] | None, signature: Signature, headers: dict[str, str]) -> Answer:
    """A record for each row: the probability of each class by its name, or the value of a regression.

    None stands for no rows.
    """
    names = signature.classes or (signature.output,)
    rows = [] if answers is None else answers.tolist()
    return answer({"predictions": [dict(zip(names, row, strict=True)) for row in rows]}, headers=headers)


def _media_type(content_type: str | None) -> str:
    """text/csv or application/json, which is also what no content type means. Raises UnknownEncoding."""
    media_type, *parameters = (part.strip() for part in (content_type or JSON).split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name != "charset" or value.lower() != "utf-8":
            raise UnknownEncoding(f"the content type's {bounded(parameter, SHOWN)!r} is not known; charset=utf-8 is")
    if media_type not in {CSV, JSON}:
        raise UnknownEncoding(f"the content type {bounded(media_type, SHOWN)!r} is not read; {JSON} and {CSV} are")
    return media_type


def _load(body: bytes) -> Any:
    """A JSON document. MLflow's clients write NaN for a missing number, which Python's own reader understands."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        try:
            document = json.loads(body)
            # Half a surrogate pair, which that reader lets through, is no text: no graph and no answer can have it.
            json.dumps(document, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            raise BadRequest(f"the body is not JSON: {bounded(exc)}") from exc
        return document


def _read(table: Table, column: InputColumn) -> np.ndarray[Any, Any]:
    values = table.values(column.name)
    if column.kind == "category":
        return _texts(column.name, values)
    if column.kind == "timestamp" and str in set(map(type, values)):
        return _times(column.name, values, written=table.written)
    return _doubles(column.name, values)


def _times(name: str, values: Sequence[Any], *, written: bool) -> np.ndarray[Any, Any]:
    """Times in texts. Where all is `written`, as in a CSV, they may be numbers all the same."""
    import numpy as np

    read = _number_or_time if written else _time
    return np.array([read(name, row, value) for row, value in enumerate(values)], dtype=np.float64)


def _number_or_time(name: str, row: int, value: Any) -> float:
    try:
        return _double(name, row, value)
    except ValuesRefused:
        return _time(name, row, value)


def _time(name: str, row: int, value: Any) -> float:
    if _is_missing(value) or (isinstance(value, str) and value in NO_TIME):
        return math.nan
    try:
        if isinstance(value, str):
            return timestamp(value)
        why = "is a number, and others are texts"
    except ValueError as exc:
        why = str(exc)
    raise ValuesRefused(f"row {row}: {name} {why}: {bounded(repr(value), SHOWN)}", row=row, column=name)


def _doubles(name: str, values: Sequence[Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    if PLAIN_NUMBERS.issuperset(map(type, values)):
        try:
            return np.array(values, dtype=np.float64)
        except OverflowError:
            pass  # which value it is comes out below
    return np.array([_double(name, row, value) for row, value in enumerate(values)], dtype=np.float64)


def _double(name: str, row: int, value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return float(value.strip().lower() == "true")  # pandas writes them so into a CSV
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as exc:
        shown = bounded(repr(value), SHOWN)
        raise ValuesRefused(f"row {row}: {name} is not a number: {shown}", row=row, column=name) from exc


def _texts(name: str, values: Sequence[Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.array([_text(name, row, value) for row, value in enumerate(values)], dtype=object)


def _text(name: str, row: int, value: Any) -> str:
    if isinstance(value, str):
        return value
    if _is_missing(value):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int):
        raise ValuesRefused(f"row {row}: {name} is not a text: {bounded(repr(value), SHOWN)}", row=row, column=name)
    return str(value)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
