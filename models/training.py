"""LightGBM on the matrices of a dataset: seeded, deterministic, stopped early on rows that teach nothing else.

Many rows go to LightGBM in batches, straight from the parts' arrays, which may be memory-mapped files: what training
holds in memory is LightGBM's own binned copy and a few numbers for each row. Rows that fit easily are copied, which is
faster and gives the same model.
"""

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
SECONDS_A_DAY = 86_400.0
BATCH_ROWS = 16_384
"""Rows that are copied for LightGBM at once when there are many: some megabytes."""
COPIED_BYTES = 256 * 2**20
"""Largest matrix that is copied as a whole."""

CURVE_ROWS = 20_000
"""Of the rows that teach, so many are measured after each round: all of them would take an eighth of the training."""


class TrainingError(RatchetError):
    """The data cannot teach a model, or not with these parameters. `rows` is how many training rows there were."""

    def __init__(self, code: TrainingProblem, message: str, rows: int) -> None:
        super().__init__(message)
        self.code, self.rows = code, rows


class TrainingRows(Protocol):
    """One partition's rows, as models.matrices.MatrixPart describes them."""

    @property
    def x(self) -> np.ndarray[Any, np.dtype[np.float32]]: ...
    @property
    def y(self) -> np.ndarray[Any, np.dtype[np.float64]]: ...
    @property
    def time(self) -> np.ndarray[Any, np.dtype[np.float64]]: ...
    @property
    def fold(self) -> np.ndarray[Any, np.dtype[np.float64]]: ...
    @property
    def weight(self) -> np.ndarray[Any, np.dtype[np.float32]]: ...
    def release(self) -> None: ...


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


class _Rows(lgb.Sequence):  # type: ignore[misc]
    """The chosen rows of one part, as LightGBM asks for them."""

    batch_size = BATCH_ROWS

    def __init__(self, part: TrainingRows, rows: np.ndarray[Any, Any]) -> None:
        self._part, self._x, self._rows = part, part.x, rows

    def __getitem__(self, index: int | slice | list[int]) -> np.ndarray[Any, Any]:
        rows: np.ndarray[Any, Any] = self._x[self._rows[index]]
        if not isinstance(index, slice):
            # LightGBM wants the single rows that it samples as float64.
            return rows.astype(np.float64)
        if index.stop is None or index.stop >= len(self._rows):
            self._part.release()
        return rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows as one matrix."""
        return int(len(self._rows) * self._x.shape[1] * self._x.itemsize)


@dataclass(frozen=True, slots=True)
class _Taken:
    """Rows with one purpose: where they are in each part, their labels (float32 [N]) and their weights, if any."""

    x: list[_Rows] | list[np.ndarray[Any, Any]]
    y: np.ndarray[Any, np.dtype[np.float32]]
    weight: np.ndarray[Any, np.dtype[np.float32]] | None


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
    teaching, validating = _split(parts, spec, holdout)
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


def _dataset(taken: _Taken, parameters: Mapping[str, Any], reference: lgb.Dataset | None = None) -> lgb.Dataset:
    return lgb.Dataset(taken.x, taken.y, weight=taken.weight, reference=reference, params=dict(parameters))


def _sample(taken: _Taken) -> _Taken:
    """Rows at equal distances, at most CURVE_ROWS. Copies: LightGBM warns of views."""
    step = -(-len(taken.y) // CURVE_ROWS)
    picked, before = [], 0
    for rows in taken.x:
        picked.append(np.array(rows[-before % step :: step]))
        before += len(rows)
    weight = None if taken.weight is None else np.array(taken.weight[::step])
    return _Taken([rows for rows in picked if len(rows)], np.array(taken.y[::step]), weight)


def _without_threads(booster_text: str) -> str:
    """The text without the one parameter that says nothing about the model."""
    return re.sub(r"^\[num_threads: \d+\]\n", "", booster_text, flags=re.MULTILINE)


def _split(parts: Sequence[TrainingRows], spec: PipelineSpec, holdout: HoldoutRule) -> tuple[_Taken, _Taken]:
    """The rows that teach and those that validate, part after part."""
    ours = [~holdout.holds(part.time, part.fold) for part in parts]
    newest = max(
        (float(part.time[rows].max(initial=-np.inf)) for part, rows in zip(parts, ours, strict=True)), default=0.0
    )
    end = holdout.since if holdout.by == "time" else newest
    begin = end - spec.window.days * SECONDS_A_DAY if spec.window.days is not None else -np.inf
    teaching, validating = [], []
    for part, rows in zip(parts, ours, strict=True):
        usable = rows & (part.time >= begin)
        stopping = _validates(part, spec, holdout, end)
        teaching.append(np.flatnonzero(usable & ~stopping).astype(np.int32))
        validating.append(np.flatnonzero(usable & stopping).astype(np.int32))
    class_weights = _class_weights(parts, teaching, spec)
    taken = tuple(_taken(parts, rows, spec, newest, class_weights) for rows in (teaching, validating))
    for part in parts:
        # From here on only the features are read.
        part.release()
    return taken  # type: ignore[return-value]


def _validates(part: TrainingRows, spec: PipelineSpec, holdout: HoldoutRule, end: float) -> np.ndarray[Any, Any]:
    if spec.validation.days is not None:
        return np.asarray(part.time >= end - spec.validation.days * SECONDS_A_DAY)
    # Where the holdout takes the folds below its fraction, those above it are spread over [0, 1) again.
    taken = 0.0 if holdout.by == "time" else holdout.fraction
    return np.asarray((part.fold - taken) < spec.validation.fraction * (1.0 - taken))


def _taken(
    parts: Sequence[TrainingRows],
    chosen: Sequence[np.ndarray[Any, Any]],
    spec: PipelineSpec,
    newest: float,
    class_weights: np.ndarray[Any, Any] | None,
) -> _Taken:
    places = list(zip(parts, chosen, strict=True))
    y = np.concatenate([part.y[rows].astype(np.float32) for part, rows in places] or [np.empty(0, np.float32)])
    weight = None
    if spec.weight is not None or spec.training.half_life_days is not None or class_weights is not None:
        weight = np.concatenate([part.weight[rows] for part, rows in places] or [np.empty(0, np.float32)])
        if spec.training.half_life_days is not None:
            age = np.concatenate([newest - part.time[rows] for part, rows in places]) / SECONDS_A_DAY
            weight = weight * np.exp2(-age / spec.training.half_life_days).astype(np.float32)
        if class_weights is not None:
            weight = weight * class_weights[y.astype(np.intp)]
    chosen_rows = [_Rows(part, rows) for part, rows in places if len(rows)]
    if sum(rows.nbytes for rows in chosen_rows) > COPIED_BYTES:
        return _Taken(chosen_rows, y, weight)
    return _Taken([rows[:] for rows in chosen_rows], y, weight)


def _class_weights(
    parts: Sequence[TrainingRows], teaching: Sequence[np.ndarray[Any, Any]], spec: PipelineSpec
) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """float32 [K], or None when classes count as they come."""
    given = spec.training.class_weights
    if given is None:
        return None
    if isinstance(given, Mapping):
        return np.array([given.get(name, 1.0) for name in spec.classes], np.float32)
    counts = np.zeros(len(spec.classes))
    for part, rows in zip(parts, teaching, strict=True):
        counts += np.bincount(part.y[rows].astype(np.intp), minlength=len(counts))
    present = int((counts > 0).sum())
    return np.where(counts > 0, counts.sum() / (present * np.maximum(counts, 1.0)), 1.0).astype(np.float32)


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


def _check_weights(teaching: _Taken, validating: _Taken) -> None:
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
