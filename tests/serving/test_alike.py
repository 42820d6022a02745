"""MLflow's scoring protocol beside MLflow's own server, in this process: the same graph inputs, or the same refusal.

tests/integration/test_mlflow.py compares the answers of both over HTTP; here are many more requests, and a column of
every kind.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from adapters.mlflow_model import model_files
from adapters.registry import Submission
from models.manifest import InputColumn, Signature
from models.texts import ISO_8601
from serving import scoring
from serving.answers import refusal
from serving.errors import ServingError
from tests.adapters.test_ratchet_model import CLASSES, FEED, KINDS, graph

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
    pytest.mark.filterwarnings("ignore:.*future.infer_string"),
    pytest.mark.timeout(180),
]

SIGNATURE = Signature(tuple(InputColumn(name, kind) for name, kind in KINDS.items()), CLASSES, CLASSES[0])
JSON = "application/json"
type Outcome = tuple[int, Any]


class Watched:
    """A session that keeps what it was asked."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.feed: dict[str, Any] = {}

    def run(self, outputs: Any, feed: Mapping[str, Any]) -> Any:
        self.feed = dict(feed)
        return self._session.run(outputs, feed)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bytes], Outcome]]:
    """What MLflow makes of a body: (200, the graph's inputs), or (status, the error but for its words)."""
    from mlflow.pyfunc import scoring_server  # it warns when it is imported

    folder = tmp_path_factory.mktemp("model")
    submission = Submission("kinds", "r", "r", graph(), SIGNATURE, "It is.", "2026-01-02T03:04:05Z", example=FEED)
    for name, data in model_files(submission, "0" * 32).items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    model: Any = mlflow.pyfunc.load_model(str(folder))
    raw, schema = model._model_impl, model.metadata.get_input_schema()
    watched = raw._session = Watched(raw._session)

    def ask(body: bytes) -> Outcome:
        try:
            reply = scoring_server.invocations(body, JSON, model, schema)
        except MlflowException as exc:
            return exc.get_http_status_code(), _error(exc.serialize_as_json())
        assert reply.status == 200
        return 200, _plain(watched.feed)

    # With pandas 3 and its own texts, MLflow 3.17 refuses columns of texts.
    with pd.option_context("future.infer_string", False):
        yield ask


def _mine(body: bytes) -> Outcome:
    try:
        feed = scoring.read_feed(scoring.read_table(body, JSON), SIGNATURE)
    except ServingError as exc:
        answer = refusal(exc, protocol="mlflow")
        return answer.status, _error(answer.body)
    return 200, _plain(feed)


def _error(text: str | bytes) -> Any:
    return {name: value for name, value in json.loads(text).items() if name not in {"message", "stack_trace"}}


def _plain(feed: Mapping[str, Any]) -> Any:
    """As lists, with None for NaN, which differs from itself."""
    columns = {name: np.asarray(values).tolist() for name, values in feed.items()}
    return {
        name: [None if isinstance(value, float) and math.isnan(value) else value for value in values]
        for name, values in columns.items()
    }


ROW: dict[str, Any] = {"price": 1.5, "town": "Ghent", "visits": 3, "member": True, "seen": "2013-03-14T17:29:00Z"}
MOMENTS = ("2013-03-14", "2013-03-14 17:29:00.123456789+05:30", "1960-01-01T00:00:00.1234567Z", "2013-02-30")
VALUES: dict[str, tuple[Any, ...]] = {
    "town": (True, False, 5, 2.5, "", "Zürich", "\ud800", "a\u0000b", [1], {"a": 1}),
    "price": ("1.5", "true", " TRUE ", "1_000", "nan", "inf", "", "cheap", True, 10**25, [1], {}),
    "visits": (2.5, "3", False),
    "member": (1, 0.5, "false", "yes"),
    "seen": (0, 1.5, -1, True, "", "NaT", "nan", "1", "true", "yesterday", *MOMENTS),
}
CASES = [(column, value) for column, values in VALUES.items() for value in values]


@pytest.mark.parametrize(("column", "value"), CASES, ids=repr)
def test_a_value_is_read_alike(theirs: Callable[[bytes], Outcome], column: str, value: Any) -> None:
    row = {**ROW, column: value}
    documents = [
        {"dataframe_records": [row]},
        {"dataframe_records": [{**ROW, column: None}, row]} if not isinstance(value, int) else {"instances": [row]},
        {"instances": [row]},
        {"inputs": {name: [each] for name, each in row.items()}},
        {"dataframe_split": {"columns": list(row), "data": [list(row.values())]}},
    ]
    for document in documents:
        body = json.dumps(document).encode()
        assert _mine(body) == theirs(body), document


