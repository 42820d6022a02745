"""The gate: what it lets through, what it keeps out, and how often it is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models.evaluation import Metrics, Slice, Yardstick, constant_answers, evaluate
from models.gate import Decision, Evidence, decide
from models.metric_names import METRICS_OF
from models.parity import ParityReport
from models.spec import Gate

GOOD_PARITY = ParityReport(1000, 1000, 1e-16, 1e-12, passed=True)
AUC = Yardstick("binary", "auc")
RMSE = Yardstick("regression", "rmse")
LOSS = Yardstick("multiclass", "log_loss")

type Rows = tuple[Any, Any, Any]
"""Labels, the challenger's answers and the champion's."""


def of_two_classes(seed: int, rows: int = 1500, *, better: float = 0.0, noise: float = 1.0) -> Rows:
    """The challenger sees the truth `better` clearer."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=rows)
    labels = (rng.random(rows) < _logistic(truth)).astype(np.uint8)
    champion = truth + rng.normal(0, noise, rows)
    challenger = truth + rng.normal(0, noise / (1 + better), rows)
    return labels, _pairs(challenger), _pairs(champion)


def of_numbers(seed: int, rows: int = 600, *, better: float = 0.0) -> Rows:
    """Errors with a long tail, as of delays."""
    rng = np.random.default_rng(seed)
    labels = rng.lognormal(2, 1, rows)
    errors = rng.standard_t(5, (2, rows)) * np.sqrt(labels)
    return labels, (labels + errors[0] / (1 + better))[:, None], (labels + errors[1])[:, None]


def of_three_classes(seed: int, rows: int = 600, *, better: float = 0.0) -> Rows:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(rows, 3))
    labels = (truth + rng.gumbel(size=(rows, 3))).argmax(axis=1)
    challenger = _softmax(truth + rng.normal(0, 1 / (1 + better), (rows, 3)))
    return labels, challenger, _softmax(truth + rng.normal(0, 1, (rows, 3)))


def _logistic(scores: Any) -> Any:
    return 1 / (1 + np.exp(-scores))


def _pairs(scores: Any) -> Any:
    return np.stack([1 - _logistic(scores), _logistic(scores)], axis=1)


def _softmax(scores: Any) -> Any:
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True)


def _evidence(rows: Rows, by: Yardstick, *, first: bool = False) -> Evidence:
    labels, challenger, champion = rows
    return Evidence(
        labels=labels,
        challenger=evaluate(labels, challenger, by),
        challenger_answers=challenger,
        champion=None if first else evaluate(labels, champion, by),
        champion_answers=None if first else champion,
        parity=GOOD_PARITY,
        latency_p99_ms=0.1,
        size_bytes=1_000_000,
        seed=7,
        holdout_rows=len(labels),
    )


def _decide(rows: Rows, by: Yardstick = AUC, *, first: bool = False, gate: Any = None, **changes: Any) -> Decision:
    settings = Gate(**{"minimum_rows": 50, "confidence": 0.9, **(gate or {})})
    return decide(settings, by, replace(_evidence(rows, by, first=first), **changes))


# How often it is wrong. 200 trials at 90 %: 20 promotions are expected; more than 34 have a probability below 0.1 %.


@pytest.mark.parametrize(
    ("made", "by"), [(of_two_classes, AUC), (of_numbers, RMSE), (of_three_classes, LOSS)], ids=["auc", "rmse", "loss"]
)
def test_a_challenger_that_is_no_better_passes_as_seldom_as_promised(made: Any, by: Yardstick) -> None:
    promoted = sum(_decide(made(seed, rows=300), by).promote for seed in range(200))
    assert 6 <= promoted <= 34


def of_groups(seed: int, groups: int) -> tuple[Rows, Any]:
    """Models that are each wrong in another way about each group; and the rows' groups."""
    rng = np.random.default_rng(seed)
    group, truth = rng.integers(0, groups, 600), rng.normal(size=600)
    labels = (rng.random(600) < _logistic(truth)).astype(np.uint8)
    noise = (1 + rng.normal(0, 0.8, (2, groups))[:, group]) * rng.normal(size=(2, 600))
    return (labels, _pairs(truth + noise[0]), _pairs(truth + noise[1])), group.astype(np.float64)


