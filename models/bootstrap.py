"""A metric's gain over a rival on the same rows, with a one-sided lower confidence bound.

Paired bootstrap, percentile method: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; expanded
as Student's t is wider than the normal distribution, because few things that are drawn vary too little among
themselves: Hesterberg, What Teachers Should Know About the Bootstrap (2015), section 4.3. A resample is a weight for
each row (how often it was drawn), so that each metric is a function of weights over rows that are sorted or binned only
once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.evaluation import Answers, Labels, Yardstick, calibration_error
from models.metric_names import HIGHER_IS_BETTER

RESAMPLES = 1_000
"""The 10 % quantile of a thousand is known to about one percentage point."""

BLOCK_CELLS = 500_000
"""Weights that are made at once: resamples of few rows go through numpy together, of many rows one by one."""

type Weights = np.ndarray[Any, np.dtype[np.float64]]
"""float64 [B, N]: how often each row was drawn in each of B resamples."""
type Measured = np.ndarray[Any, np.dtype[np.float64]]
"""float64 [B]: the metric of each resample; NaN where it has none."""


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better the challenger is than the champion on the same rows, and its one-sided lower confidence bound.

    Above zero is better, also for losses and errors. `units` are what was drawn: rows, groups, or of a metric that
    ranks, the rows of the rarer class.
    """

    value: float
    lower: float
    confidence: float
    units: int

    @property
    def units_needed(self) -> int:
        """Fewer cannot say it with this confidence: by chance alone, all of them speak for the challenger more often
        than that allows (the sign test)."""
        return math.ceil(-math.log2(1 - self.confidence))


def gain_of(labels: Labels, challenger: Answers, champion: Answers, by: Yardstick) -> float:
    """The gain in `by.metric` on just these rows. Raises ValueError as `bootstrap_gain` does."""
    once = np.ones((1, len(labels)))
    (value,) = statistic(by, labels, challenger)(once) - statistic(by, labels, champion)(once)
    return float(value if by.metric in HIGHER_IS_BETTER else -value)


def bootstrap_gain(
    labels: Labels,
    challenger: Answers,
    champion: Answers,
    by: Yardstick,
    *,
    confidence: float,
    seed: int,
    groups: np.ndarray[Any, Any] | None = None,
) -> Gain:
    """The gain in `by.metric`.

    With `groups` [N], whole groups are drawn, because their rows are not independent. Otherwise rows are drawn; for AUC
    and average precision each class by itself, so that a resample has both. Raises ValueError when an AUC or average
    precision has labels of one class.
    """
    rng = np.random.default_rng(seed)
    better = 1.0 if by.metric in HIGHER_IS_BETTER else -1.0
    ours, theirs = statistic(by, labels, challenger), statistic(by, labels, champion)
    draw = _group_draws(groups) if groups is not None else _row_draws(labels, by)

    def gains(weights: Weights) -> Measured:
        return np.asarray(better * (ours(weights) - theirs(weights)))

    block = max(1, min(RESAMPLES, BLOCK_CELLS // len(labels)))
    sizes = [min(block, RESAMPLES - start) for start in range(0, RESAMPLES, block)]
    differences = np.concatenate([gains(draw(rng, size)) for size in sizes])
    value = gain_of(labels, challenger, champion, by)
    units = len(np.unique(groups)) if groups is not None else min(len(rows) for rows in _strata(labels, by))
    # A draw of groups may lack a class; it says nothing of a metric that needs both.
    return Gain(value, float(np.nanquantile(differences, _share_below(units, confidence))), confidence, units)


def _share_below(units: int, confidence: float) -> float:
    """The share of resamples below the bound. Of many units, what is left beside the confidence; of few, less."""
    from scipy import stats

    if units < 2:  # noqa: PLR2004 (one says nothing of how they vary)
        return 0.0
    return float(stats.norm.cdf(-math.sqrt(units / (units - 1)) * stats.t.ppf(confidence, units - 1)))


def statistic(by: Yardstick, labels: Labels, answers: Answers) -> Callable[[Weights], Measured]:
    """The metric as a function of weights."""
    match by.metric:
        case "auc":
            return _Ranked(labels, answers[:, 1]).auc
        case "average_precision":
            return _Ranked(labels, answers[:, 1]).average_precision
        case "calibration_error":
            return _each(lambda weights: calibration_error(labels, answers[:, 1], weights))
        case "macro_f1":
            return _macro_f1(labels, answers)
        case "rmse":
            squares = (answers[:, 0] - labels) ** 2
            return lambda weights: np.sqrt(_sums(weights, squares) / weights.sum(axis=1))
        case _:
            losses = _losses(by, labels, answers)
            return lambda weights: _sums(weights, losses) / weights.sum(axis=1)


def _sums(weights: Weights, of: np.ndarray[Any, Any]) -> Measured:
    # Not `@`, which is BLAS: its threads would decide the last bits, and so might decide a promotion.
    return np.asarray(np.einsum("bn,n->b", weights, of))


def _losses(by: Yardstick, labels: Labels, answers: Answers) -> np.ndarray[Any, Any]:
    """float64 [N]: what each row adds to a metric that is a mean."""
    match by.metric:
        case "log_loss":
            smallest = np.finfo(np.float64).eps
            of_truth = answers[np.arange(len(labels)), labels.astype(np.intp)]
            return np.asarray(-np.log(np.clip(of_truth, smallest, 1 - smallest)))
        case "accuracy":
            return np.asarray(answers.argmax(axis=1) == labels, np.float64)
        case "brier":
            return np.asarray((answers[:, 1] - labels) ** 2)
        case "mae":
            return np.asarray(np.abs(answers[:, 0] - labels))
        case "pinball":
            over = labels - answers[:, 0]
            alpha = by.alpha if by.alpha is not None else 0.5
            return np.asarray(np.maximum(alpha * over, (alpha - 1) * over))
    raise ValueError(f"{by.metric} is no mean over rows")


class _Ranked:
    """Scores sorted once, for many weighted rank metrics."""

    def __init__(self, labels: Labels, scores: np.ndarray[Any, Any]) -> None:
        positive = labels.astype(bool)
        if positive.all() or not positive.any():
            raise ValueError("a rank metric needs both classes")
        self._order = np.argsort(scores, kind="stable")
        self._positive = positive[self._order].astype(np.float64)
        ordered = scores[self._order]
        # Where each run of equal scores begins: equal scores count half in an AUC, and are one threshold.
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])

    def auc(self, weights: Weights) -> Measured:
        """P(score of a positive > score of a negative) + P(equal) / 2 over weighted rows (Mann-Whitney)."""
        ups, downs = self._counts(weights)
        below = np.cumsum(downs, axis=1) - downs
        pairs = ups.sum(axis=1) * downs.sum(axis=1)
        return _quotient((ups * (below + downs / 2)).sum(axis=1), pairs)

    def average_precision(self, weights: Weights) -> Measured:
        """Precision at each threshold, weighed by the recall that it adds (as scikit-learn has it)."""
        ups, downs = (counts[:, ::-1] for counts in self._counts(weights))
        true, chosen = np.cumsum(ups, axis=1), np.cumsum(ups + downs, axis=1)
        precision = np.divide(true, chosen, out=np.zeros_like(true), where=chosen > 0)
        return _quotient((ups * precision).sum(axis=1), true[:, -1])

    def _counts(self, weights: Weights) -> tuple[Weights, Weights]:
        """Weights of positives and of negatives at each score, lowest first."""
        ordered = weights[:, self._order]
        ups = ordered * self._positive
        if len(self._starts) < len(self._order):
            ordered, ups = (np.add.reduceat(each, self._starts, axis=1) for each in (ordered, ups))
        return ups, ordered - ups


