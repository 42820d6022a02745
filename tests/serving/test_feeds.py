"""Requests to graph inputs."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.cells import read_columns
from models.manifest import InputColumn, Signature
from models.spec import Column
from models.texts import ISO_8601
from serving.errors import BadRequest
from serving.feeds import FeedReader

READER = FeedReader(
    Signature(
        inputs=(
            InputColumn("n", "number"),
            InputColumn("i", "integer"),
            InputColumn("b", "boolean"),
            InputColumn("c", "category"),
            InputColumn("t", "timestamp"),
        ),
        classes=("no", "yes"),
        positive="yes",
    )
)


def test_each_kind_has_its_dtype() -> None:
    feed = READER.from_records([{"n": 1, "i": 2, "b": True, "c": "AA", "t": "1970-01-01T00:01:00Z"}])
    assert {name: values.dtype for name, values in feed.items()} == {
        "n": np.float64,
        "i": np.float64,
        "b": np.float64,
        "c": object,
        "t": np.float64,
    }
    assert [feed[name][0] for name in "nibct"] == [1.0, 2.0, 1.0, "AA", 60.0]


@pytest.mark.parametrize("record", [{}, {"n": None, "i": None, "b": None, "c": None, "t": None}])
def test_null_and_absent_are_missing(record: dict[str, Any]) -> None:
    feed = READER.from_records([record])
    assert all(math.isnan(feed[name][0]) for name in "nibt")
    assert feed["c"][0] == ""


MISTAKES = [
    ({"n": "1"}, "n", "is not a number"),
    ({"n": True}, "n", "is not a number"),
    ({"n": 10**400}, "n", "is too large"),
    ({"n": math.inf}, "n", "is not a finite number"),
    ({"i": -math.inf}, "i", "is not a finite number"),
    ({"i": 1.5}, "i", "is not an integer"),
    ({"b": 2}, "b", "is not true or false"),
    ({"b": "true"}, "b", "is not true or false"),
    ({"c": 5}, "c", "is not a text"),
    ({"t": "yesterday"}, "t", "is not an ISO 8601 time"),
    ({"t": [1]}, "t", "is not a number"),
    ({"x": 1}, "x", "no column 'x'"),
]


@pytest.mark.parametrize(("record", "column", "reason"), MISTAKES)
def test_a_mistake_names_row_and_column(record: dict[str, Any], column: str, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as caught:
        READER.from_records([{"n": 1}, record])
    assert (caught.value.row, caught.value.column) == (1, column)


def _strict(**policies: Any) -> FeedReader:
    inputs = (InputColumn("n", "number"), InputColumn("c", "category"))
    return FeedReader(Signature(inputs, ("no", "yes"), "yes", **policies))


def test_unknown_columns_are_ignored_where_the_spec_says_so() -> None:
    reader = _strict(unknown_columns="ignore")
    feed = reader.from_records([{"n": 1, "x": [2]}, {"y": 3}])
    assert feed.keys() == {"n", "c"}
    assert feed["n"].tolist()[0] == 1.0
    assert reader.from_columns({"n": [1], "x": ["?"]}, 1)["n"].tolist() == [1.0]


def test_missing_columns_are_an_error_where_the_spec_says_so() -> None:
    reader = _strict(missing_columns="error")
    assert reader.from_records([{"n": None, "c": None}])["c"].tolist() == [""], "null is a value: it says missing"
    with pytest.raises(BadRequest, match="row 1: the column c is missing; the model takes: n, c") as caught:
        reader.from_records([{"n": 1, "c": "AA"}, {"n": 1}])
    assert (caught.value.row, caught.value.column) == (1, "c")
    with pytest.raises(BadRequest, match=r"^the column n is missing") as caught:
        reader.from_columns({"c": ["AA"]}, 1)
    assert (caught.value.row, caught.value.column) == (None, "n")


def test_a_version_without_the_policies_has_the_defaults() -> None:
    old = {"inputs": [{"name": "n", "kind": "number"}], "classes": ["no", "yes"], "positive": "yes"}
    signature = Signature.from_dict(old)
    assert (signature.unknown_columns, signature.missing_columns) == ("error", "missing")
    strict = Signature.from_dict({**old, "unknown_columns": "ignore", "missing_columns": "error"})
    assert Signature.from_dict(json.loads(json.dumps(dataclasses.asdict(strict)))) == strict


@pytest.mark.parametrize("records", [["text"], [None], [[1, 2]]])
def test_records_are_objects(records: list[Any]) -> None:
    with pytest.raises(BadRequest):
        READER.from_records(records)


def test_whole_records_are_read_in_any_order_of_their_columns() -> None:
    whole = {"n": 1, "i": 2, "b": True, "c": "AA", "t": 60}
    feed = READER.from_records([whole, dict(reversed(whole.items()))])
    assert [feed[name].tolist() for name in "nibct"] == [[1.0] * 2, [2.0] * 2, [1.0] * 2, ["AA"] * 2, [60.0] * 2]
    with pytest.raises(BadRequest, match="row 1: the model has no column 'x'"):
        READER.from_records([whole, {**{name: whole[name] for name in "nibc"}, "x": 1}])


def test_columns_have_the_same_length() -> None:
    with pytest.raises(BadRequest, match="c has 1 values; other columns have 2"):
        READER.from_columns({"n": [1, 2], "c": ["AA"]}, 2)


ARRAYS = {
    "n": st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(2**60), 2**60) | st.booleans(),
    "i": st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(2**53), 2**53) | st.booleans(),
    "b": st.sampled_from([0.0, 1.0, math.nan, 0.5, -1.0, 2.0]) | st.booleans() | st.integers(-1, 2),
    "c": st.integers(0, 1) | st.booleans() | st.floats(),
    "t": st.floats(0, 2e9) | st.integers(0, 2**31),
}


@given(st.data(), st.sampled_from("nibct"), st.sampled_from([np.float64, np.float32, np.int64, np.bool_]))
def test_an_array_is_read_like_its_values(data: st.DataObject, name: str, dtype: type[np.generic]) -> None:
    values = data.draw(st.lists(ARRAYS[name].filter(lambda value: _fits(value, dtype)), min_size=1, max_size=5))
    with np.errstate(over="ignore"):
        array = np.array(values, dtype)
    alone, one_by_one = _outcome({name: array}), _outcome({name: array.tolist()})
    np.testing.assert_equal(alone, one_by_one)


def _fits(value: float, dtype: type[np.generic]) -> bool:
    return (
        dtype in {np.float64, np.float32} or isinstance(value, bool) or (isinstance(value, int) and dtype != np.bool_)
    )


def _outcome(columns: dict[str, Any]) -> Any:
    try:
        feed = READER.from_columns(columns, len(next(iter(columns.values()))))
    except BadRequest as exc:
        return str(exc), exc.row, exc.column
    return {name: values.tolist() for name, values in feed.items()}


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "n": st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60),
        "i": st.none() | st.integers(-(2**53), 2**53),
        "b": st.none() | st.booleans(),
        "c": st.none() | st.text(max_size=5),
        "t": st.none() | st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    },
)


@given(st.lists(VALUES, min_size=1, max_size=8))
def test_records_and_columns_give_the_same_feed(records: list[dict[str, Any]]) -> None:
    columns = {name: [record.get(name) for record in records] for name in "nibct"}
    by_record, by_column = READER.from_records(records), READER.from_columns(columns, len(records))
    for name in "nibct":
        np.testing.assert_array_equal(by_record[name], by_column[name])


@example("0001-01-02T00:00:00.000305")
@example("9999-12-30T23:59:59.999907")
@given(
    st.from_regex(ISO_8601, fullmatch=True)
    | st.sampled_from(["0000-01-01", "2013-02-30", "2013-01-31Z", "2013-W05", "20130131"])
)
def test_a_time_means_in_a_request_what_it_means_in_a_file(text: str) -> None:
    column = read_columns(pl.DataFrame({"t": [text]}), {"t": Column(type="timestamp")})["t"]
    if column.wrong[0]:
        with pytest.raises(BadRequest, match="is not an ISO 8601 time"):
            READER.from_records([{"t": text}])
    else:
        instant = column.values.cast(pl.Int64)[0] / 1e6
        assert READER.from_records([{"t": text}])["t"].tolist() == [instant]