@pytest.mark.parametrize(("groups", "trials", "at_most"), [(1, 20, 0), (3, 20, 0), (5, 200, 34)])
def test_few_groups_do_not_make_it_pass_more_often(groups: int, trials: int, at_most: int) -> None:
    tried = [of_groups(seed, groups) for seed in range(trials)]
    assert sum(_decide(rows, groups=group).promote for rows, group in tried) <= at_most


def numbers_of_groups(seed: int, groups: int) -> tuple[Rows, Any]:
    """Each model errs by something that all rows of a group share."""
    rng = np.random.default_rng(seed)
    group, labels = rng.integers(0, groups, 600), rng.lognormal(2, 1, 600)
    shared = rng.normal(size=(2, groups))[:, group]
    values = labels + (shared + rng.standard_t(5, (2, 600))) * np.sqrt(labels)
    return (labels, values[0][:, None], values[1][:, None]), group.astype(np.float64)


def classes_of_groups(seed: int, groups: int) -> tuple[Rows, Any]:
    rng = np.random.default_rng(seed)
    group, truth = rng.integers(0, groups, 600), rng.normal(size=(600, 3))
    labels = (truth + rng.gumbel(size=(600, 3))).argmax(axis=1)
    noise = (1 + rng.normal(0, 0.8, (2, groups))[:, group])[:, :, None] * rng.normal(size=(2, 600, 3))
    return (labels, _softmax(truth + noise[0]), _softmax(truth + noise[1])), group.astype(np.float64)


@pytest.mark.parametrize("groups", [10, 40])
@pytest.mark.parametrize(("made", "by"), [(numbers_of_groups, RMSE), (classes_of_groups, LOSS)], ids=["rmse", "loss"])
def test_groups_of_any_task_do_not_make_it_pass_more_often(made: Any, by: Yardstick, groups: int) -> None:
    tried = [made(seed, groups) for seed in range(200)]
    assert sum(_decide(rows, by, groups=group).promote for rows, group in tried) <= 34


def of_rare_positives(seed: int, positives: int) -> Rows:
    rng = np.random.default_rng(seed)
    labels = (np.arange(200) < positives).astype(np.uint8)
    truth = rng.normal(size=200) + 1.5 * labels
    return labels, _pairs(truth + rng.normal(size=200)), _pairs(truth + rng.normal(size=200))


@pytest.mark.parametrize(("positives", "trials", "at_most"), [(1, 20, 0), (3, 20, 0), (5, 200, 34), (40, 200, 34)])
def test_few_rows_of_a_class_do_not_make_it_pass_more_often(positives: int, trials: int, at_most: int) -> None:
    tried = [of_rare_positives(seed, positives) for seed in range(trials)]
    assert sum(_decide(rows, gate={"minimum_auc": 0.0}).promote for rows in tried) <= at_most


def test_too_few_to_be_that_sure_is_said() -> None:
    decision = _decide(of_rare_positives(1, 5), gate={"minimum_auc": 0.0, "confidence": 0.99})
    assert decision.sentence.endswith(
        "but 5 unseen groups, or rows of the rarer class, cannot show a gain with 99% confidence; 7 are needed."
    )
    json.dumps(decision.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("made", "by"), [(of_two_classes, AUC), (of_numbers, RMSE), (of_three_classes, LOSS)], ids=["auc", "rmse", "loss"]
)
def test_a_challenger_that_is_truly_better_nearly_always_passes(made: Any, by: Yardstick) -> None:
    promoted = sum(_decide(made(seed, rows=1500, better=1.0), by).promote for seed in range(40))
    assert promoted >= 38


def test_equal_answers_never_pass() -> None:
    labels, challenger, _ = of_two_classes(3)
    assert not _decide((labels, challenger, challenger.copy())).promote


def without_skill(made: Any) -> Any:
    """The same answers, each for another row."""

    def shuffled(seed: int, rows: int) -> Rows:
        labels, challenger, champion = made(seed, rows=rows)
        return labels, np.random.default_rng(seed).permutation(challenger), champion

    return shuffled


