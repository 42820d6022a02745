"""What answers are worth: scikit-learn's metrics over all rows, and over slices of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from models.metric_names import METRICS_OF, usual_metric
from models.parameters import canonical

if TYPE_CHECKING:
    import polars as pl

    from models.spec import PipelineSpec
    from models.spec_parts import Metric, Task

CALIBRATION_BINS = 10
MAXIMUM_SLICES = 50
"""Slices that are measured for a column: the ones with the most rows, and all that have enough to decide."""
LIGHTGBM_ALPHA = 0.9
"""LightGBM's own default of the quantile that is trained for."""

type Labels = np.ndarray[Any, Any]
"""[N]: the class's code, or the number."""
type Answers = np.ndarray[Any, np.dtype[np.float64]]
"""float64 [N, K]: probabilities of the classes; in a regression the values [N, 1]."""


@dataclass(frozen=True, slots=True)
class Yardstick:
    """How a pipeline's models are measured. `metric` decides; `alpha` is the quantile of a pinball loss, if any."""

    task: Task
    metric: Metric
    alpha: float | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All that can be measured."""
        return tuple(name for name in METRICS_OF[self.task] if name != "pinball" or self.alpha is not None)


@dataclass(frozen=True, slots=True)
class Metrics:
    """Quality over rows. A figure is None where the rows do not say: there is none, or (AUC, AP) only of one class."""

    rows: int
    figures: Mapping[str, float | None] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float | None:
        return self.figures.get(name)

    def to_dict(self) -> dict[str, Any]:
        """Flat: `rows` beside the figures."""
        return {"rows": self.rows, **self.figures}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What `to_dict` made."""
        return cls(data["rows"], {name: value for name, value in data.items() if name != "rows"})


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows whose `column` is `value`, as both models answer them. `champion` is None when there is none."""

    column: str
    value: str
    challenger: Metrics
    champion: Metrics | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        rival = self.champion.to_dict() if self.champion else None
        return {"column": self.column, "value": self.value, "challenger": self.challenger.to_dict(), "champion": rival}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What `to_dict` made."""
        rival = Metrics.from_dict(data["champion"]) if data["champion"] else None
        return cls(data["column"], data["value"], Metrics.from_dict(data["challenger"]), rival)


def yardstick(spec: PipelineSpec) -> Yardstick:
    """How the pipeline's models are measured."""
    quantile = spec.objective == "quantile"
    alpha = float(canonical(spec.training.parameters).get("alpha", LIGHTGBM_ALPHA)) if quantile else None  # type: ignore[arg-type]
    return Yardstick(spec.task, spec.gate.metric or usual_metric(spec.task, spec.objective), alpha)


def evaluate(labels: Labels, answers: Answers, by: Yardstick) -> Metrics:
    """All metrics of the task. The answers are of the rows that the labels are of."""
    if not len(labels):
        counted: dict[str, float | None] = {"positives": 0} if by.task == "binary" else {}
        return Metrics(0, {**counted, **dict.fromkeys(by.metrics)})
    measure = {"binary": _binary, "multiclass": _multiclass, "regression": _regression}[by.task]
    return Metrics(len(labels), measure(labels, answers, by))


def constant_answers(labels: Labels, like: Answers, by: Yardstick) -> Answers:
    """float64 as `like`: the answers of a model that knows how the labels are distributed, and nothing of a row.

    The classes' shares; in a regression the mean, or what makes the error by `by.metric` least: median or quantile.
    """
    if not len(labels):
        return like
    if by.task != "regression":
        return np.broadcast_to(np.bincount(labels.astype(np.intp), minlength=like.shape[1]) / len(labels), like.shape)
    quantile = {"mae": 0.5, "pinball": by.alpha}.get(by.metric)
    return np.full_like(like, np.mean(labels) if quantile is None else np.quantile(labels, quantile))


def evaluate_slices(
    column: str,
    values: pl.Series,
    labels: Labels,
    challenger: Answers,
    champion: Answers | None,
    by: Yardstick,
    *,
    decisive_rows: int | None = None,
) -> list[Slice]:
    """Both models for each of the `values` (String [N], '' is missing) of `column`, for those with the most rows, and
    for every one that has `decisive_rows`."""
    found = values.alias("value").to_frame().with_row_index("row").group_by("value").agg("row").iter_rows()
    slices = []
    for rank, (value, listed) in enumerate(sorted(found, key=lambda each: (-len(each[1]), each[0]))):
        if rank >= MAXIMUM_SLICES and (decisive_rows is None or len(listed) < decisive_rows):
            break
        rows = np.sort(np.array(listed))
        rival = evaluate(labels[rows], champion[rows], by) if champion is not None else None
        slices.append(Slice(column, value, evaluate(labels[rows], challenger[rows], by), rival))
    return slices


def _binary(labels: Labels, answers: Answers, _: Yardstick) -> dict[str, float | None]:
    from sklearn import metrics

    scores, positives = answers[:, 1], int((labels == 1).sum())
    both = 0 < positives < len(labels)
    return {
        "positives": positives,
        "auc": float(metrics.roc_auc_score(labels, scores)) if both else None,
        "average_precision": float(metrics.average_precision_score(labels, scores)) if both else None,
        "log_loss": float(metrics.log_loss(labels, scores, labels=[0, 1])),
        "brier": float(metrics.brier_score_loss(labels, scores, pos_label=1)),
        "calibration_error": calibration_error(labels, scores),
        "accuracy": float(metrics.accuracy_score(labels, answers.argmax(axis=1))),
    }


def calibration_error(
    labels: Labels, scores: np.ndarray[Any, Any], weights: np.ndarray[Any, Any] | None = None
) -> float:
    """Expected calibration error over ten bins of equal width, each weighed by its rows.

    Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning (2015).
    """
    bins = np.minimum((scores * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    counted = np.ones(len(scores)) if weights is None else weights
    gaps = np.bincount(bins, counted * (scores - labels), CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / counted.sum())


def _multiclass(labels: Labels, answers: Answers, _: Yardstick) -> dict[str, float | None]:
    from sklearn import metrics

    codes, chosen = np.arange(answers.shape[1]), answers.argmax(axis=1)
    return {
        "log_loss": float(metrics.log_loss(labels, answers, labels=codes)),
        "accuracy": float(metrics.accuracy_score(labels, chosen)),
        "macro_f1": float(metrics.f1_score(labels, chosen, labels=codes, average="macro", zero_division=0.0)),
    }


def _regression(labels: Labels, answers: Answers, by: Yardstick) -> dict[str, float | None]:
    from sklearn import metrics

    values = answers[:, 0]
    figures: dict[str, float | None] = {
        "rmse": float(metrics.root_mean_squared_error(labels, values)),
        "mae": float(metrics.mean_absolute_error(labels, values)),
    }
    if by.alpha is not None:
        figures["pinball"] = float(metrics.mean_pinball_loss(labels, values, alpha=by.alpha))
    return figures
