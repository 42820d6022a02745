"""One row of JSON tensors: read and answered as every other request is, or left to what reads those."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.manifest import InputColumn, Signature
from serving import oip
from serving.errors import BadRequest
from serving.feeds import FeedReader
from serving.one_row import OneRow
from tests.serving.graphs import graph, manifest
from tests.serving.requests import JSON_VALUES, tensor

KINDS = {"n": "number", "i": "integer", "b": "boolean", "c": "category", "t": "timestamp"}
INPUTS = tuple(InputColumn(name, kind) for name, kind in KINDS.items())  # type: ignore[arg-type]
CLASSES = Signature(INPUTS, ("no", "yes"), "yes")
REGRESSION = Signature(INPUTS, (), "", "regression")
HEADERS = {"x-ratchet-model-version": "1"}
ROW = {"n": 1.5, "i": 2, "b": True, "c": "AA", "t": 60.0}


def _document(row: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"inputs": [tensor(name, "FP64", [value]) for name, value in row.items()], **fields}


def _one_row(signature: Signature) -> OneRow:
    return OneRow(manifest(1, graph(1), signature=signature), HEADERS)


@pytest.fixture(scope="module")
def one_row() -> OneRow:
    return _one_row(CLASSES)


def _fully(document: Any, signature: Signature) -> Any:
    try:
        asked = oip.read_request(document, None, signature)
        return FeedReader(signature).from_columns(asked.columns, asked.rows)
    except BadRequest:
        return None


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        dict.fromkeys(KINDS),
        dict(reversed(ROW.items())),
        {**ROW, "n": -(2**63), "i": 3.0, "b": 0, "c": "\u00e9\0"},
        {**ROW, "b": 1.0, "c": ""},
    ],
)
def test_a_plain_row_is_read_and_as_any_request(one_row: OneRow, row: dict[str, Any]) -> None:
    for fields in ({}, {"id": "42"}):
        document = orjson.loads(orjson.dumps(_document(row, **fields)))
        feed = one_row.read(document)
        assert feed is not None
        expected = _fully(document, CLASSES)
        assert feed.keys() == expected.keys()
        for name, values in feed.items():
            np.testing.assert_array_equal(values, expected[name], strict=True)


VALUES = {
    "n": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1),
    "i": st.none() | st.integers(-5, 5) | st.sampled_from([1.0, 1.5, -0.5]),
    "b": st.none() | st.booleans() | st.sampled_from([0, 1, 1.0, 2, 0.5]),
    "c": st.none() | st.text(st.characters(codec="utf-8"), max_size=3),
    "t": st.none() | st.floats(0, 2e9) | st.sampled_from(["2013-01-01", "noon"]),
}
FIELDS = {
    "name": st.sampled_from([*KINDS, "x", None, 1]),
    "datatype": st.sampled_from(["FP64", "BYTES", "FP8", 5, None, []]),
    "shape": st.sampled_from([[1.0], [True], [1, 1], [2], [0], [], ["1"], "1", {"1": 1}, None, 1]),
    "data": st.sampled_from([[[1]], [1, 2], [], "1", {"1": 1}, None, 1, [True], ["x"], [1.5], [1e300]]),
    "parameters": st.sampled_from([None, {}, [], {"binary_data_size": 8}, {"content_type": "np"}]),
}


@given(st.data())
def test_what_is_read_is_what_the_full_way_reads(one_row: OneRow, data: st.DataObject) -> None:
    row = {name: data.draw(values) for name, values in VALUES.items()}
    document = _document(row, **data.draw(st.fixed_dictionaries({}, optional={"id": JSON_VALUES | st.text()})))
    inputs = data.draw(st.permutations(document["inputs"]))
    for _ in range(data.draw(st.integers(0, 2))):
        place, field = data.draw(st.integers(0, len(KINDS) - 1)), data.draw(st.sampled_from(sorted(FIELDS)))
        inputs[place] = {**inputs[place], field: data.draw(FIELDS[field])}
    document["inputs"] = data.draw(st.sampled_from([inputs, inputs[:-1], inputs[:-1] + inputs[:1], [*inputs, "x"]]))
    try:
        document = orjson.loads(orjson.dumps(document))
    except (TypeError, orjson.JSONEncodeError):
        return  # an integer that orjson does not write
    feed = one_row.read(document)
    if feed is not None:
        expected = _fully(document, CLASSES)
        assert expected is not None, "it was refused"
        for name, values in expected.items():
            np.testing.assert_array_equal(feed[name], values, strict=True)


@given(JSON_VALUES.filter(lambda document: document != _document(ROW)))
def test_anything_else_is_left_to_the_full_way(one_row: OneRow, document: Any) -> None:
    assert one_row.read(document) is None


def test_a_feed_is_its_threads_own(one_row: OneRow) -> None:
    here = one_row.read(_document(ROW))
    assert here is not None
    before = {name: values.copy() for name, values in here.items()}
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(one_row.read, _document(dict.fromkeys(ROW))).result()
    assert there is not None
    assert all(not np.array_equal(there[name], before[name]) for name in before)
    for name, values in before.items():
        np.testing.assert_array_equal(here[name], values, strict=True)


@pytest.mark.parametrize("field", ["outputs", "parameters"])
def test_what_asks_for_more_is_left_to_the_full_way(one_row: OneRow, field: str) -> None:
    assert one_row.read(_document(ROW, **{field: {}})) is None


@pytest.mark.parametrize("signature", [CLASSES, REGRESSION], ids=["classes", "regression"])
@pytest.mark.parametrize("identifier", [None, "", '4"2\n'])
@pytest.mark.parametrize("values", [[0.25, 0.75], [0.75, 0.25], [0.5, 0.5], [1e-300, 1.0], [math.nan, math.nan]])
def test_the_answer_is_that_of_the_full_way(signature: Signature, identifier: str | None, values: list[float]) -> None:
    answers = np.array([values[: signature.width]])
    wanted = tuple((name, False) for name in oip.output_names(signature))
    asked = oip.InferenceRequest(identifier, {}, 1, wanted)
    expected = oip.write_answer(asked, manifest(1, graph(1), signature=signature), answers, HEADERS)
    assert _one_row(signature).write(identifier, answers) == expected
