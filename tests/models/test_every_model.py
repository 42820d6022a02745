"""Whatever a pipeline may ask for, both graphs answer as LightGBM does, and as each other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import lightgbm as lgb
import numpy as np
import onnx
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.errors import RatchetError
from models.export import ExportKind, export, opset_of
from models.features import compute_matrix, feature_names, feeds, fit_features, signature
from models.golden import golden_rows
from models.manifest import HoldoutRule
from models.matrices import matrix_part
from models.parity import ParityReport, _Comparison, check_parity
from models.partitions import LABEL, TIME
from models.profiles import merge, profile
from models.scoring import open_session, score
from models.spec import OBJECTIVES, PipelineSpec, parse_spec
from models.training import TrainedModel, TrainingError, train

KINDS: tuple[ExportKind, ...] = ("exact", "portable")
SPEC = """
name: shops
task: {task}
columns:
  at: timestamp
  born: timestamp
  y: {label_type}
  price: number
  visits: number
  open: boolean
  town: category
label: {{column: y{classes}}}
time: at
categories: {{minimum_count: 2}}
features:
{features}
training:
  {{rounds: 12, minimum_rows: 10, {training}parameters: {{num_leaves: 15, min_data_in_leaf: 3{parameters}}}}}
"""
LABEL_TYPES = {"binary": "integer", "multiclass": "category", "regression": "number"}
EVERY_FEATURE = (
    "price",
    "{column: visits, clip: [0, 5]}",
    "{ratio: [price, visits]}",
    "{difference: [price, visits]}",
    "open",
    "town",
    "{column: at, parts: [hour, weekday, month, day_of_year]}",
    "{column: born, age_at: 2026-01-01}",
)


def spec(
    task: str, training: str = "", parameters: str = "", features: tuple[str, ...] = EVERY_FEATURE
) -> PipelineSpec:
    text = SPEC.format(
        task=task,
        label_type=LABEL_TYPES[task],
        classes=", classes: [a, b, c]" if task == "multiclass" else "",
        features="\n".join(f"  - {feature}" for feature in features),
        training=f"{training}, " if training else "",
        parameters=f", {parameters}" if parameters else "",
    )
    return parse_spec(text, source="shops.yaml")


def frame(task: str, rows: int = 700, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    price, at = rng.normal(0, 1, rows), rng.integers(0, 4 * 10**9, rows).astype(float)
    visits = rng.choice([0.0, -1e-35, 1e-35, 1, 2, 7.5], rows)
    lean = price + (visits > 1) + np.sin(at % 86_400 / 86_400 * 2 * np.pi)
    labels = {
        "binary": (rng.random(rows) < 1 / (1 + np.exp(-lean))).astype(np.uint8),
        "multiclass": np.clip(np.round(lean), 0, 2).astype(np.uint16),
        "regression": np.abs(lean * 30) + 1,
    }
    price[rng.random(rows) < 0.1] = np.nan
    return pl.DataFrame(
        {
            "price": pl.Series(price, nan_to_null=True),
            "visits": visits,
            "open": rng.choice([0.0, 1.0], rows),
            "town": rng.choice(["Ghent", "Porto", "", "Łódź"], rows),
            "at": at,
            "born": at - 1e6 * rng.random(rows),
            LABEL: labels[task],
            TIME: np.arange(rows, dtype=np.float64),
        }
    )


@dataclass(frozen=True, slots=True)
class Made:
    spec: PipelineSpec
    trained: TrainedModel
    features: bytes
    frame: pl.DataFrame

    def graph(self, kind: ExportKind) -> bytes:
        return export(self.trained.booster_text, self.features, signature(self.spec), kind=kind)

    def parity(self, kind: ExportKind) -> ParityReport:
        batches = [feeds(self.frame, self.spec)]
        columns = self.spec.feature_columns
        return check_parity(
            self.graph(kind), self.trained.booster_text, self.features, batches, columns=columns, kind=kind
        )


def make(of: PipelineSpec, data: pl.DataFrame) -> Made:
    features = fit_features(profile(data, of), of)
    part = matrix_part(compute_matrix(features, data, of), data, key="p")
    names = feature_names(of)
    trained = train([part], spec=of, feature_names=names, threads=1, holdout=HoldoutRule("time", 1e18))
    return Made(of, trained, features, data)


BAGGING = "bagging_fraction: 0.6, bagging_freq: 1"
MODELS = [
    ("binary", "", ""),
    ("binary", "boosting: dart", ""),
    ("binary", "boosting: rf", BAGGING),
    ("binary", "", "sigmoid: 2.5"),
    ("binary", "", "data_sample_strategy: goss"),
    ("binary", "", "is_unbalance: true"),
    ("binary", "", "use_missing: false"),
    ("binary", "", "extra_trees: true, max_bin: 15"),
    ("binary", "", "use_quantized_grad: true"),
    ("binary", "", "boost_from_average: false"),
    ("binary", "class_weights: balanced", ""),
    ("multiclass", "", ""),
    ("multiclass", "boosting: dart", ""),
    ("multiclass", "boosting: rf", BAGGING),
    ("regression", "", ""),
    ("regression", "objective: regression_l1", ""),
    ("regression", "objective: huber", "alpha: 5.0"),
    ("regression", "objective: fair", "fair_c: 2.0"),
    ("regression", "objective: quantile", "alpha: 0.8"),
    ("regression", "objective: mape", ""),
    ("regression", "objective: poisson", ""),
    ("regression", "objective: gamma", ""),
    ("regression", "objective: tweedie", "tweedie_variance_power: 1.3"),
    ("regression", "", "reg_sqrt: true"),
    ("regression", "monotone: {price: increasing}", ""),
    ("regression", "", "path_smooth: 10, max_delta_step: 0.5, lambda_l1: 1"),
    *(("regression", f"boosting: dart, objective: {name}", "") for name in OBJECTIVES["regression"]),
    *(("regression", f"boosting: rf, objective: {name}", BAGGING) for name in OBJECTIVES["regression"]),
    ("regression", "boosting: rf", f"reg_sqrt: true, {BAGGING}"),
    ("regression", "boosting: rf", f"boost_from_average: false, {BAGGING}"),
    ("regression", "", "use_quantized_grad: true, quant_train_renew_leaf: true"),
    ("binary", "boosting: rf", f"sigmoid: 0.7, use_missing: false, {BAGGING}"),
    ("binary", "boosting: dart", "is_unbalance: true, xgboost_dart_mode: true, uniform_drop: true"),
    ("binary", "", "scale_pos_weight: 3, max_depth: 1"),
    ("multiclass", "class_weights: balanced", "boost_from_average: false, use_missing: false"),
    ("multiclass", "", "data_sample_strategy: goss, use_quantized_grad: true"),
]


@pytest.mark.parametrize(("task", "training", "parameters"), MODELS, ids=["; ".join(filter(None, m)) for m in MODELS])
def test_both_graphs_answer_as_lightgbm_does(task: str, training: str, parameters: str) -> None:
    made = make(spec(task, training, parameters), frame(task))
    answers = {}
    for kind in KINDS:
        report = made.parity(kind)
        assert report.passed, report.sentence()
        assert report.adversarial_rows > 5_000
        answers[kind] = score(made.graph(kind), feeds(made.frame, made.spec))
        assert opset_of(made.graph(kind))["ai.onnx.ml"] == {"exact": 5, "portable": 4}[kind]
    scale = 1.0 if task != "regression" else float(np.abs(answers["exact"]).max())
    np.testing.assert_allclose(answers["portable"], answers["exact"], rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("task", ["multiclass", "regression"])
@pytest.mark.parametrize("objective", ["", "objective: tweedie"])
def test_a_row_alone_and_in_a_batch_give_the_same_bits(task: str, objective: str) -> None:
    if task == "multiclass" and objective:
        return
    made = make(spec(task, objective), frame(task))
    session = open_session(made.graph("exact"), threads=1)
    feed = feeds(made.frame[:101], made.spec)
    together = session.run(None, feed)[0]
    for row in range(101):
        alone = session.run(None, {name: values[row : row + 1] for name, values in feed.items()})[0]
        assert alone.tobytes() == together[row : row + 1].tobytes()


def test_features_that_no_tree_uses_are_not_computed_but_still_taken() -> None:
    data = frame("binary").with_columns(town=pl.lit("Ghent"), open=pl.lit(1.0))
    made = make(spec("binary"), data)
    for kind in KINDS:
        graph = onnx.load_model_from_string(made.graph(kind)).graph
        assert [value.name for value in graph.input] == list(made.spec.inputs)
        assert "LabelEncoder" not in {node.op_type for node in graph.node}
        assert made.parity(kind).passed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_model_without_a_split_answers_every_row_alike(task: str, kind: ExportKind) -> None:
    made = make(spec(task, parameters="min_gain_to_split: 1000000"), frame(task))
    answers = score(made.graph(kind), feeds(made.frame, made.spec))
    assert len(answers) == made.frame.height
    assert len(np.unique(answers, axis=0)) == 1
    assert made.parity(kind).passed


def test_a_breach_shows_the_row() -> None:
    made, other = (make(spec("binary"), frame("binary", seed=seed)) for seed in (0, 1))
    report = check_parity(
        other.graph("exact"),
        made.trained.booster_text,
        made.features,
        [feeds(made.frame, made.spec)],
        columns=made.spec.feature_columns,
        kind="exact",
    )
    assert not report.passed
    assert report.flips > 0
    assert report.breach is not None
    assert set(report.breach.inputs) == set(made.spec.inputs)
    assert np.argmax(report.breach.expected) != np.argmax(report.breach.actual)
    assert "of the row price=" in report.sentence()
    assert ParityReport.from_dict(report.to_dict()) == report


# Anything that data may look like.

TEXTS = st.one_of(st.sampled_from(["", "NA", "Ghent", "ghent", "Łódź", "😀", "a\nb", "x" * 300]), st.text(max_size=4))
CELLS = st.one_of(
    st.none(),
    st.sampled_from([0.0, -0.0, 1e-40, 1e-35, -1e-35, 2.0**24 + 1, 2.0**53, 1e38, 1e39, -1e300, 1.0, 2.0]),
    st.floats(-100, 100, width=32),
)


@st.composite
def pipelines(draw: Any) -> tuple[PipelineSpec, pl.DataFrame]:
    """A spec with some of the features, and a frame with whatever cells: constant, empty, huge, repeated."""
    task = draw(st.sampled_from(["binary", "multiclass", "regression"]))
    features = tuple(
        draw(st.lists(st.sampled_from(EVERY_FEATURE), min_size=1, max_size=len(EVERY_FEATURE), unique=True))
    )
    features += ("{column: price, name: twin}",)
    training = draw(st.sampled_from(["", "boosting: dart", "half_life_days: 0.001"]))
    rows = draw(st.integers(30, 80))
    pools = {name: draw(st.lists(CELLS, min_size=1, max_size=6)) for name in ("price", "visits")}
    pools["at"] = pools["born"] = draw(
        st.lists(st.one_of(st.none(), st.integers(-(10**10), 10**11).map(float)), min_size=1, max_size=5)
    )
    pools["open"] = draw(st.sampled_from([[None], [1.0], [0.0, 1.0, None]]))
    pools["town"] = draw(st.lists(TEXTS, min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtypes = dict.fromkeys(pools, pl.Float64()) | {"town": pl.String()}
    columns: dict[str, Any] = {
        name: pl.Series([pool[index] for index in rng.integers(0, len(pool), rows)], dtype=dtypes[name])
        for name, pool in pools.items()
    }
    labels = rng.integers(0, {"binary": 2, "multiclass": 3, "regression": 50}[task], rows)
    dtype = {"binary": np.uint8, "multiclass": np.uint16, "regression": np.float64}[task]
    frame_ = pl.DataFrame({**columns, LABEL: labels.astype(dtype), TIME: np.arange(rows, dtype=np.float64)})
    return spec(task, training, features=features), frame_


@contextmanager
def closest_classes() -> Iterator[list[float]]:
    """How far apart the two likeliest classes are in the closest of the rows of each comparison that parity makes."""
    margins: list[float] = []
    compared = _Comparison.add

    def add(self: _Comparison, expected: np.ndarray[Any, Any], *others: Any) -> int:
        if self.classes and len(expected):
            likeliest = np.sort(expected, axis=1)[:, -2:]
            margins.append(float((likeliest[:, 1] - likeliest[:, 0]).min()))
        return compared(self, expected, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Comparison, "add", add)
        yield margins


@given(pipelines())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_pipeline_over_any_data_is_exported_exactly(drawn: tuple[PipelineSpec, pl.DataFrame]) -> None:
    of, data = drawn
    try:
        made = make(of, data)
    except TrainingError:
        return  # Too few rows, or all of one class: its own tests say which.
    for kind in KINDS:
        with closest_classes() as margins:
            report = made.parity(kind)
        assert report.worst <= report.tolerance, report.sentence()
        # Two classes that the model itself holds for equally likely have no order that float32 could keep.
        tied = kind == "portable" and min(margins, default=1.0) <= 2 * report.tolerance
        assert tied or not report.flips, report.sentence()
        assert report.passed or tied, report.sentence()
    golden = golden_rows(made.graph("exact"), feeds(data, of))
    assert all(math.isfinite(value) for row in golden.probabilities for value in row)


@given(pipelines(), st.lists(st.integers(0, 80), max_size=3), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_the_graph_does_not_depend_on_how_rows_are_cut_and_ordered(
    drawn: tuple[PipelineSpec, pl.DataFrame], cuts: list[int], dice: Any
) -> None:
    of, data = drawn
    edges = [0, *sorted(cut for cut in cuts if cut <= data.height), data.height]
    parts = [profile(data[start:stop], of) for start, stop in pairwise(edges)]
    dice.shuffle(parts)
    assert fit_features(merge(parts), of) == fit_features(profile(data, of), of)


@pytest.mark.parametrize("rows", [0, 1])
def test_no_rows_and_one_row_say_what_is_missing(rows: int) -> None:
    with pytest.raises(TrainingError) as caught:
        make(spec("binary"), frame("binary")[:rows])
    assert isinstance(caught.value, RatchetError)
    assert caught.value.code == "too_few_rows"


def test_ten_thousand_categories_are_ranked_and_capped() -> None:
    rows = 30_000
    rng = np.random.default_rng(0)
    data = frame("binary", rows).with_columns(
        town=pl.Series([f"T{number}" for number in rng.integers(0, 10_000, rows)])
    )
    made = make(spec("binary", features=("{column: town, maximum: 10000, minimum_count: 1}", "price")), data)
    matrix = compute_matrix(made.features, data, made.spec)
    assert len(np.unique(matrix[:, 0])) == data["town"].n_unique()
    assert all(made.parity(kind).passed for kind in KINDS)


def test_integers_beyond_what_float32_holds_are_read_alike_in_training_and_serving() -> None:
    data = frame("binary").with_columns(price=pl.Series(2.0**24 + np.arange(700) % 7))
    made = make(spec("binary", features=("price",)), data)
    assert all(made.parity(kind).passed for kind in KINDS)
    expected = lgb.Booster(model_str=made.trained.booster_text).predict(compute_matrix(made.features, data, made.spec))
    answers = score(made.graph("exact"), feeds(data, made.spec))[:, 1]
    np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-12)
