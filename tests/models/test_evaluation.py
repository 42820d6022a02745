"""Metrics are scikit-learn's, and the bootstrap's are the same ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bootstrap import bootstrap_gain, statistic
from models.evaluation import Metrics, Yardstick, calibration_error, evaluate, evaluate_slices
from models.export import export
from models.metric_names import HIGHER_IS_BETTER, METRICS_OF
from models.scoring import measure_latency, score
from models.spec_parts import Metric, Task
from tests.models.boosters import trained
from tests.models.test_gate import of_numbers, of_three_classes, of_two_classes

AUC = Yardstick("binary", "auc")
EVERY: list[tuple[Task, Metric]] = [(task, metric) for task, metrics in METRICS_OF.items() for metric in metrics]
MADE = {"binary": of_two_classes, "multiclass": of_three_classes, "regression": of_numbers}


def pairs(*scores: float) -> Any:
    return np.array([[1 - score_, score_] for score_ in scores])


def test_metrics_are_scikit_learns() -> None:
    labels = np.array([0, 0, 1, 1], np.uint8)
    metrics = evaluate(labels, pairs(0.1, 0.4, 0.35, 0.8), AUC)
    assert metrics["auc"] == 0.75
    assert metrics["average_precision"] == pytest.approx(0.8333333)
    assert metrics["brier"] == pytest.approx(0.158125)
    assert metrics["accuracy"] == 0.75
    assert (metrics.rows, metrics["positives"]) == (4, 2)
    assert Metrics.from_dict(metrics.to_dict()) == metrics


def test_metrics_that_the_rows_do_not_say_are_none() -> None:
    nothing = evaluate(np.empty(0, np.uint8), np.empty((0, 2)), AUC)
    assert nothing.rows == 0
    assert {value for name, value in nothing.figures.items() if name != "positives"} == {None}
    one_class = evaluate(np.ones(3, np.uint8), pairs(0.9, 0.8, 0.7), AUC)
    assert one_class["auc"] is None
    assert one_class["log_loss"] is not None


def test_several_classes() -> None:
    labels = np.array([0, 1, 2, 2])
    answers = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8]])
    metrics = evaluate(labels, answers, Yardstick("multiclass", "log_loss"))
    assert metrics["accuracy"] == 0.75
    assert metrics["log_loss"] == pytest.approx(-np.log([0.7, 0.5, 0.2, 0.8]).mean())
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)


def test_numbers() -> None:
    labels, answers = np.array([1.0, 2.0, 5.0]), np.array([[1.0], [4.0], [4.0]])
    metrics = evaluate(labels, answers, Yardstick("regression", "rmse", alpha=0.9))
    assert metrics["mae"] == 1.0
    assert metrics["rmse"] == pytest.approx((5 / 3) ** 0.5)
    assert metrics["pinball"] == pytest.approx((0.1 * 2 + 0.9 * 1) / 3)
    assert "pinball" not in evaluate(labels, answers, Yardstick("regression", "rmse")).figures


def test_calibration_is_the_gap_between_what_was_said_and_what_happened() -> None:
    labels = np.array([1, 0, 0, 0, 1, 1, 1, 0])
    scores = np.array([0.25] * 4 + [0.95] * 4)
    assert calibration_error(labels, scores) == pytest.approx(0.5 * 0 + 0.5 * 0.2)
    assert calibration_error(np.array([1]), np.array([1.0])) == 0.0


@pytest.mark.parametrize(("task", "metric"), EVERY)
def test_the_bootstraps_metric_is_the_reported_one_ties_included(task: Task, metric: Metric) -> None:
    labels, answers, _ = MADE[task](1, rows=300)
    by = Yardstick(task, metric, alpha=0.8 if metric == "pinball" else None)
    for each in (answers, np.round(answers, 1)):
        expected = evaluate(labels, _rescaled(each, task), by)[metric]
        assert statistic(by, labels, _rescaled(each, task))(np.ones((1, len(labels)))) == pytest.approx(
            expected, rel=1e-9
        )


@given(st.lists(st.integers(0, 3), min_size=60, max_size=60), st.sampled_from(EVERY))
@settings(max_examples=60, deadline=None)
def test_a_weight_counts_as_so_many_rows(weights: list[int], what: tuple[Task, Metric]) -> None:
    task, metric = what
    labels, answers, _ = MADE[task](2, rows=60)
    by = Yardstick(task, metric, alpha=0.8 if metric == "pinball" else None)
    rows = np.repeat(np.arange(60), weights)
    if len(rows) == 0 or (task == "binary" and len(set(labels[rows].tolist())) < 2):
        return
    weighted = statistic(by, labels, answers)(np.array([weights], float))
    assert weighted == pytest.approx(statistic(by, labels[rows], answers[rows])(np.ones((1, len(rows)))), rel=1e-9)


def _rescaled(answers: Any, task: Task) -> Any:
    """Rounded probabilities that add up to one again."""
    if task == "regression":
        return answers
    kept = np.clip(answers, 0.05, None)
    return kept / kept.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("task", "metric"), EVERY)
def test_a_better_model_gains_whichever_way_is_better(task: Task, metric: Metric) -> None:
    if metric == "calibration_error":
        return
    labels, challenger, champion = MADE[task](3, rows=800, better=3.0)
    by = Yardstick(task, metric, alpha=0.5 if metric == "pinball" else None)
    gain = bootstrap_gain(labels, challenger, champion, by, confidence=0.9, seed=1)
    assert gain.value > gain.lower > 0
    difference = (
        statistic(by, labels, challenger)(np.ones((1, 800)))[0] - statistic(by, labels, champion)(np.ones((1, 800)))[0]
    )
    assert gain.value == pytest.approx(difference if metric in HIGHER_IS_BETTER else -difference)


def test_the_same_seed_gives_the_same_bound() -> None:
    labels, challenger, champion = of_two_classes(2)
    bounds = [bootstrap_gain(labels, challenger, champion, AUC, confidence=0.9, seed=seed).lower for seed in (1, 1, 2)]
    assert bounds[0] == bounds[1] != bounds[2]


def test_rows_of_a_group_are_drawn_together_so_that_copies_prove_nothing() -> None:
    labels, challenger, champion = (np.repeat(each, 20, axis=0) for each in of_numbers(4, rows=50, better=0.3))
    by = Yardstick("regression", "rmse")
    alone = bootstrap_gain(labels, challenger, champion, by, confidence=0.9, seed=1)
    grouped = bootstrap_gain(
        labels, challenger, champion, by, confidence=0.9, seed=1, groups=np.repeat(np.arange(50), 20)
    )
    assert grouped.value == alone.value
    assert grouped.lower < alone.lower


def test_slices_are_the_values_with_the_most_rows() -> None:
    labels, challenger, champion = of_two_classes(5, rows=90)
    towns = pl.Series(["Ghent"] * 50 + [""] * 30 + ["Faro"] * 10)
    slices = evaluate_slices("town", towns, labels, challenger, champion, AUC)
    assert [(part.value, part.challenger.rows) for part in slices] == [("Ghent", 50), ("", 30), ("Faro", 10)]
    assert slices[0].challenger == evaluate(labels[:50], challenger[:50], AUC)
    assert slices[0].champion == evaluate(labels[:50], champion[:50], AUC)
    assert evaluate_slices("town", towns, labels, challenger, None, AUC)[0].champion is None


def test_every_slice_that_has_enough_rows_to_decide_is_measured() -> None:
    labels, challenger, champion = of_two_classes(5, rows=700)
    towns = pl.Series([f"town {row % 60:02}" for row in range(690)] + ["Faro"] * 10)
    many = evaluate_slices("town", towns, labels, challenger, champion, AUC)
    decisive = evaluate_slices("town", towns, labels, challenger, champion, AUC, decisive_rows=10)
    assert (len(many), len(decisive)) == (50, 61)
    assert decisive[:50] == many


def test_scores_and_latency_come_from_the_graph() -> None:
    made = trained()
    model = export(made.model.booster_text, made.graph, made.signature, kind="exact")
    auc = evaluate(made.frame["__label"].to_numpy(), score(model, made.feeds()), AUC)["auc"]
    assert auc is not None
    assert auc > 0.7
    ticks = iter(range(10_000))
    latency = measure_latency(model, {name: v[:1] for name, v in made.feeds().items()}, lambda: next(ticks) / 1000)
    assert [latency.p50, latency.p99] == pytest.approx([1.0, 1.0])
