"""LightGBM's text of a booster as arrays: what is in it, what ONNX cannot say of it, and its thresholds for ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import RatchetError, bounded

VERSION = "v4"
"""Of the text that is read here."""
INFINITE = 1e300
"""LightGBM keeps an infinite threshold as this."""
ZERO = float(np.float32(1e-35))
"""LightGBM's kZeroThreshold (include/LightGBM/meta.h)."""
NO_FEATURE = -1
CATEGORICAL, DEFAULT_LEFT, MISSING_TYPE, MISSING_IS_ZERO, MISSING_IS_NAN = 1, 2, 12, 4, 8
"""The bits of `decision_type` (include/LightGBM/tree.h)."""

type Floats = np.ndarray[Any, np.dtype[np.float64]]
type Integers = np.ndarray[Any, np.dtype[np.int64]]


class ExportError(RatchetError):
    """The booster uses something that ONNX cannot express exactly. `what` names it."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"the model cannot be exported: {what}: {why}")
        self.what = what


@dataclass(frozen=True, slots=True)
class Link:
    """From the sum of the trees to the answer: average, scale, then `function` by name."""

    function: str
    scale: float = 1.0
    iterations: int = 1
    """Of a random forest, whose trees are averaged; 1 for all others."""


LINKS: Mapping[str, str] = {
    "binary": "logistic",
    "multiclass": "softmax",
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "poisson": "exponential",
    "gamma": "exponential",
    "tweedie": "exponential",
}
"""How LightGBM turns the sum of the trees into a prediction (ConvertOutput of each objective)."""


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """A booster's trees, end to end: of each split [S] and of each leaf [L].

    A tree of one leaf is a split on NO_FEATURE with this leaf on both sides: ONNX has no tree without a split.
    """

    objective: str
    per_iteration: int
    averaged: bool
    linear: bool
    width: int
    """Features of the matrix that the booster takes."""
    feature: Integers
    threshold: Floats
    decision: Integers
    left: Integers
    """The child of a split: a split, counted within its tree, or the complement (~) of a leaf's number there."""
    right: Integers
    leaf: Floats
    splits: Integers
    """How many splits each tree has [T], one after another; the first one is its root."""
    leaves: Integers

    @property
    def first_split(self) -> Integers:
        """Where each tree's splits begin [T]."""
        return np.cumsum(self.splits) - self.splits

    @property
    def first_leaf(self) -> Integers:
        """Where each tree's leaves begin [T]."""
        return np.cumsum(self.leaves) - self.leaves


_ONE_LEAF = {"split_feature": str(NO_FEATURE), "threshold": "0", "decision_type": "0", "left_child": "-1"}


def read_trees(booster_text: str) -> Trees:
    """The trees of a text that LightGBM wrote: the numbers in it are exact. Raises ExportError.

    (`Booster.dump_model` tells the same as nested objects, which takes some eight times as long.)
    """
    head, *texts = booster_text.partition("\nend of trees")[0].split("\nTree=")
    facts = _fields(head)
    if facts.get("version") != VERSION or not texts:
        raise ExportError("the booster's text", f"it has no trees of version {VERSION}")
    trees = [_fields(text) for text in texts]
    for tree in trees:
        if tree["num_leaves"] == "1":
            tree |= {**_ONE_LEAF, "right_child": _ONE_LEAF["left_child"]}

    def integers(name: str) -> Integers:
        return np.array([int(word) for tree in trees for word in tree[name].split()], np.int64)

    def floats(name: str) -> Floats:
        return np.array([float(word) for tree in trees for word in tree[name].split()], np.float64)

    leaves = integers("num_leaves")
    return Trees(
        objective=facts.get("objective", ""),
        per_iteration=int(facts["num_tree_per_iteration"]),
        averaged="average_output" in facts,
        linear=any(tree.get("is_linear") == "1" for tree in trees),
        width=int(facts["max_feature_idx"]) + 1,
        feature=integers("split_feature"),
        threshold=floats("threshold"),
        decision=integers("decision_type"),
        left=integers("left_child"),
        right=integers("right_child"),
        leaf=floats("leaf_value"),
        splits=np.maximum(leaves - 1, 1),
        leaves=leaves,
    )


def link_of(trees: Trees) -> Link:
    """The booster's link. Raises ExportError for an objective that has none here."""
    name, *options = trees.objective.split(" ")
    if name not in LINKS:
        raise ExportError(f"objective {bounded(name, 40)!r}", f"it is none of {', '.join(LINKS)}")
    scale = next((float(option.removeprefix("sigmoid:")) for option in options if option.startswith("sigmoid:")), 1.0)
    function = "signed square" if "sqrt" in options else LINKS[name]
    return Link(function, scale, len(trees.splits) // trees.per_iteration if trees.averaged else 1)


def refuse_inexact(trees: Trees) -> None:
    """Raises ExportError for trees that an ONNX tree ensemble would read in another way."""
    if trees.linear:
        raise ExportError("linear_tree", "leaves hold linear models")
    if (trees.decision & CATEGORICAL).any():
        raise ExportError("a categorical split", "categories are encoded by the feature graph")
    if (trees.decision & MISSING_TYPE == MISSING_IS_ZERO).any():
        raise ExportError("zero_as_missing", "ONNX trees treat zero as a number")


def used_features(trees: Trees) -> list[int]:
    """The features that any tree splits on, ascending; the first feature if none does, so that rows can be counted."""
    used: list[int] = np.unique(trees.feature[trees.feature != NO_FEATURE]).tolist()
    return used or [0]


def onnx_thresholds(trees: Trees) -> Floats:
    """The splits' thresholds for ONNX, which compares values as they are, [S].

    LightGBM reads values within ZERO of zero as zero (Predictor drops them from the row), so that thresholds in that
    range are moved to its edges.
    """
    values = trees.threshold.copy()
    values[(values >= 0.0) & (values < ZERO)] = ZERO
    values[(values >= -ZERO) & (values < 0.0)] = np.nextafter(-ZERO, -np.inf)
    infinite = np.abs(values) >= INFINITE
    values[infinite] = np.copysign(np.inf, values[infinite])
    return values


def missing_goes_left(trees: Trees) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Where NaN goes, [S]. Without a direction for missing values, LightGBM reads NaN as zero."""
    has_direction = trees.decision & MISSING_TYPE == MISSING_IS_NAN
    return np.where(has_direction, trees.decision & DEFAULT_LEFT != 0, onnx_thresholds(trees) >= 0.0)


def largest_float32_below(values: Floats) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The largest float32 that is not above each value: it divides float32 numbers as the value does."""
    nearest = values.astype(np.float32)
    return np.where(nearest > values, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def _fields(text: str) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in text.split("\n"))
