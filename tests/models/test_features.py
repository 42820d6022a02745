from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models import features
from models.features import compute_matrix, feature_names, feeds, fit_features, signature
from models.manifest import InputColumn, Signature
from models.partitions import clean_partition
from models.profiles import Profile, merge, profile
from models.spec import PipelineSpec
from models.texts import MISSING_TEXTS
from tests.models.flights import ROOT, csv, files, flight_delays, rows, small


def cleaned(count: int = 600, seed: int = 7) -> pl.DataFrame:
    return clean_partition(files(rows(count, seed=seed))["a.csv"], name="a.csv", spec=small()).frame


def encoded(row: dict[str, Any], seen: Profile, spec: PipelineSpec) -> list[float]:
    """The encoding in plain Python, from its description."""
    codes = []
    for name in spec.inputs:
        value = row[name]
        if spec.columns[name].type != "category":
            codes.append(math.nan if value is None else value)
            continue
        counts = {text: n for text, n in seen.categories[name].items() if text and n >= spec.categories.minimum_count}
        order = sorted(counts, key=lambda text: (-counts[text], text))[: spec.categories.maximum]
        codes.append(0.0 if value == "" else order.index(value) + 2.0 if value in order else 1.0)
    return codes


def test_the_graph_encodes_as_plain_python_does() -> None:
    spec, taught, other = small(), cleaned(), cleaned(seed=8)
    seen = profile(taught, spec)
    other = other.with_columns(carrier=pl.when(pl.col("hour") == 3).then(pl.lit("Zż9")).otherwise("carrier"))

    matrix = compute_matrix(fit_features(seen, spec), other, spec)

    expected = np.array([encoded(row, seen, spec) for row in other.iter_rows(named=True)], np.float32)
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    np.testing.assert_array_equal(matrix, expected)
    assert {0.0, 1.0, 2.0, 3.0, 4.0} == set(matrix[:, 0].tolist())
    assert np.isnan(matrix[:, 2]).any()


def test_ranks_follow_frequency_then_name_and_their_bounds() -> None:
    counts = {"": 90, "rare": 1, "b": 5, "a": 5, "often": 9, "least": 2}
    origins = {"JFK": 10}
    seen = Profile(112, {}, 0.0, 1.0, {}, {"carrier": counts, "origin": origins})
    names = ["", "often", "a", "b", "least", "rare", "never seen", " a", "A", *MISSING_TEXTS]
    frame = pl.DataFrame({"carrier": names, "origin": ["JFK"] * len(names)}).with_columns(
        distance=pl.lit(0.0), hour=pl.lit(0.0), weekend=pl.lit(0.0)
    )

    codes = compute_matrix(fit_features(seen, small()), frame, small())[:, 0]

    assert codes.tolist() == [0, 2, 3, 4, 1, 1, 1, 1, 1, *[0] * len(MISSING_TEXTS)]


def test_one_row_gives_the_bits_of_the_batch_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, frame = small(), cleaned(300)
    graph = fit_features(profile(frame, spec), spec)
    whole = compute_matrix(graph, frame, spec)

    monkeypatch.setattr(features, "BATCH_ROWS", 7)
    assert compute_matrix(graph, frame, spec, threads=2).tobytes() == whole.tobytes()
    monkeypatch.setattr(features, "BATCH_ROWS", 1)
    assert compute_matrix(graph, frame, spec).tobytes() == whole.tobytes()


@given(st.lists(st.one_of(st.text(max_size=14), st.text("aé\0", min_size=11, max_size=13)), min_size=1), st.data())
@example(["a\0", "a", "\0", ""], None)
@example(["a" * 11, "", "é" * 5 + "a"], None)
@example(["a" * 12, "b", "é" * 6], None)
@example(["a", "a" * 13], None)
def test_texts_of_any_length_and_kind_are_encoded_as_the_graph_encodes_them(
    texts: list[str], data: st.DataObject | None
) -> None:
    frame = pl.DataFrame({"carrier": texts}).with_columns(
        origin=pl.lit("JFK"), distance=pl.lit(0.0), hour=pl.lit(0.0), weekend=pl.lit(0.0)
    )
    counts = dict.fromkeys(sorted(set(texts)), 9)
    graph = fit_features(Profile(len(texts), {}, 0.0, 1.0, {}, {"carrier": counts, "origin": {"JFK": 9}}), small())
    # A view into a longer column begins elsewhere in its memory.
    frame = frame[data.draw(st.integers(0, len(texts) - 1)) :] if data else frame

    expected = onnxruntime.InferenceSession(graph).run(["features"], feeds(frame, small()))[0]

    assert compute_matrix(graph, frame, small()).tobytes() == expected.tobytes()


