"""LightGBM on the matrices of a dataset: seeded, deterministic, stopped early on rows that teach nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import lightgbm as lgb
import numpy as np

from models.errors import RatchetError, bounded
from models.parameters import canonical
from models.teaching import Taken, TrainingRows, split

if TYPE_CHECKING:
    from models.manifest import HoldoutRule
    from models.spec import PipelineSpec

TrainingProblem = Literal["too_few_rows", "one_class", "one_value", "no_validation_rows", "no_weight", "refused"]
DEFAULTS: Mapping[str, Any] = {"num_leaves": 31, "learning_rate": 0.05, "min_data_in_leaf": 20}
STOPPING_METRICS: Mapping[str, str] = {
    "binary": "binary_logloss",
    "multiclass": "multi_logloss",
    "regression": "rmse",
    "regression_l1": "l1",
}
"""What early stopping looks at; other objectives are metrics of the same name."""
CURVE_ROWS = 20_000
"""Of the rows that teach, so many are measured after each round: all of them would take an eighth of the training."""


class TrainingError(RatchetError):
    """The data cannot teach a model, or not with these parameters. `rows` is how many training rows there were."""

    def __init__(self, code: TrainingProblem, message: str, rows: int) -> None:
        super().__init__(message)
        self.code, self.rows = code, rows


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A booster as text, cut to its best iteration.

    `curve` is `metric` on the validation rows after each round, `training_curve` on a sample of the rows that teach.
    """

    booster_text: str
    best_iteration: int
    training_rows: int
    validation_rows: int
    metric: str
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
    holdout: HoldoutRule,
) -> TrainedModel:
    """A challenger from the rows that are neither held out nor older than the spec's window.

    Of those, the validation rows only decide when to stop. Equal parts in equal order give equal bytes, whatever the
    number of threads. Raises TrainingError.
    """
    teaching, validating = split(parts, spec, holdout)
    _check(teaching.y, validating.y, spec)
    _check_weights(teaching, validating)
    parameters = _parameters(spec, feature_names, threads)
    # Not for the library, which would make a second callback of it.
    least = float(parameters.pop("early_stopping_min_delta", 0.0))
    metric = str(parameters["metric"])
    curve: dict[str, Any] = {}
    callbacks = [lgb.record_evaluation(curve)]
    if spec.training.boosting != "dart":
        # DART changes earlier trees in later rounds: its best round cannot be gone back to.
        patience = spec.training.early_stopping
        callbacks.append(lgb.early_stopping(patience, first_metric_only=True, verbose=False, min_delta=least))
    try:
        training = _dataset(teaching, parameters)
        booster = lgb.train(
            parameters,
            training,
            num_boost_round=spec.training.rounds,
            # What has the name "training" is only measured: early stopping does not look at it.
            valid_sets=[_dataset(each, parameters, training) for each in (_sample(teaching), validating)],
            valid_names=["training", "validation"],
            callbacks=callbacks,
        )
    except lgb.basic.LightGBMError as exc:
        raise TrainingError(
            "refused", f"LightGBM refuses training.parameters or the labels: {bounded(exc)}", len(teaching.y)
        ) from exc
    best = booster.best_iteration if spec.training.boosting != "dart" else 0
    best = best or booster.current_iteration()
    gains = booster.feature_importance("gain", iteration=best)
    return TrainedModel(
        booster_text=_without_threads(booster.model_to_string(num_iteration=best)),
        best_iteration=best,
        training_rows=len(teaching.y),
        validation_rows=len(validating.y),
        metric=metric,
        curve=tuple(curve["validation"][metric]),
        training_curve=tuple(curve["training"][metric]),
        importance=dict(zip(feature_names, gains.tolist(), strict=True)),
    )


def _dataset(taken: Taken, parameters: Mapping[str, Any], reference: lgb.Dataset | None = None) -> lgb.Dataset:
    return lgb.Dataset(taken.x, taken.y, weight=taken.weight, reference=reference, params=dict(parameters))


def _sample(taken: Taken) -> Taken:
    """Rows at equal distances, at most CURVE_ROWS. Copies: LightGBM warns of views."""
    step = -(-len(taken.y) // CURVE_ROWS)
    picked, before = [], 0
    for rows in taken.x:
        picked.append(np.array(rows[-before % step :: step]))
        before += len(rows)
    weight = None if taken.weight is None else np.array(taken.weight[::step])
    return Taken([rows for rows in picked if len(rows)], np.array(taken.y[::step]), weight)


def _without_threads(booster_text: str) -> str:
    """The text without the one parameter that says nothing about the model."""
    return re.sub(r"^\[num_threads: \d+\]\n", "", booster_text, flags=re.MULTILINE)


def _check(teaching: np.ndarray[Any, Any], validating: np.ndarray[Any, Any], spec: PipelineSpec) -> None:
    rows = len(teaching)
    if rows < spec.training.minimum_rows:
        raise TrainingError(
            "too_few_rows",
            f"{rows} rows are left to train on, beside the holdout ({_held(spec)}) and {len(validating)} validation "
            f"rows; training.minimum_rows asks for {spec.training.minimum_rows}.",
            rows,
        )
    if not len(validating):
        which = "fraction" if spec.validation.days is None else "days"
        raise TrainingError(
            "no_validation_rows", f"No row is left to decide when to stop: raise validation.{which}.", rows
        )
    if spec.task == "regression":
        if teaching.min() == teaching.max():
            message = f"The label of all training rows is {teaching[0]:g}: there is nothing to learn."
            raise TrainingError("one_value", message, rows)
        return
    named = (("training", teaching), ("validation", validating))
    for name, labels in named if spec.task == "binary" else named[:1]:
        if labels.min() == labels.max():
            only = spec.classes[int(labels[0])]
            raise TrainingError("one_class", f"All {name} rows are {only!r}: there is nothing to tell apart.", rows)


def _held(spec: PipelineSpec) -> str:
    match spec.holdout.by:
        case "time":
            return f"the newest {spec.holdout.days:g} days"
        case "hash":
            return f"{spec.holdout.fraction:.0%}"
        case "group":
            return f"each group has a chance of {spec.holdout.fraction:.0%} to be in it"


def _check_weights(teaching: Taken, validating: Taken) -> None:
    for name, taken in (("training", teaching), ("validation", validating)):
        if taken.weight is not None and not taken.weight.any():
            message = f"All {name} rows have weight 0: look at the weight column and at training.half_life_days."
            raise TrainingError("no_weight", message, len(teaching.y))


def _parameters(spec: PipelineSpec, feature_names: Sequence[str], threads: int) -> dict[str, Any]:
    objective = spec.objective
    directions = {"increasing": 1, "decreasing": -1}
    task = {"num_class": len(spec.classes)} if spec.task == "multiclass" else {}
    if spec.training.monotone:
        signs = [directions.get(spec.training.monotone.get(name, ""), 0) for name in feature_names]
        task["monotone_constraints"] = signs  # type: ignore[assignment]
    return {
        **DEFAULTS,
        # LightGBM would make it from the seed, but not for rows that come in batches.
        "data_random_seed": spec.training.seed,
        **canonical(spec.training.parameters),
        **task,
        "objective": objective,
        "boosting": spec.training.boosting,
        "metric": STOPPING_METRICS.get(objective, objective),
        "seed": spec.training.seed,
        "num_threads": threads,
        # With both of these the histograms are summed in one order, whatever the number of threads.
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
