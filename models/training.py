"""LightGBM on the matrices of a dataset: seeded, deterministic, stopped early on rows that teach nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import lightgbm as lgb
import numpy as np

from models.errors import RatchetError, bounded
from models.parameters import canonical

if TYPE_CHECKING:
    from models.spec import PipelineSpec

TrainingProblem = Literal["too_few_rows", "one_class", "no_validation_rows", "refused"]
DEFAULTS: Mapping[str, Any] = {"num_leaves": 31, "learning_rate": 0.05, "min_data_in_leaf": 20}


class TrainingError(RatchetError):
    """The data cannot teach a model, or not with these parameters. `rows` is how many training rows there were."""

    def __init__(self, code: TrainingProblem, message: str, rows: int) -> None:
        super().__init__(message)
        self.code, self.rows = code, rows


class TrainingRows(Protocol):
    """One partition's rows: `x` float32 [N, F], `y` uint8 [N], `time` float64 [N] (seconds), `fold` [N] in [0, 1)."""

    @property
    def x(self) -> np.ndarray[Any, np.dtype[np.float32]]: ...
    @property
    def y(self) -> np.ndarray[Any, np.dtype[np.uint8]]: ...
    @property
    def time(self) -> np.ndarray[Any, np.dtype[np.float64]]: ...
    @property
    def fold(self) -> np.ndarray[Any, np.dtype[np.float64]]: ...


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A booster as text, cut to its best iteration.

    `curve` is the log loss of the validation rows after each round, `training_curve` that of the rows that teach.
    """

    booster_text: str
    best_iteration: int
    training_rows: int
    validation_rows: int
    curve: tuple[float, ...]
    training_curve: tuple[float, ...]
    importance: Mapping[str, float]

    def summary(self) -> dict[str, Any]:
        """Everything but the booster, as plain JSON types."""
        return {name: value for name, value in asdict(self).items() if name != "booster_text"}


def train(
    parts: Sequence[TrainingRows],
    *,
    spec: PipelineSpec,
    feature_names: Sequence[str],
    threads: int,
    holdout_from: float,
) -> TrainedModel:
    """A challenger from the rows before `holdout_from` (seconds since 1970 UTC).

    Of those, rows with a fold below `validation.fraction` decide when to stop, the others teach. Equal parts in equal
    order give equal bytes, whatever the number of threads. Raises TrainingError.
    """
    x, y, fold = _before(parts, holdout_from)
    validating = fold < spec.validation.fraction
    _check(y, validating, spec)
    names = list(feature_names)
    parameters = _parameters(spec, threads)
    training = lgb.Dataset(x[~validating], y[~validating], feature_name=names, params={"verbosity": -1})
    validation = lgb.Dataset(x[validating], y[validating], reference=training)
    curve: dict[str, Any] = {}
    try:
        booster = lgb.train(
            parameters,
            training,
            num_boost_round=spec.training.rounds,
            # The training rows are only measured: early stopping does not look at them.
            valid_sets=[training, validation],
            valid_names=["training", "validation"],
            callbacks=[
                lgb.early_stopping(spec.training.early_stopping, first_metric_only=True, verbose=False),
                lgb.record_evaluation(curve),
            ],
        )
    except lgb.basic.LightGBMError as exc:
        raise TrainingError("refused", f"LightGBM refuses training.parameters: {bounded(exc)}", len(x)) from exc
    best = booster.best_iteration or booster.num_trees()
    gains = booster.feature_importance("gain", iteration=best)
    return TrainedModel(
        booster_text=_without_threads(booster.model_to_string(num_iteration=best)),
        best_iteration=best,
        training_rows=int((~validating).sum()),
        validation_rows=int(validating.sum()),
        curve=tuple(curve["validation"]["binary_logloss"]),
        training_curve=tuple(curve["training"]["binary_logloss"]),
        importance=dict(zip(names, gains.tolist(), strict=True)),
    )


def _without_threads(booster_text: str) -> str:
    """The text without the one parameter that says nothing about the model."""
    return re.sub(r"^\[num_threads: \d+\]\n", "", booster_text, flags=re.MULTILINE)


def _before(
    parts: Sequence[TrainingRows], holdout_from: float
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """x, y and fold of the rows that may teach, part after part."""
    kept = [(part, part.time < holdout_from) for part in parts]
    return (
        np.concatenate([part.x[rows] for part, rows in kept]) if kept else np.empty((0, 0), np.float32),
        np.concatenate([part.y[rows] for part, rows in kept]) if kept else np.empty(0, np.uint8),
        np.concatenate([part.fold[rows] for part, rows in kept]) if kept else np.empty(0, np.float64),
    )


def _check(y: np.ndarray[Any, Any], validating: np.ndarray[Any, Any], spec: PipelineSpec) -> None:
    rows = int((~validating).sum())
    if rows < spec.training.minimum_rows:
        raise TrainingError(
            "too_few_rows",
            f"{rows} rows are left to train on (the newest {spec.holdout.days:g} days are the holdout); "
            f"training.minimum_rows asks for {spec.training.minimum_rows}.",
            rows,
        )
    if not validating.any():
        raise TrainingError(
            "no_validation_rows", "No row is left to decide when to stop: raise validation.fraction.", rows
        )
    for name, labels in (("training", y[~validating]), ("validation", y[validating])):
        if labels.min() == labels.max():
            only = spec.label.positive if labels[0] else spec.label.negative
            raise TrainingError("one_class", f"All {name} rows are {only!r}: there is nothing to tell apart.", rows)


def _parameters(spec: PipelineSpec, threads: int) -> dict[str, Any]:
    return {
        **DEFAULTS,
        **canonical(spec.training.parameters),
        "objective": "binary",
        "metric": "binary_logloss",
        "seed": spec.training.seed,
        "num_threads": threads,
        # With both of these the histograms are summed in one order, whatever the number of threads.
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
