"""Training: what teaches, what only stops, and that the same data teach the same model."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from models.features import feature_names, fit_features
from models.manifest import HoldoutRule
from models.partitions import LABEL, TIME
from models.profiles import profile
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
    with pytest.raises(TrainingError, match=r"rows are left to train on .* asks for 50") as caught:
        _train(frame(40))
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