def test_no_rows_make_an_empty_matrix() -> None:
    spec, frame = small(), cleaned(300)
    graph = fit_features(profile(frame, spec), spec)

    assert compute_matrix(graph, frame.clear(), spec).shape == (0, 5)
    assert onnxruntime.InferenceSession(graph).run(None, feeds(frame.clear(), spec))[0].shape == (0, 5)


def test_a_profile_without_rows_still_makes_a_graph() -> None:
    frame = cleaned(50)
    graph = fit_features(profile(frame.clear(), small()), small())

    assert set(compute_matrix(graph, frame, small())[:, 0].tolist()) <= {0.0, 1.0}


def test_the_graph_is_what_the_signature_says() -> None:
    spec = small()
    model = onnx.load_from_string(fit_features(profile(cleaned(), spec), spec))
    session = onnxruntime.InferenceSession(model.SerializeToString())

    kinds = {"tensor(double)": {"number", "integer", "boolean"}, "tensor(string)": {"category"}}
    shape = signature(spec)
    assert [node.name for node in session.get_inputs()] == [column.name for column in shape.inputs]
    assert all(column.kind in kinds[node.type] for node, column in zip(session.get_inputs(), shape.inputs, strict=True))
    assert all(node.shape == ["N"] for node in session.get_inputs())
    (output,) = session.get_outputs()
    assert (output.name, output.type, output.shape) == ("features", "tensor(float)", ["N", 5])
    assert {(opset.domain, opset.version) for opset in model.opset_import} == {("", 21), ("ai.onnx.ml", 5)}


def test_only_operators_that_compute_nothing_are_used() -> None:
    spec = small()
    model = onnx.load_from_string(fit_features(profile(cleaned(), spec), spec))

    assert {node.op_type for node in model.graph.node} <= {"LabelEncoder", "Concat", "Cast", "Reshape", "Transpose"}


def test_signature_and_names_follow_the_spec() -> None:
    spec = small(label="label: {expression: delay > 15, negative: on time, positive: late}")

    assert feature_names(spec) == ("carrier", "origin", "distance", "hour", "weekend")
    assert signature(spec) == Signature(
        inputs=(
            InputColumn("carrier", "category"),
            InputColumn("origin", "category"),
            InputColumn("distance", "number"),
            InputColumn("hour", "integer"),
            InputColumn("weekend", "boolean"),
        ),
        classes=("on time", "late"),
        positive="late",
    )
    strict = signature(small(quality="requests: {unknown_columns: ignore, missing_columns: error}"))
    assert (strict.unknown_columns, strict.missing_columns) == ("ignore", "error")


def test_feeds_have_nan_and_empty_text_for_missing() -> None:
    line = "2013-04-01,20,NA,JFK,NA,5,NA"
    columns = feeds(clean_partition(csv(line), name="a.csv", spec=small()).frame, small())

    assert list(columns) == list(small().inputs)
    assert columns["carrier"].dtype == object
    assert columns["carrier"].tolist() == [""]
    assert columns["distance"].dtype == np.float64
    assert np.isnan(columns["distance"]).all()
    assert np.isnan(columns["weekend"]).all()


def test_a_column_may_have_any_name() -> None:
    text = small(carrier="  'a b, ü/:0': category")
    frame = cleaned(100).rename({"carrier": "a b, ü/:0"})

    matrix = compute_matrix(fit_features(profile(frame, text), text), frame, text)

    assert matrix.shape == (frame.height, 5)


def test_equal_profiles_give_equal_bytes_in_any_order_and_process() -> None:
    parts = [profile(cleaned(200, seed=seed), small()) for seed in range(4)]
    graph = fit_features(merge(parts), small())

    assert fit_features(merge(reversed(parts)), small()) == graph
    program = (
        "import sys; from models.features import fit_features; from models.profiles import Profile;"
        "from tests.models.flights import small;"
        "sys.stdout.buffer.write(fit_features(Profile.from_bytes(sys.stdin.buffer.read()), small()))"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], input=merge(parts).to_bytes(), capture_output=True, cwd=ROOT, check=True
    )
    assert other.stdout == graph


def test_the_shipped_pipeline_makes_a_small_graph() -> None:
    spec = flight_delays()
    categories = {name: {f"C{i}": 100 + i for i in range(100)} for name in ("carrier", "origin", "dest")}

    assert len(fit_features(Profile(1, {}, 0.0, 1.0, {}, categories), spec)) < 20_000