TASKS = [(of_two_classes, AUC), (of_numbers, RMSE), (of_three_classes, LOSS)]


@pytest.mark.parametrize(("made", "by"), TASKS, ids=["auc", "rmse", "loss"])
def test_a_first_model_without_skill_passes_as_seldom_as_promised(made: Any, by: Yardstick) -> None:
    promoted = sum(_decide(without_skill(made)(seed, 300), by, first=True).promote for seed in range(200))
    assert promoted <= 34


def test_a_first_model_that_tosses_a_coin_for_each_row_passes_as_seldom_as_promised() -> None:
    def tossed(seed: int) -> Rows:
        rng = np.random.default_rng(seed)
        return (np.arange(200) < 40).astype(np.uint8), _pairs(rng.normal(size=200)), _pairs(rng.normal(size=200))

    assert 6 <= sum(_decide(tossed(seed), first=True).promote for seed in range(200)) <= 34


@pytest.mark.parametrize(("made", "by"), TASKS, ids=["auc", "rmse", "loss"])
def test_a_first_model_with_skill_nearly_always_passes(made: Any, by: Yardstick) -> None:
    assert sum(_decide(made(seed, rows=1500, better=1.0), by, first=True).promote for seed in range(40)) >= 38


EVERY_METRIC = [
    *((of_two_classes, Yardstick("binary", name)) for name in METRICS_OF["binary"]),
    *((of_three_classes, Yardstick("multiclass", name)) for name in METRICS_OF["multiclass"]),
    *((of_numbers, Yardstick("regression", name, 0.8)) for name in METRICS_OF["regression"]),
]


@pytest.mark.parametrize(("made", "by"), EVERY_METRIC, ids=[by.metric for _, by in EVERY_METRIC])
def test_the_same_answer_for_every_row_is_no_first_model(made: Any, by: Yardstick) -> None:
    labels, challenger, champion = made(1, rows=600)
    constant = constant_answers(labels, challenger, by)
    decision = _decide((labels, constant, champion), by, first=True)
    assert [check.name for check in decision.checks if not check.passed] == ["skill"]
    assert "over the same answer for every row is at least" in decision.sentence
    knowing = labels[:, None] if by.task == "regression" else np.eye(challenger.shape[1])[labels]
    mixed = 0.5 * constant + 0.5 * knowing
    assert _decide((labels, mixed, champion), by, first=True).promote


@pytest.mark.parametrize(
    ("made", "by", "gate"),
    [
        (of_two_classes, AUC, {"minimum_auc": 0.0}),
        (of_two_classes, AUC, {"minimum_auc": 0.5}),
        (of_two_classes, AUC, {"minimum": {"auc": 0.5}}),
        (of_three_classes, LOSS, {"maximum": {"log_loss": 2.0}}),
        (of_numbers, RMSE, {"maximum": {"rmse": 1e9}}),
    ],
    ids=["auc 0", "auc 0.5", "minimum", "log loss", "rmse"],
)
def test_a_bound_in_the_pipelines_file_is_obeyed_as_it_stands(made: Any, by: Yardstick, gate: Any) -> None:
    labels, challenger, champion = made(1, rows=600)
    constant = constant_answers(labels, challenger, by)
    assert _decide((labels, constant, champion), by, first=True, gate=gate).promote


def test_a_challenger_that_beats_its_champion_and_knows_less_than_nothing_is_not_promoted() -> None:
    labels, right, other = of_two_classes(1, better=1.0)
    wrong, worse = right[:, ::-1], np.where(labels[:, None] == [0, 1], 0.1, 0.9) * other
    decision = _decide((labels, wrong, worse))
    assert [check.name for check in decision.checks if not check.passed] == ["skill"]
    assert "over the same answer for every row is -0." in decision.sentence
    assert _decide((labels, wrong, worse), gate={"minimum_auc": 0.0}).promote


def test_few_groups_show_no_skill_either() -> None:
    rows, group = of_groups(1, 3)
    decision = _decide(rows, first=True, groups=group)
    assert "3 unseen groups, or rows of the rarer class, cannot show a gain" in decision.sentence


