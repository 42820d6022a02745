"""MLflow's scoring protocol. test_alike.py and tests/integration/test_mlflow.py compare it with MLflow's."""

from __future__ import annotations

import csv
import io
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import mlflow.version
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.limits import Limits
from serving.scoring import MLFLOW_VERSION, read_feed, read_table
from serving.service import InferenceService
from serving.tables import NOT_A_VALUE, from_csv
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE, SIGNATURE, expected, publish
from tests.serving.requests import JSON_VALUES, body, read

ROW = {"distance": 100.0, "carrier": "AA", "at": 0.0}
CSV = {"content-type": "text/csv"}


def test_the_version_is_that_of_the_mlflow_that_it_is_compared_with() -> None:
    """A newer MLflow: run the comparison, mend what differs, and raise the number."""
    assert mlflow.version.VERSION == MLFLOW_VERSION


@pytest.mark.parametrize("pipeline", [PIPELINE, None])
def test_each_row_has_the_probability_of_each_class(
    service: InferenceService, blobs: MemoryBlobs, pipeline: str | None
) -> None:
    publish(blobs, 1)
    answer = service.invocations(pipeline, body({"dataframe_records": [ROW, {**ROW, "distance": 990}]}))
    assert answer.status == 200
    assert answer.headers["x-ratchet-model-version"] == "1"
    first, second = expected(1, 100.0), expected(1, 990.0)
    assert [list(row.values()) for row in read(answer)["predictions"]] == [[1 - first, first], [1 - second, second]]


def test_a_nan_is_read_and_never_written(service: InferenceService, blobs: MemoryBlobs) -> None:
    """MLflow's own clients write NaN for what is missing, although it is not JSON."""
    publish(blobs, 1)
    sent = json.dumps({"dataframe_records": [{**ROW, "distance": float("nan")}]}).encode()
    assert b"NaN" in sent
    answer = service.invocations(PIPELINE, sent)
    (row,) = read(answer)["predictions"]
    assert list(row.values()) == [None, None]


@pytest.mark.parametrize(
    ("sent", "headers", "code", "message"),
    [
        (b"{", {}, "BAD_REQUEST", "the body is not JSON"),
        (b"[" * 5000, {}, "BAD_REQUEST", "the body is not JSON"),
        (b"[1]", {}, "BAD_REQUEST", "not an object with one of dataframe_split, dataframe_records, instances, inputs"),
        (body({"inputs": [], "instances": []}), {}, "BAD_REQUEST", "this one has instances and inputs"),
        (body({"inputs": {"distance": [1]}}), {}, "INVALID_PARAMETER_VALUE", "missing: carrier, at. The model takes"),
        (
            body({"inputs": [{**ROW, "distance": "far"}]}),
            {},
            "INVALID_PARAMETER_VALUE",
            "row 0: distance is not a number: 'far'",
        ),
        (
            body({"inputs": [ROW, {**ROW, "distance": 10**400}]}),
            {},
            "INVALID_PARAMETER_VALUE",
            "row 1: distance is not a number: 1",
        ),
        (
            body({"inputs": [{**ROW, "carrier": ["AA"]}]}),
            {},
            "INVALID_PARAMETER_VALUE",
            "row 0: carrier is not a text: ['AA']",
        ),
        (
            b"distance,carrier,at\n1,AA,0\n2,AA,noon\n",
            CSV,
            "INVALID_PARAMETER_VALUE",
            "row 1: at is not an ISO 8601 time: 'noon'",
        ),
        *(
            (sent, {}, "BAD_REQUEST", "the body is not JSON")
            for sent in (
                b'{"dataframe_records": [{"distance": 1, "carrier": "\\ud800", "at": 0}]}',
                b'{"dataframe_records": {"\xed\xa0\x80": 1}}',
                '{"dataframe_records": {"\\ud800": 1}}'.encode("utf-16"),
            )
        ),
        (b'distance\n"', CSV, "BAD_REQUEST", "the CSV cannot be read"),
        (b"distance\n" + b"1" * 200_000, CSV, "BAD_REQUEST", "the CSV cannot be read: field larger than field limit"),
    ],
)
def test_an_error_has_mlflows_shape(
    service: InferenceService, blobs: MemoryBlobs, sent: bytes, headers: dict[str, str], code: str, message: str
) -> None:
    publish(blobs, 1)
    answer = service.invocations(PIPELINE, sent, headers)
    assert answer.status == 400
    document = read(answer)
    assert document.keys() == {"error_code", "message", "sqlstate", "error_class"}
    assert document["error_code"] == code
    assert message in document["message"]
    assert len(answer.body) < 1000


