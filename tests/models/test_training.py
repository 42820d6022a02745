"""Training: what teaches, what only stops, and that the same data teach the same model."""

from __future__ import annotations

import re
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl
import pytest

from models import teaching
from models.features import feature_names, fit_features
from models.manifest import HoldoutRule
from models.matrices import MatrixPart
from models.partitions import LABEL, TIME
from models.profiles import profile
from models.spec import parse_spec
from models.training import TrainedModel, TrainingError, train
from tests.models.boosters import FAR, frame, parts, spec, trained


def _train(data: pl.DataFrame, *, holdout: HoldoutRule = FAR, threads: int = 1, **training: Any) -> TrainedModel:
    of = spec(**training)
    graph = fit_features(profile(data, of), of)
    return train(parts(data, graph, of), spec=of, feature_names=feature_names(of), threads=threads, holdout=holdout)


def test_it_learns() -> None:
    made = trained()
    assert made.model.curve[-1] < 0.69
    assert made.model.importance["price"] > 0
    assert set(made.model.importance) == {"price", "visits", "town"}


def test_the_same_rows_give_the_same_text_on_any_number_of_threads() -> None:
    data = frame(600)
    texts = {_train(data, threads=threads).booster_text for threads in (1, 1, 2)}
    assert len(texts) == 1


def test_another_seed_gives_another_model() -> None:
    parameters = {"feature_fraction": 0.5}
    data = frame(600)
    assert _train(data, parameters=parameters).booster_text != _train(data, seed=8, parameters=parameters).booster_text


def test_the_holdout_teaches_nothing() -> None:
    data = frame(800)
    spoilt = data.with_columns(
        pl.when(pl.col(TIME) >= 500).then(1 - pl.col(LABEL)).otherwise(pl.col(LABEL)).alias(LABEL)
    )
    of = spec()
    graph = fit_features(profile(data, of), of)
    names = feature_names(of)
    texts = {
        train(
            parts(each, graph, of), spec=of, feature_names=names, threads=1, holdout=HoldoutRule("time", 500)
        ).booster_text
        for each in (data, spoilt.with_columns(pl.col(LABEL).cast(pl.UInt8)))
    }
    assert len(texts) == 1


def test_validation_rows_only_decide_when_to_stop() -> None:
    made = _train(frame(1000), rounds=500, early_stopping=5)
    assert made.training_rows + made.validation_rows == 1000
    assert 50 < made.validation_rows < 150
    assert made.best_iteration < 500
    assert made.curve[made.best_iteration - 1] == min(made.curve)


def test_too_few_rows_teach_nothing() -> None:
    with pytest.raises(TrainingError, match=r"rows are left to train on, beside .* asks for 50") as caught:
        _train(frame(40))
    assert caught.value.code == "too_few_rows"


def test_too_few_rows_beside_a_holdout_of_groups_are_told_as_such() -> None:
    held = "holdout: {by: group, column: town, fraction: 0.5}"
    with pytest.raises(TrainingError, match="each group has a chance of 50% to be in it") as caught:
        _fit(_part(rows=20), held, holdout=HoldoutRule("group", fraction=0.5, column="town"))
    assert caught.value.code == "too_few_rows"


def test_everything_in_the_holdout_teaches_nothing() -> None:
    with pytest.raises(TrainingError) as caught:
        _train(frame(200), holdout=HoldoutRule("time", 0))
    assert (caught.value.code, caught.value.rows) == ("too_few_rows", 0)


def test_one_class_teaches_nothing() -> None:
    data = frame(300).with_columns(pl.lit(1, pl.UInt8).alias(LABEL))
    with pytest.raises(TrainingError, match="All training rows are 'yes'") as caught:
        _train(data)
    assert caught.value.code == "one_class"


def test_the_summary_is_plain_and_without_the_booster() -> None:
    summary = trained().model.summary()
    assert "booster_text" not in summary
    assert summary["best_iteration"] == trained().model.best_iteration
    assert np.isfinite(summary["curve"]).all()


# Weights, windows, classes, directions.

DAYS = 86_400.0


def _part(rows: int = 1200, seed: int = 0, *, days: float = 120.0, task: str = "binary") -> MatrixPart:
    """Two features; the second one only matters in the second half of the time."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 2)).astype(np.float32)
    time = np.linspace(0, days * DAYS, rows, endpoint=False)
    lean = x[:, 0] + np.where(time > days * DAYS / 2, 2 * x[:, 1], 0) + rng.normal(0, 0.5, rows)
    y = {"binary": lean > 0, "multiclass": np.digitize(lean, [-1, 1]), "regression": lean}[task]
    fold, weight = rng.random(rows), np.ones(rows, np.float32)
    return MatrixPart(x=x, y=y.astype(np.float64), time=time, fold=fold, weight=weight)


def _fit(part: MatrixPart, extra: str = "", *, label: str = "label: {column: sold}", **how: Any) -> TrainedModel:
    text = f"""