def _quotient(above: Measured, below: Measured) -> Measured:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _each(measure: Callable[[np.ndarray[Any, Any]], float]) -> Callable[[Weights], Measured]:
    return lambda weights: np.array([measure(each) for each in weights])


def _macro_f1(labels: Labels, answers: Answers) -> Callable[[Weights], Measured]:
    classes = answers.shape[1]
    cells = labels.astype(np.intp) * classes + answers.argmax(axis=1)

    def measured(weights: np.ndarray[Any, Any]) -> float:
        confusion = np.bincount(cells, weights, classes * classes).reshape(classes, classes)
        both = confusion.sum(axis=0) + confusion.sum(axis=1)
        hits = 2 * np.diag(confusion)
        return float(np.divide(hits, both, out=np.zeros(classes), where=both > 0).mean())

    return _each(measured)


type _Draw = Callable[[np.random.Generator, int], Weights]


def _strata(labels: Labels, by: Yardstick) -> list[np.ndarray[Any, Any]]:
    """Rows that are drawn apart from the others."""
    if by.metric not in {"auc", "average_precision"}:
        return [np.arange(len(labels))]
    positive = labels.astype(bool)
    return [np.flatnonzero(positive), np.flatnonzero(~positive)]


def _row_draws(labels: Labels, by: Yardstick) -> _Draw:
    strata = _strata(labels, by)

    def draw(rng: np.random.Generator, resamples: int) -> Weights:
        weights = np.empty((resamples, len(labels)))
        for rows in strata:
            weights[:, rows] = _counted(rng, resamples, len(rows))
        return weights

    return draw


def _group_draws(groups: np.ndarray[Any, Any]) -> _Draw:
    names, codes = np.unique(groups, return_inverse=True)
    return lambda rng, resamples: _counted(rng, resamples, len(names))[:, codes]


def _counted(rng: np.random.Generator, resamples: int, of: int) -> Weights:
    """How often each of `of` things is drawn in as many draws with replacement, [resamples, of]."""
    drawn = rng.integers(0, of, (resamples, of)) + np.arange(resamples)[:, None] * of
    return np.bincount(drawn.ravel(), minlength=resamples * of).reshape(resamples, of).astype(np.float64)