def test_a_time_is_a_number_or_a_text(service: InferenceService, blobs: MemoryBlobs) -> None:
    at = {"2013-03-14T17:29:00Z": 1363282140.0, "0": 0.0, "1.5": 1.5, "": math.nan, "NaT": math.nan}
    lines = "".join(f"1,AA,{written}\n" for written in at)
    csv_table = read_table(f"distance,carrier,at\n{lines}".encode(), "text/csv")
    np.testing.assert_array_equal(read_feed(csv_table, SIGNATURE)["at"], list(at.values()))
    records = [{**ROW, "at": "2013-03-14T17:29:00Z"}, {**ROW, "at": None}]
    json_table = read_table(body({"dataframe_records": records}), None)
    np.testing.assert_array_equal(read_feed(json_table, SIGNATURE)["at"], [1363282140.0, math.nan])


def test_errors_that_are_not_the_requests(blobs: MemoryBlobs, tmp_path: Path) -> None:
    service = InferenceService(blobs, tmp_path, 0.0, lambda: (PIPELINE, "b"), limits=Limits(body_bytes=1000, rows=2))
    early = service.invocations(PIPELINE, body({"dataframe_records": [ROW]}))
    assert (early.status, read(early)["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert int(early.headers["retry-after"]) > 0
    assert service.ping(PIPELINE).status == 503
    publish(blobs, 1)
    assert service.ping(PIPELINE).body == b"\n"
    unknown = service.invocations("x", b"{}")
    assert (unknown.status, read(unknown)["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert (service.mlflow_version("x").status, service.mlflow_version("b").body) == (404, MLFLOW_VERSION.encode())
    nameless = service.invocations(None, b"{}")
    assert (nameless.status, service.ping(None).status) == (404, 404)
    assert "/mlflow/{pipeline}/..., with one of flights, b" in read(nameless)["message"]
    assert service.invocations(PIPELINE, b" " * 1001).status == 413
    assert service.invocations(PIPELINE, body({"dataframe_records": [ROW] * 3})).status == 413
    text = service.invocations(PIPELINE, b"", {"content-type": "text/html"})
    assert (text.status, text.headers["content-type"]) == (415, "text/plain; charset=utf-8")
    assert text.body == b"the content type 'text/html' is not read; application/json and text/csv are"


@given(
    st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=5).filter(
                lambda text: text not in NOT_A_VALUE
            ),
            min_size=2,
            max_size=2,
        ),
        max_size=5,
    )
)
def test_a_csv_that_was_written_is_read_back(rows: list[list[str]]) -> None:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    table = from_csv(file.getvalue().encode())
    assert table.rows == len(rows)
    assert list(zip(table.values("a"), table.values("b"), strict=True)) == [tuple(row) for row in rows]


MANY = 20_000
WIDE_AND_LONG: dict[str, tuple[bytes, dict[str, str]]] = {
    "records with a column each": (body({"dataframe_records": [{f"x{n}": 1} for n in range(MANY)]}), {}),
    "values for all rows": (body({"inputs": {"distance": [1] * MANY, **{f"x{n}": 1 for n in range(MANY)}}}), {}),
    "rows that end early": (
        body({"dataframe_split": {"columns": [f"x{n}" for n in range(MANY)], "data": [[1] * MANY] + [[]] * MANY}}),
        {},
    ),
    "a wide header": (",".join(f"x{n}" for n in range(MANY)).encode() + b"\n1" * MANY, CSV),
}


@pytest.mark.parametrize("case", WIDE_AND_LONG)
def test_many_columns_times_many_rows_cost_no_memory(service: InferenceService, blobs: MemoryBlobs, case: str) -> None:
    """Four hundred million cells, if all were made."""
    publish(blobs, 1)
    service.warm([PIPELINE])
    sent, headers = WIDE_AND_LONG[case]
    tracemalloc.start()
    try:
        assert service.invocations(PIPELINE, sent, headers).status == 400
        assert tracemalloc.get_traced_memory()[1] < 200 * len(sent)
    finally:
        tracemalloc.stop()


LAYOUTS = st.sampled_from(["dataframe_split", "dataframe_records", "instances", "inputs"])
NEARLY = st.dictionaries(
    LAYOUTS,
    JSON_VALUES
    | st.lists(st.fixed_dictionaries({"distance": JSON_VALUES, "carrier": JSON_VALUES, "at": JSON_VALUES}), max_size=3)
    | st.fixed_dictionaries(
        {"data": st.lists(st.lists(JSON_VALUES, max_size=3), max_size=3)},
        optional={"columns": st.just(["distance", "carrier", "at"]) | JSON_VALUES, "index": JSON_VALUES},
    ),
    min_size=1,
    max_size=2,
)
CSV_LINES = st.lists(st.lists(st.sampled_from(["1", "AA", "", '"', "\x00", "NA", "é", "distance"])), max_size=4)


@pytest.fixture(scope="module")
def ready_service(tmp_path_factory: pytest.TempPathFactory) -> InferenceService:
    blobs = MemoryBlobs()
    publish(blobs, 1)
    return InferenceService(blobs, tmp_path_factory.mktemp("cache"), 60.0, lambda: (PIPELINE,))


@given(document=NEARLY | JSON_VALUES)
def test_whatever_json_is_sent_is_answered(ready_service: InferenceService, document: Any) -> None:
    answer = ready_service.invocations(PIPELINE, body(document))
    assert answer.status in {200, 400}
    read(answer)


BROKEN = st.text(st.characters(categories=["Cs", "Lu"]), max_size=2)
"""Texts with halves of surrogate pairs, which Python's reader of JSON lets through and orjson does not."""


@given(
    document=st.dictionaries(
        LAYOUTS | BROKEN,
        st.dictionaries(
            st.sampled_from(["columns", "data"]) | BROKEN, st.lists(BROKEN | st.lists(BROKEN, max_size=2), max_size=2)
        )
        | st.lists(st.fixed_dictionaries({"distance": BROKEN, "carrier": BROKEN, "at": BROKEN}), min_size=1, max_size=2)
        | BROKEN,
        max_size=2,
    ),
    encoding=st.sampled_from(["ascii", "utf-8", "utf-16", "utf-32"]),
)
def test_whatever_texts_are_sent_are_answered(ready_service: InferenceService, document: Any, encoding: str) -> None:
    """Also in UTF-16, and with the NaN for whose sake Python's reader is asked at all."""
    text = json.dumps({**document, "more": math.nan}, ensure_ascii=encoding == "ascii")
    answer = ready_service.invocations(PIPELINE, text.encode(encoding, "surrogatepass"))
    assert answer.status in {200, 400}
    read(answer)


@given(
    sent=CSV_LINES.map(lambda lines: "\n".join(["distance,carrier,at", *map(",".join, lines)]).encode()) | st.binary()
)
def test_whatever_csv_is_sent_is_answered(ready_service: InferenceService, sent: bytes) -> None:
    answer = ready_service.invocations(PIPELINE, sent, CSV)
    assert answer.status in {200, 400}
    read(answer)


@given(
    content_type=st.text(st.characters(codec="ascii"), max_size=20)
    | st.sampled_from(["text/csv;;", ";", "application/json;charset"])
)
def test_whatever_content_type_is_answered(ready_service: InferenceService, content_type: str) -> None:
    sent = body({"dataframe_records": [ROW]})
    assert ready_service.invocations(PIPELINE, sent, {"content-type": content_type}).status in {200, 400, 415}
