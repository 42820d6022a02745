"""The gate between a challenger and the champion's place: every check with its figure, its limit and a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from models.bootstrap import Gain, bootstrap_gain, gain_of
from models.evaluation import Answers, Metrics, Slice, Yardstick, constant_answers
from models.metric_names import HIGHER_IS_BETTER, SHOWN
from models.parity import ParityReport

if TYPE_CHECKING:
    from models.spec_parts import Gate, Metric

_PARITY = "graph and model differ by {{value:.1e}} over {rows:,} rows; {{limit:.0e}} is allowed"


@dataclass(frozen=True, slots=True)
class Check:
    """One condition. `value` is None when it could not be measured, which does not pass."""

    name: str
    passed: bool
    value: float | None
    limit: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a challenger is judged by, on rows that taught neither model.

    `labels` is [N]; the answers are float64 [N, K]; `groups` [N] says which rows belong together, if the holdout is by
    group. Without a champion its metrics and answers are None; `uncompared` says why, if there is one all the same: it
    cannot be judged on these rows. `holdout_rows` is how many rows there were before those that taught the champion
    were left out. `vanished_rows` is how many rows taught the champion in files that are no longer there, where others
    may hold them.
    """

    labels: np.ndarray[Any, Any]
    challenger: Metrics
    challenger_answers: np.ndarray[Any, Any]
    parity: ParityReport
    size_bytes: int
    seed: int
    latency_p99_ms: float | None = None
    champion: Metrics | None = None
    champion_answers: np.ndarray[Any, Any] | None = None
    groups: np.ndarray[Any, Any] | None = None
    slices: Sequence[Slice] = ()
    uncompared: str = ""
    holdout_rows: int = 0
    vanished_rows: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether the challenger is promoted, and why. `gain` is None without a champion to compare with.

    `warnings` are sentences about what weakens the judgement.
    """

    promote: bool
    checks: tuple[Check, ...]
    gain: Gain | None
    sentence: str
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def decide(gate: Gate, by: Yardstick, given: Evidence) -> Decision:
    """All checks of the gate. Without a champion only the absolute ones apply.

    Unless the gate says itself how good a model has to be by the deciding metric, it has to be better than knowing
    nothing: surely where there is no champion to beat, at all where it has to beat one surely.
    """
    checks = [*_absolute(gate, by, given), *_of_the_graph(gate, given)]
    if by.metric not in _bounds(gate):
        checks.append(_skill(gate, by, given))
    gain = None
    if given.champion is not None and given.champion_answers is not None:
        gain = _gain(by, given, given.champion_answers, gate.confidence)
        checks.append(_exceeds("gain", f"the gain in {SHOWN[by.metric]}", gain, gate.improvement, by))
        if gate.slice_loss is not None:
            checks.append(_worst_slice(gate, gate.slice_loss, by, given.slices))
    promote = all(check.passed for check in checks)
    sentence = _sentence(by, given, gain, checks)
    return Decision(promote, tuple(checks), gain, sentence, tuple(_warnings(gate, given)))


def _absolute(gate: Gate, by: Yardstick, given: Evidence) -> Iterator[Check]:
    measured = given.challenger
    yield _at_least("rows", measured.rows, gate.minimum_rows, "{value:,.0f} unseen rows; {limit:,.0f} are needed")
    for name, limit in _bounds(gate).items():
        if name in HIGHER_IS_BETTER:
            words = f"{SHOWN[name]} {{value:.4f}}; at least {{limit:.4f}} is needed"
            yield _at_least(name, measured[name], limit, words)
        else:
            words = f"{SHOWN[name]} {{value:.5g}}; at most {{limit:.5g}} is allowed"
            yield _at_most(name, measured[name], limit, words)


def _bounds(gate: Gate) -> Mapping[Metric, float]:
    """What the pipeline's file says of a metric's value."""
    usual: Mapping[Metric, float] = {"auc": gate.minimum_auc} if gate.minimum_auc is not None else {}
    return {**usual, **gate.minimum, **gate.maximum}


def _of_the_graph(gate: Gate, given: Evidence) -> Iterator[Check]:
    parity = given.parity
    words = _PARITY.format(rows=parity.rows + parity.adversarial_rows)
    yield _check("parity", parity.passed, parity.worst, parity.tolerance, words)
    words = "one row takes {value:.2f} ms (p99); {limit:g} ms is allowed"
    yield _at_most("latency", given.latency_p99_ms, gate.maximum_latency_ms, words)
    words = "the graph has {value:.2f} MB; {limit:g} MB is allowed"
    yield _at_most("size", given.size_bytes / 1e6, gate.maximum_size_mb, words)


def _gain(by: Yardstick, given: Evidence, rival: Answers, confidence: float) -> Gain | None:
    """None where the rows do not say how good the challenger is."""
    if given.challenger[by.metric] is None:
        return None
    ours, groups = given.challenger_answers, given.groups
    return bootstrap_gain(given.labels, ours, rival, by, confidence=confidence, seed=given.seed, groups=groups)


def _skill(gate: Gate, by: Yardstick, given: Evidence) -> Check:
    """Whether the challenger is better than the one answer for all rows that is the best on just these rows."""
    # No model is better calibrated than a constant: that figure says nothing of what a model knows of a row.
    by = replace(by, metric="auc") if by.metric == "calibration_error" else by
    ours, nothing = given.challenger_answers, constant_answers(given.labels, given.challenger_answers, by)
    what = f"the gain in {SHOWN[by.metric]} over the same answer for every row"
    if given.champion is None or given.challenger[by.metric] is None:
        return _exceeds("skill", what, _gain(by, given, nothing, gate.confidence), 0.0, by)
    gain = gain_of(given.labels, ours, nothing, by)
    return Check("skill", gain > 0, gain, 0.0, f"{what} is {_signed(gain, by)}; it has to be above zero")


def _exceeds(name: str, what: str, gain: Gain | None, limit: float, by: Yardstick) -> Check:
    if gain is None:
        return Check(name, False, None, limit, f"{what} could not be measured")
    if gain.units < gain.units_needed:
        units = "groups, or rows of the rarer class,"
        sentence = (
            f"{gain.units:,} unseen {units} cannot show a gain with {gain.confidence:.0%} confidence; "
            f"{gain.units_needed:,} are needed"
        )
        return Check(name, False, None, limit, sentence)
    sentence = (
        f"{what} is at least {_signed(gain.lower, by)} with {gain.confidence:.0%} confidence; "
        f"it has to exceed {_signed(limit, by)}"
    )
    return Check(name, gain.lower > limit, gain.lower, limit, sentence)


def _worst_slice(gate: Gate, limit: float, by: Yardstick, slices: Sequence[Slice]) -> Check:
    """The largest loss in a slice that has enough rows, and where both models can be measured."""
    losses = []
    for part in slices:
        ours, theirs = part.challenger[by.metric], part.champion[by.metric] if part.champion else None
        if part.challenger.rows >= gate.slice_minimum_rows and ours is not None and theirs is not None:
            losses.append((theirs - ours if by.metric in HIGHER_IS_BETTER else ours - theirs, part))
    if not losses:
        return Check("slice", True, 0.0, limit, f"no slice has the {gate.slice_minimum_rows:,} rows that decide")
    loss, worst = max(losses, key=lambda pair: pair[0])
    where = f"{worst.column} {worst.value or '(missing)'!r} ({worst.challenger.rows:,} rows)"
    sentence = (
        f"in the slice {where} {SHOWN[by.metric]} changes by {_signed(-loss, by)} for the better; "
        f"{_signed(-limit, by)} is allowed"
    )
    return Check("slice", loss <= limit, loss, limit, sentence)


def _warnings(gate: Gate, given: Evidence) -> Iterator[str]:
    rows = given.challenger.rows
    taught = given.holdout_rows - rows
    if taught > 0 and rows < gate.minimum_rows:
        yield f"{taught:,} of {given.holdout_rows:,} holdout rows taught the champion and do not count; {rows:,} remain"
    elif taught > rows:
        yield f"only {rows:,} of {given.holdout_rows:,} holdout rows did not teach the champion"
    if given.vanished_rows:
        yield (
            f"files with {given.vanished_rows:,} rows that taught the champion are no longer there; "
            "if new files hold those rows, it has seen some that it is judged by"
        )


def _at_least(name: str, value: float | None, limit: float, text: str) -> Check:
    return _check(name, value is not None and value >= limit, value, limit, text)


def _at_most(name: str, value: float | None, limit: float, text: str) -> Check:
    return _check(name, value is not None and value <= limit, value, limit, text)


def _check(name: str, passed: bool, value: float | None, limit: float, text: str) -> Check:
    sentence = f"{name} could not be measured" if value is None else text.format(value=value, limit=limit)
    return Check(name, passed, None if value is None else float(value), float(limit), sentence)


def _sentence(by: Yardstick, given: Evidence, gain: Gain | None, checks: Sequence[Check]) -> str:
    failed = [check.sentence for check in checks if not check.passed]
    rows, named = given.challenger.rows, SHOWN[by.metric]
    ours = given.challenger[by.metric]
    theirs = given.champion[by.metric] if given.champion is not None else None
    if ours is None:
        compared = f"{rows:,} unseen rows decide nothing"
    elif theirs is None or gain is None:
        rival = f"; {given.uncompared}" if given.uncompared else ", and no champion to compare with"
        compared = f"{named} {_plain(ours, by)} on {rows:,} unseen rows{rival}"
    else:
        compared = (
            f"{named} {_plain(ours, by)} against the champion's {_plain(theirs, by)} "
            f"on {rows:,} rows that neither has seen"
        )
    if not failed:
        bound = ""
        if gain is not None:
            bound = f" (gain at least {_signed(gain.lower, by)} with {gain.confidence:.0%} confidence)"
        return f"Promoted: {compared}{bound}."
    stays = "The champion stays" if given.champion is not None or given.uncompared else "Not promoted"
    return f"{stays}: {compared}; but {'; '.join(failed)}."


def _plain(value: float, by: Yardstick) -> str:
    return f"{value:.5g}" if by.task == "regression" else f"{value:.4f}"


def _signed(value: float, by: Yardstick) -> str:
    return f"{value:+.4g}" if by.task == "regression" else f"{value:+.4f}"