name: shops
columns: {{at: timestamp, sold: number, a: number, b: number, w: number, town: category}}
{label}
time: at
features: [a, b]
{extra}
"""
    if "training:" not in extra:
        text += "training: {rounds: 30, minimum_rows: 50, parameters: {min_data_in_leaf: 5, num_leaves: 7}}\n"
    spec_ = parse_spec(text, source="shops.yaml")
    return train([part], spec=spec_, feature_names=("a", "b"), threads=1, **{"holdout": FAR, **how})


REGRESSION = "task: regression\nlabel: {column: sold}"


def test_rows_in_batches_make_the_same_model_as_rows_that_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    copied = _fit(_part())
    monkeypatch.setattr(teaching, "COPIED_BYTES", 0)
    monkeypatch.setattr(teaching.PartRows, "batch_size", 100)
    assert _fit(_part()).booster_text == copied.booster_text


def test_a_mapped_file_makes_the_same_model_as_memory(tmp_path: Any) -> None:
    path = tmp_path / "part.bin"
    path.write_bytes(_part().to_bytes())
    mapped = MatrixPart.open(path)
    assert mapped.mapped is not None
    assert not mapped.x.flags.owndata
    assert _fit(mapped).booster_text == _fit(_part()).booster_text


def test_rows_in_pieces_make_the_same_model() -> None:
    """Partitions are taken one after the other: where one ends and the next begins says nothing."""
    whole = _part()
    names = ("x", "y", "time", "fold", "weight")
    pieces = [
        MatrixPart(**{name: getattr(whole, name)[start:stop] for name in names})
        for start, stop in ((0, 1), (1, 700), (700, 700), (700, 1200))
    ]
    of = spec()
    texts = {
        train(parts_, spec=of, feature_names=("a", "b"), threads=1, holdout=FAR).booster_text
        for parts_ in ([whole], pieces)
    }
    assert len(texts) == 1


@pytest.mark.parametrize("by", ["hash", "group"])
def test_a_holdout_by_fold_teaches_nothing_and_validation_is_beside_it(by: Any) -> None:
    part = _part()
    rule = HoldoutRule(by, fraction=0.25, column="town" if by == "group" else "")
    held = part.fold < 0.25
    extra = f"holdout: {{by: {by}, fraction: 0.25{', column: town' if by == 'group' else ''}}}"
    made = _fit(part, extra, holdout=rule)
    assert made.training_rows + made.validation_rows == int((~held).sum())
    assert made.validation_rows == int((~held & (part.fold < 0.25 + 0.75 * 0.1)).sum())
    spoilt = MatrixPart(
        x=part.x, y=np.where(held, 1 - part.y, part.y), time=part.time, fold=part.fold, weight=part.weight
    )
    assert _fit(spoilt, extra, holdout=rule).booster_text == made.booster_text


def test_a_window_of_days_ends_where_the_holdout_begins() -> None:
    part, rule = _part(), HoldoutRule("time", 100 * DAYS)
    made = _fit(part, "window: {days: 30}", holdout=rule)
    assert made.training_rows + made.validation_rows == int(((part.time >= 70 * DAYS) & (part.time < 100 * DAYS)).sum())


def test_validation_may_be_the_newest_days() -> None:
    part, rule = _part(), HoldoutRule("time", 100 * DAYS)
    made = _fit(part, "validation: {days: 10}", holdout=rule)
    assert made.validation_rows == int(((part.time >= 90 * DAYS) & (part.time < 100 * DAYS)).sum())
    assert made.training_rows == int((part.time < 90 * DAYS).sum())


def test_recent_rows_count_more() -> None:
    """The second feature matters only of late: a short half-life sees more of it."""

    def share(extra: str) -> float:
        found = _fit(_part(), extra).importance
        return found["b"] / (found["a"] + found["b"])

    settings = "rounds: 30, minimum_rows: 50, parameters: {min_data_in_leaf: 5, num_leaves: 7}"
    assert share(f"training: {{half_life_days: 10, {settings}}}") > share(f"training: {{{settings}}}") + 0.05


@pytest.mark.parametrize("which", ["training", "validation"])
def test_rows_without_any_weight_teach_nothing(which: str) -> None:
    part, spec = _part(), "weight: w\ntraining: {rounds: 5, minimum_rows: 50}"
    validates = part.fold < 0.1
    weight = np.where(validates == (which == "validation"), 0, 1).astype(np.float32)
    light = MatrixPart(x=part.x, y=part.y, time=part.time, fold=part.fold, weight=weight)
    with pytest.raises(TrainingError, match=f"All {which} rows have weight 0") as caught:
        _fit(light, spec)
    assert caught.value.code == "no_weight"


def test_progress_below_the_least_is_none() -> None:
    training = "training: {{rounds: 40, minimum_rows: 50, early_stopping: 3, parameters: {{{more}}}}}"
    patient = _fit(_part(), training.format(more=""))
    demanding = _fit(_part(), training.format(more="early_stopping_min_delta: 1000000"))
    assert len(demanding.curve) == 4 < len(patient.curve)


def test_a_row_of_weight_two_counts_as_two_rows() -> None:
    rng = np.random.default_rng(1)
    part = _part(task="regression")
    weight = rng.integers(1, 4, len(part.y))
    heavy = MatrixPart(x=part.x, y=part.y, time=part.time, fold=part.fold, weight=weight.astype(np.float32))
    again = {name: np.repeat(getattr(part, name), weight, axis=0) for name in ("x", "y", "time", "fold")}
    repeated = MatrixPart(**again, weight=np.ones(int(weight.sum()), np.float32), mapped=None)
    settings = "training: {rounds: 1, minimum_rows: 50, parameters: {num_leaves: 2, learning_rate: 1.0}}"
    texts = [_fit(each, f"weight: w\n{settings}", label=REGRESSION).booster_text for each in (heavy, repeated)]
    leaves = [re.findall(r"^leaf_value=(.*)$", text, re.MULTILINE)[0].split() for text in texts]
    assert [float(value) for value in leaves[0]] == pytest.approx([float(value) for value in leaves[1]], abs=0.02)
    plain = _fit(part, settings, label=REGRESSION).booster_text
    assert plain != texts[0]


def test_balanced_classes_count_alike() -> None:
    part = _part()
    rare = MatrixPart(
        x=part.x, y=(part.x[:, 0] > 1.6).astype(np.float64), time=part.time, fold=part.fold, weight=part.weight
    )
    means = []
    for weights in ("", "class_weights: balanced, ", "class_weights: {yes: 10}, "):
        made = _fit(rare, f"training: {{{weights}rounds: 3, minimum_rows: 50, parameters: {{min_data_in_leaf: 5}}}}")
        means.append(float(np.mean(lgb.Booster(model_str=made.booster_text).predict(part.x))))
    assert means[0] == pytest.approx(0.05, abs=0.03)
    assert means[1] > 0.3
    assert means[0] < means[2]


@pytest.mark.parametrize(("direction", "sign"), [("increasing", 1), ("decreasing", -1)])
def test_a_monotone_feature_moves_the_prediction_one_way_only(direction: str, sign: int) -> None:
    settings = "rounds: 30, minimum_rows: 50, parameters: {min_data_in_leaf: 5}"
    made = _fit(_part(), f"training: {{monotone: {{b: {direction}}}, {settings}}}")
    booster, line = lgb.Booster(model_str=made.booster_text), np.linspace(-3, 3, 200)
    for a in (-1.0, 0.0, 1.0):
        answers = booster.predict(np.stack([np.full(200, a), line], axis=1))
        assert (np.diff(answers) * sign >= 0).all()


def test_dart_uses_every_round_and_a_forest_stops() -> None:
    parameters = "parameters: {min_data_in_leaf: 5, bagging_fraction: 0.5, bagging_freq: 1}"
    for boosting in ("dart", "rf"):
        made = _fit(_part(), f"training: {{boosting: {boosting}, rounds: 25, minimum_rows: 50, {parameters}}}")
        assert made.best_iteration == 25 if boosting == "dart" else made.best_iteration <= 25


def test_several_classes_and_numbers_stop_by_their_own_metric() -> None:
    classes = "task: multiclass\nlabel: {column: town, classes: [low, middle, high]}"
    made = _fit(_part(task="multiclass"), label=classes)
    assert made.metric == "multi_logloss"
    assert made.curve[made.best_iteration - 1] < 1.0
    assert _fit(_part(task="regression"), label=REGRESSION).metric == "rmse"


def test_a_label_that_never_varies_teaches_nothing() -> None:
    part = _part(task="regression")
    flat = MatrixPart(x=part.x, y=np.full(1200, 3.0), time=part.time, fold=part.fold, weight=part.weight)
    with pytest.raises(TrainingError, match="The label of all training rows is 3") as caught:
        _fit(flat, label=REGRESSION)
    assert caught.value.code == "one_value"


def test_a_label_that_the_loss_cannot_take_is_refused_with_lightgbms_reason() -> None:
    settings = "training: {objective: poisson, rounds: 5, minimum_rows: 50}"
    with pytest.raises(TrainingError, match="LightGBM refuses") as caught:
        _fit(_part(task="regression"), settings, label=REGRESSION)
    assert caught.value.code == "refused"