NAMES, CELLS = list(ROW), list(ROW.values())
NO_ROWS: tuple[Any, ...] = (1, None, "text")
FOR_LANGUAGE: tuple[Any, ...] = ("text", [], {}, ROW)
DOCUMENTS: list[Any] = [
    {"dataframe_split": {"columns": [*NAMES, "town"], "data": [[*CELLS, "Porto"]]}},
    {"dataframe_split": {"columns": [*NAMES, "x", "x"], "data": [[*CELLS, 1, 2]]}},
    *({"dataframe_records": [first, ROW]} for first in NO_ROWS),
    {"dataframe_records": [CELLS]},
    *(
        {layout: rows}
        for layout in ("inputs", "instances")
        for rows in (1, True, "text", [1, 2], [None], [CELLS], [1, ROW])
    ),
    *({word: value} for word in ("messages", "input", "prompt") for value in FOR_LANGUAGE),
    {"dataframe_records": [ROW], "input": "text"},
    {"dataframe_records": [ROW], "more": "text"},
    None,
    True,
    "text",
    [],
    {"params": {}},
    {"inputs": ROW, "params": [1]},
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: json.dumps(document)[:50])
def test_a_document_is_taken_or_refused_alike(theirs: Callable[[bytes], Outcome], document: Any) -> None:
    body = json.dumps(document).encode()
    assert _mine(body) == theirs(body)


def test_numbers_and_texts_in_one_column_of_times_are_refused(theirs: Callable[[bytes], Outcome]) -> None:
    """MLflow's code for it hangs on the words of pandas; the status is the same."""
    body = json.dumps({"dataframe_records": [{**ROW, "seen": 5}, ROW]}).encode()
    assert _mine(body)[0] == theirs(body)[0] == 400


@pytest.mark.parametrize("text", ["2013", "2013-01", "20130101", "2013-01-01T05", "now"])
def test_a_time_that_no_file_may_have_is_refused_rather_than_guessed(
    theirs: Callable[[bytes], Outcome], text: str
) -> None:
    """pandas takes them, the registered version therefore too. Here requests may have what files may."""
    body = json.dumps({"dataframe_records": [{**ROW, "seen": text}]}).encode()
    assert theirs(body)[0] == 200
    assert _mine(body)[0] == 400


def _column(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Three rows of one kind of value. null is missing; so is NaN, which MLflow's clients write for it."""
    return st.lists(values | st.none() | st.just(math.nan), min_size=3, max_size=3)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
COMMON_TIME = re.compile(r"(1[789]|2[01])\d\d-..-..([T ][^ UTCtz]*Z?)?")
"""What both read: pandas knows no lower case, no UTC in words, and no nanoseconds outside these centuries."""
TIMES = st.from_regex(ISO_8601, fullmatch=True).filter(COMMON_TIME.fullmatch) | st.integers(-(10**15), 10**15).map(
    lambda microseconds: (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()
)
COLUMNS = st.fixed_dictionaries(
    {
        "price": _column(FINITE | st.integers(-(2**53), 2**53)) | _column(FINITE.map(str)),
        "town": _column(st.text(max_size=5)) | _column(st.booleans()),
        "visits": _column(st.integers(-(2**53), 2**53)),
        "member": _column(st.booleans()),
        "seen": _column(TIMES) | _column(st.integers(-(2**40), 2**40)) | _column(FINITE),
    }
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(columns=COLUMNS, layout=st.sampled_from(["dataframe_records", "dataframe_split", "inputs"]))
def test_columns_of_chance_are_read_alike(
    theirs: Callable[[bytes], Outcome], columns: dict[str, list[Any]], layout: str
) -> None:
    rows = [list(row) for row in zip(*columns.values(), strict=True)]
    documents: dict[str, Any] = {
        "dataframe_records": [dict(zip(columns, row, strict=True)) for row in rows],
        "dataframe_split": {"columns": list(columns), "data": rows},
        "inputs": columns,
    }
    body = json.dumps({layout: documents[layout]}).encode()
    assert _mine(body) == theirs(body)
