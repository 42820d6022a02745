"""Metrics, and the gate: what it lets through, what it keeps out, and how often it is wrong."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from models.evaluation import Metrics, evaluate, measure_latency, score
from models.export import export
from models.gate import Decision, bootstrap_gain, decide
from models.parity import ParityReport
from models.spec import Gate
from tests.models.boosters import trained

GOOD_PARITY = ParityReport(1000, 1000, 1e-16, 1e-12, passed=True)


def _rows(seed: int, rows: int = 1500, *, better: float = 0.0, noise: float = 1.0) -> tuple[Any, Any, Any]:
    """Labels, challenger's and champion's scores. The challenger sees the truth `better` clearer."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-truth))).astype(np.uint8)
    champion = truth + rng.normal(0, noise, rows)
    challenger = truth + rng.normal(0, noise / (1 + better), rows)
    return labels, challenger, champion


def _decide(labels: Any, challenger: Any, champion: Any = None, **changes: Any) -> Decision:
    gate = Gate(**{"minimum_auc": 0.5, "minimum_rows": 50, "confidence": 0.9, **changes.pop("gate", {})})
    given: dict[str, Any] = {"parity": GOOD_PARITY, "latency_p99_ms": 0.1, "size_bytes": 1_000_000, "seed": 7}
    return decide(
        gate,
        challenger=evaluate(labels, _squashed(challenger)),
        champion=None if champion is None else evaluate(labels, _squashed(champion)),
        labels=labels,
        challenger_scores=challenger,
        champion_scores=champion,
        **{**given, **changes},
    )


def _squashed(scores: Any) -> Any:
    return 1 / (1 + np.exp(-scores))


def test_metrics_are_scikit_learns() -> None:
    labels = np.array([0, 0, 1, 1], np.uint8)
    metrics = evaluate(labels, np.array([0.1, 0.4, 0.35, 0.8]))
    assert metrics.auc == 0.75
    assert metrics.average_precision == pytest.approx(0.8333333)
    assert metrics.brier == pytest.approx(0.158125)
    assert (metrics.rows, metrics.positives) == (4, 2)


def test_metrics_that_the_rows_do_not_say_are_none() -> None:
    nothing = evaluate(np.empty(0, np.uint8), np.empty(0))
    assert nothing == Metrics(0, 0, None, None, None, None)
    one_class = evaluate(np.ones(3, np.uint8), np.array([0.9, 0.8, 0.7]))
    assert one_class.auc is None
    assert one_class.log_loss is not None


def test_scores_and_latency_come_from_the_graph() -> None:
    made = trained()
    model = export(made.model.booster_text, made.graph, made.signature, kind="exact")
    scores = score(model, made.feeds())
    assert evaluate(made.frame["__label"].to_numpy(), scores).auc > 0.7  # type: ignore[operator]
    ticks = iter(range(10_000))
    latency = measure_latency(model, {name: v[:1] for name, v in made.feeds().items()}, lambda: next(ticks) / 1000)
    assert [latency.p50, latency.p99] == pytest.approx([1.0, 1.0])


def test_the_bootstraps_auc_is_the_auc_ties_included() -> None:
    labels, challenger, champion = _rows(1)
    rounded = np.round(challenger)
    gain = bootstrap_gain(labels, rounded, champion, confidence=0.9, seed=1)
    assert gain.value == pytest.approx(roc_auc_score(labels, rounded) - roc_auc_score(labels, champion), abs=1e-12)
    assert gain.lower < gain.value


def test_the_same_seed_gives_the_same_bound() -> None:
    labels, challenger, champion = _rows(2)
    bounds = [bootstrap_gain(labels, challenger, champion, confidence=0.9, seed=seed).lower for seed in (1, 1, 2)]
    assert bounds[0] == bounds[1] != bounds[2]


def test_a_challenger_that_is_no_better_passes_as_seldom_as_promised() -> None:
    """200 trials at 90 %: 20 promotions are expected; more than 34 have a probability below 0.1 %."""
    promoted = sum(_decide(*_rows(seed, rows=600)).promote for seed in range(200))
    assert promoted <= 34


def test_a_challenger_that_is_truly_better_nearly_always_passes() -> None:
    promoted = sum(_decide(*_rows(seed, better=1.0)).promote for seed in range(50))
    assert promoted >= 48


def test_equal_scores_never_pass() -> None:
    labels, challenger, _ = _rows(3)
    assert not _decide(labels, challenger, challenger.copy()).promote


def test_the_first_model_passes_on_absolute_figures_alone() -> None:
    labels, challenger, _ = _rows(4)
    decision = _decide(labels, challenger)
    assert decision.promote
    assert decision.gain is None
    assert decision.sentence.startswith("Promoted: AUC 0.")
    assert "no champion to compare with" in decision.sentence


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"gate": {"minimum_auc": 0.99}}, "auc"),
        ({"gate": {"minimum_rows": 5000}}, "rows"),
        ({"parity": ParityReport(1, 1, 1e-3, 1e-12, passed=False)}, "parity"),
        ({"parity": ParityReport(0, 0, 0.0, 1e-12, passed=False)}, "parity"),
        ({"latency_p99_ms": 50.0}, "latency"),
        ({"latency_p99_ms": None}, "latency"),
        ({"size_bytes": 10**9}, "size"),
        ({"gate": {"improvement": 0.5}}, "gain"),
    ],
)
def test_each_check_can_keep_a_challenger_out(changes: dict[str, Any], failed: str) -> None:
    decision = _decide(*_rows(5, better=1.0), **changes)
    assert [check.name for check in decision.checks if not check.passed] == [failed]
    assert not decision.promote
    assert decision.sentence.startswith("The champion stays:")


def test_rows_of_one_class_decide_nothing() -> None:
    labels, challenger, champion = _rows(6)
    decision = _decide(np.ones_like(labels), challenger, champion)
    assert not decision.promote
    assert "decide nothing" in decision.sentence


def test_a_decision_is_plain_json() -> None:
    decision = _decide(*_rows(7))
    assert json.loads(json.dumps(decision.to_dict(), allow_nan=False))["promote"] == decision.promote