def test_the_first_model_passes_on_absolute_figures_alone() -> None:
    decision = _decide(of_two_classes(4), first=True)
    assert decision.promote
    assert decision.gain is None
    assert decision.sentence.startswith("Promoted: AUC 0.")
    assert "no champion to compare with" in decision.sentence


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"gate": {"minimum_auc": 0.99}}, "auc"),
        ({"gate": {"minimum": {"average_precision": 0.99}}}, "average_precision"),
        ({"gate": {"maximum": {"log_loss": 0.01}}}, "log_loss"),
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
    decision = _decide(of_two_classes(5, better=1.0), **changes)
    assert [check.name for check in decision.checks if not check.passed] == [failed]
    assert not decision.promote
    assert decision.sentence.startswith("The champion stays:")


def _slice(value: str, rows: int, ours: float, theirs: float) -> Slice:
    return Slice("town", value, Metrics(rows, {"auc": ours}), Metrics(rows, {"auc": theirs}))


SLICES = (_slice("Ghent", 500, 0.8, 0.7), _slice("Porto", 400, 0.65, 0.7), _slice("Faro", 20, 0.1, 0.9))


@pytest.mark.parametrize(("limit", "promoted"), [(None, True), (0.1, True), (0.01, False)])
def test_no_slice_with_enough_rows_may_lose_too_much(limit: float | None, promoted: bool) -> None:
    decision = _decide(of_two_classes(5, better=1.0), gate={"slice_loss": limit}, slices=SLICES)
    assert decision.promote == promoted
    found = [check for check in decision.checks if check.name == "slice"]
    assert [check.value for check in found] == ([] if limit is None else [pytest.approx(0.05)])
    assert all("town 'Porto' (400 rows)" in check.sentence for check in found)


def test_slices_that_are_all_too_small_decide_nothing() -> None:
    decision = _decide(of_two_classes(5, better=1.0), gate={"slice_loss": 0.0}, slices=SLICES[2:])
    assert decision.promote


def test_rows_that_taught_the_champion_are_warned_about() -> None:
    few = _decide(of_two_classes(5, rows=60), gate={"minimum_rows": 100}, holdout_rows=1000)
    assert few.warnings == ("940 of 1,000 holdout rows taught the champion and do not count; 60 remain",)
    some = _decide(of_two_classes(5, rows=400), holdout_rows=1000)
    assert some.warnings == ("only 400 of 1,000 holdout rows did not teach the champion",)
    assert _decide(of_two_classes(5, rows=400)).warnings == ()


@pytest.mark.parametrize("first", [True, False])
def test_rows_of_one_class_decide_nothing(first: bool) -> None:
    labels, challenger, champion = of_two_classes(6)
    decision = _decide((np.ones_like(labels), challenger, champion), first=first)
    assert not decision.promote
    assert "decide nothing" in decision.sentence
    assert "could not be measured" in decision.sentence


@pytest.mark.parametrize("by", [AUC, RMSE, LOSS], ids=["auc", "rmse", "loss"])
@pytest.mark.parametrize("first", [True, False])
def test_no_rows_decide_nothing(by: Yardstick, first: bool) -> None:
    made = {"binary": of_two_classes, "regression": of_numbers, "multiclass": of_three_classes}[by.task]
    none: Any = tuple(each[:0] for each in made(1, rows=10))
    decision = _decide(none, by, first=first)
    assert (decision.promote, decision.gain) == (False, None)
    assert "0 unseen rows; 50 are needed" in decision.sentence


def test_the_sentence_of_a_regression_speaks_of_its_error() -> None:
    decision = _decide(of_numbers(1, better=1.0), RMSE)
    assert decision.sentence.startswith("Promoted: root mean squared error ")
    assert decision.gain is not None
    assert decision.gain.value > 0


def test_a_decision_is_plain_json() -> None:
    decision = _decide(of_two_classes(7), slices=SLICES, gate={"slice_loss": 0.1})
    assert json.loads(json.dumps(decision.to_dict(), allow_nan=False))["promote"] == decision.promote
