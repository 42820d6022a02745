"""What the graph computes is what the feature's description says, to the last bit, alone and in a batch."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.features import FEATURES, feature_names, fit_features, select_features
from models.profiles import Profile
from models.scoring import open_session
from models.spec import PipelineSpec, parse_spec

SPEC = """
name: shops
columns:
  at: timestamp
  sold: boolean
  a: number
  b: integer
  town: category
label: {column: sold}
time: at
features:
  - a
  - {column: a, clip: [-1, 2.5], name: clipped}
  - {column: b, clip: [null, 7], name: capped}
  - {ratio: [a, b]}
  - {difference: [a, b], clip: [0, null], name: above}
  - town
  - {column: town, name: few, minimum_count: 2, maximum: 1}
  - {column: at, parts: [hour, weekday, month, day_of_year]}
  - {column: at, age_at: 2026-01-31}
categories: {minimum_count: 1}
"""
TOWNS = {"town": {"": 1, "Ghent": 5, "Porto": 3, "Łódź 😀": 1}}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def spec() -> PipelineSpec:
    return parse_spec(SPEC, source="shops.yaml")


GRAPH = fit_features(Profile(9, {}, 0.0, 1.0, {}, TOWNS), spec())
SESSION = open_session(GRAPH, threads=1)


def run(a: list[float], b: list[float], at: list[float], town: list[str]) -> np.ndarray[Any, Any]:
    feed = {"a": np.array(a), "b": np.array(b), "town": np.array(town, dtype=object), "at": np.array(at)}
    matrix: np.ndarray[Any, Any] = SESSION.run([FEATURES], feed)[0]
    return matrix


def described(a: float, b: float, at: float, town: str) -> list[float]:
    """The features in plain Python, from their description."""
    moment = EPOCH + timedelta(microseconds=round(at * 1e6)) if math.isfinite(at) else None
    parts: list[float] = [math.nan] * 4
    if moment is not None:
        parts = [moment.hour, moment.weekday(), moment.month, moment.timetuple().tm_yday]
    until = (datetime(2026, 1, 31, tzinfo=UTC) - EPOCH).total_seconds()
    difference = a - b
    return [
        a,
        a if math.isnan(a) else min(max(a, -1.0), 2.5),
        b if math.isnan(b) else min(b, 7.0),
        math.nan if b == 0 else float(np.float64(a) / np.float64(b)),
        difference if math.isnan(difference) else max(difference, 0.0),
        {"": 0.0, "NA": 0.0, "Ghent": 2.0, "Porto": 3.0, "Łódź 😀": 4.0}.get(town, 1.0),
        {"": 0.0, "NA": 0.0, "Ghent": 2.0}.get(town, 1.0),
        *parts,
        (until - at) / 86_400,
    ]


NUMBERS = st.one_of(st.just(math.nan), st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, -1.0, 2.5, 7.0, 2.0**24 + 1]))
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(  # noqa: DTZ001 - they become UTC
    lambda moment: float(int((moment.replace(tzinfo=UTC, microsecond=0) - EPOCH).total_seconds()))
)
TIMES = st.one_of(st.just(math.nan), MOMENTS)
TOWN = st.sampled_from(["", "NA", "Ghent", "Porto", "Łódź 😀", "ghent", " Ghent", "nowhere"])
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS, TIMES, TOWN), min_size=1, max_size=30)


@given(ROWS)
@settings(max_examples=200, deadline=None)
def test_features_are_what_their_description_says(rows: list[tuple[float, float, float, str]]) -> None:
    a, b, at, town = (list(column) for column in zip(*rows, strict=True))
    with np.errstate(all="ignore"):
        expected = np.array([described(*row) for row in rows], np.float32)
    np.testing.assert_array_equal(run(a, b, at, town), expected)


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_a_row_alone_gives_the_bits_of_the_batch(rows: list[tuple[float, float, float, str]]) -> None:
    a, b, at, town = (list(column) for column in zip(*rows, strict=True))
    together = run(a, b, at, town)
    alone = np.concatenate([run(*([value] for value in row)) for row in rows])  # type: ignore[arg-type]
    assert alone.tobytes() == together.tobytes()


def test_every_day_of_four_centuries_has_its_month_and_number() -> None:
    days = np.arange(146_097) - 11_000
    rows = len(days)
    matrix = run([0.0] * rows, [1.0] * rows, (days * 86_400.0 + 86_399).tolist(), ["Ghent"] * rows)
    moments = np.array(days, "datetime64[D]")
    months = moments.astype("datetime64[M]").astype(int) % 12 + 1
    numbers = (moments - moments.astype("datetime64[Y]").astype("datetime64[D]")).astype(int) + 1
    columns = dict(zip(feature_names(spec()), matrix.T, strict=True))
    np.testing.assert_array_equal(columns["at.month"], months)
    np.testing.assert_array_equal(columns["at.day_of_year"], numbers)
    np.testing.assert_array_equal(columns["at.weekday"], (days + 3) % 7)
    assert set(columns["at.hour"].tolist()) == {23.0}


@pytest.mark.parametrize("extreme", [math.inf, -math.inf, 1e300, -1e300])
def test_extremes_do_no_harm_to_the_rows_beside_them(extreme: float) -> None:
    matrix = run([1.0, extreme, 3.0], [2.0, extreme, 4.0], [0.0, extreme, 1e9], ["Ghent", "", "Porto"])
    np.testing.assert_array_equal(matrix[[0, 2]], run([1.0, 3.0], [2.0, 4.0], [0.0, 1e9], ["Ghent", "Porto"]))


def test_features_have_names() -> None:
    assert feature_names(spec()) == (
        "a", "clipped", "capped", "a/b", "above", "town", "few", "at.hour", "at.weekday", "at.month", "at.day_of_year",
        "at.age",
    )  # fmt: skip
    assert spec().inputs == ("a", "b", "town", "at")


@pytest.mark.parametrize("chosen", [[0], [3, 7], [5], [10, 11], list(range(12))])
def test_a_selection_computes_the_same_and_no_more(chosen: list[int]) -> None:
    whole = onnx.load_model_from_string(GRAPH)
    graph = select_features(whole, chosen)
    part = onnx.helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version)
    onnx.checker.check_model(part, full_check=True)
    feed = {
        "a": np.array([1.0, np.nan]),
        "b": np.array([0.0, 2.0]),
        "town": np.array(["Porto", ""], dtype=object),
        "at": np.array([1e9, np.nan]),
    }
    # What a request carries stays the same.
    assert [value.name for value in graph.input] == list(spec().inputs)
    session = open_session(part.SerializeToString(), threads=1)
    np.testing.assert_array_equal(session.run(None, feed)[0], SESSION.run(None, feed)[0][:, chosen])
    encoders = [node for node in graph.node if node.op_type == "LabelEncoder"]
    assert len(encoders) == len({5, 6} & set(chosen))
