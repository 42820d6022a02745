"""The gate between a challenger and the champion's place: every check with its figure, its limit and a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.evaluation import Metrics
from models.parity import ParityReport

if TYPE_CHECKING:
    from models.spec import Gate

_PARITY = "graph and model differ by {{value:.1e}} over {rows:,} rows; {{limit:.0e}} is allowed"
RESAMPLES = 1_000
"""Bootstrap resamples: the 10 % quantile of a thousand is known to about one percentage point."""


@dataclass(frozen=True, slots=True)
class Check:
    """One condition. `value` is None when it could not be measured, which does not pass."""

    name: str
    passed: bool
    value: float | None
    limit: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Gain:
    """AUC of the challenger minus that of the champion on the same rows, and its one-sided lower confidence bound."""

    value: float
    lower: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the challenger is promoted, and why. `gain` is None without a champion to compare with."""

    promote: bool
    checks: tuple[Check, ...]
    gain: Gain | None
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def decide(
    gate: Gate,
    *,
    challenger: Metrics,
    champion: Metrics | None,
    uncompared: str = "",
    labels: np.ndarray[Any, Any],
    challenger_scores: np.ndarray[Any, Any],
    champion_scores: np.ndarray[Any, Any] | None,
    parity: ParityReport,
    latency_p99_ms: float | None,
    size_bytes: int,
    seed: int,
) -> Decision:
    """All checks of the gate. Without a champion only the absolute ones apply.

    `uncompared` says why there is none although there is: the one that is served cannot be judged on these rows.
    Labels are 0 or 1 [N]; scores are P(positive), float64 [N], of the same rows, which taught neither model.
    """
    checks = [
        _at_least("rows", challenger.rows, gate.minimum_rows, "{value:,.0f} unseen rows; {limit:,.0f} are needed"),
        _at_least("auc", challenger.auc, gate.minimum_auc, "AUC {value:.4f}; at least {limit:.4f} is needed"),
        _check(
            "parity",
            parity.passed,
            parity.worst,
            parity.tolerance,
            _PARITY.format(rows=parity.rows + parity.adversarial_rows),
        ),
        _at_most(
            "latency",
            latency_p99_ms,
            gate.maximum_latency_ms,
            "one row takes {value:.2f} ms (p99); {limit:g} ms is allowed",
        ),
        _at_most(
            "size", size_bytes / 1e6, gate.maximum_size_mb, "the graph has {value:.2f} MB; {limit:g} MB is allowed"
        ),
    ]
    gain = None
    if champion is not None and champion_scores is not None and challenger.auc is not None:
        gain = bootstrap_gain(labels, challenger_scores, champion_scores, confidence=gate.confidence, seed=seed)
        checks.append(
            Check(
                "gain",
                gain.lower > gate.improvement,
                gain.lower,
                gate.improvement,
                f"the AUC's gain is at least {gain.lower:+.4f} with {gate.confidence:.0%} confidence; "
                f"it has to exceed {gate.improvement:+.4f}",
            )
        )
    promote = all(check.passed for check in checks)
    return Decision(promote, tuple(checks), gain, _sentence(challenger, champion, uncompared, gain, checks))


def bootstrap_gain(
    labels: np.ndarray[Any, Any],
    challenger: np.ndarray[Any, Any],
    champion: np.ndarray[Any, Any],
    *,
    confidence: float,
    seed: int,
) -> Gain:
    """The gain in AUC with its one-sided lower bound from a paired bootstrap (percentile method).

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. Rows are drawn with both scores, each
    class by itself, so that a resample has both classes; a draw is a count per row, and the AUC of counted rows comes
    from one pass over presorted scores. Raises ValueError when the labels have one class.
    """
    positive = labels.astype(bool)
    if positive.all() or not positive.any():
        raise ValueError("an AUC needs both classes")
    rng = np.random.default_rng(seed)
    ranked = [_Ranked(scores) for scores in (challenger, champion)]
    everything = np.ones(len(labels))
    value = ranked[0].auc(positive, everything) - ranked[1].auc(positive, everything)
    differences = np.empty(RESAMPLES)
    for resample in range(RESAMPLES):
        weights = np.empty(len(labels))
        for rows in (positive, ~positive):
            count = int(rows.sum())
            weights[rows] = np.bincount(rng.integers(0, count, count), minlength=count)
        differences[resample] = ranked[0].auc(positive, weights) - ranked[1].auc(positive, weights)
    return Gain(float(value), float(np.quantile(differences, 1 - confidence)), confidence)


class _Ranked:
    """Scores sorted once, for many weighted AUCs."""

    def __init__(self, scores: np.ndarray[Any, Any]) -> None:
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        # Where each run of equal scores begins: equal scores count half.
        self._starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])

    def auc(self, positive: np.ndarray[Any, Any], weights: np.ndarray[Any, Any]) -> float:
        """P(score of a positive > score of a negative) + P(equal) / 2 over weighted rows (Mann-Whitney)."""
        ordered, weight = positive[self._order], weights[self._order]
        ups = np.add.reduceat(np.where(ordered, weight, 0.0), self._starts)
        downs = np.add.reduceat(np.where(ordered, 0.0, weight), self._starts)
        below = np.cumsum(downs) - downs
        return float((ups * (below + downs / 2)).sum() / (ups.sum() * downs.sum()))


def _at_least(name: str, value: float | None, limit: float, text: str) -> Check:
    return _check(name, value is not None and value >= limit, value, limit, text)


def _at_most(name: str, value: float | None, limit: float, text: str) -> Check:
    return _check(name, value is not None and value <= limit, value, limit, text)


def _check(name: str, passed: bool, value: float | None, limit: float, text: str) -> Check:
    sentence = f"{name} could not be measured" if value is None else text.format(value=value, limit=limit)
    return Check(name, passed, None if value is None else float(value), float(limit), sentence)


def _sentence(
    challenger: Metrics, champion: Metrics | None, uncompared: str, gain: Gain | None, checks: Sequence[Check]
) -> str:
    failed = [check.sentence for check in checks if not check.passed]
    if challenger.auc is None:
        compared = f"{challenger.rows:,} unseen rows decide nothing"
    elif champion is None or champion.auc is None or gain is None:
        rival = f"; {uncompared}" if uncompared else ", and no champion to compare with"
        compared = f"AUC {challenger.auc:.4f} on {challenger.rows:,} unseen rows{rival}"
    else:
        compared = (
            f"AUC {challenger.auc:.4f} against the champion's {champion.auc:.4f} "
            f"on {challenger.rows:,} rows that neither has seen"
        )
    if not failed:
        bound = f" (gain at least {gain.lower:+.4f} with {gain.confidence:.0%} confidence)" if gain else ""
        return f"Promoted: {compared}{bound}."
    stays = "The champion stays" if champion is not None or uncompared else "Not promoted"
    return f"{stays}: {compared}; but {'; '.join(failed)}."
