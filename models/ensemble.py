"""LightGBM's dump of a booster: what is in it, what ONNX cannot say of it, and its thresholds as ONNX compares them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import RatchetError, bounded

INFINITE = 1e300
"""`dump_model` writes an infinite threshold as this."""
ZERO = float(np.float32(1e-35))
"""LightGBM's kZeroThreshold (include/LightGBM/meta.h)."""

type Node = dict[str, Any]


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


def link_of(dump: Mapping[str, Any]) -> Link:
    """The booster's link. Raises ExportError for an objective that has none here."""
    name, *options = str(dump.get("objective", "")).split(" ")
    if name not in LINKS:
        raise ExportError(f"objective {bounded(name, 40)!r}", f"it is none of {', '.join(LINKS)}")
    scale = next((float(option.removeprefix("sigmoid:")) for option in options if option.startswith("sigmoid:")), 1.0)
    function = "signed square" if "sqrt" in options else LINKS[name]
    trees, per_iteration = len(dump["tree_info"]), dump["num_tree_per_iteration"]
    return Link(function, scale, trees // per_iteration if dump.get("average_output") else 1)


def refuse_inexact(dump: Mapping[str, Any]) -> None:
    """Raises ExportError for trees that an ONNX tree ensemble would read in another way."""
    for node in every_node(dump):
        if node.get("leaf_features"):
            raise ExportError("linear_tree", "leaves hold linear models")
        if "split_feature" not in node:
            continue
        if node["decision_type"] != "<=":
            raise ExportError("a categorical split", "categories are encoded by the feature graph")
        if node["missing_type"] == "Zero":
            raise ExportError("zero_as_missing", "ONNX trees treat zero as a number")


def every_node(dump: Mapping[str, Any]) -> Iterator[Node]:
    """Every node of every tree."""
    for tree in dump["tree_info"]:
        yield from nodes_of(tree["tree_structure"])


def nodes_of(root: Node) -> Iterator[Node]:
    """Every node of a tree, depth first, left before right. Iterative: trees may be deeper than Python's stack."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        if "split_feature" in node:
            stack += [node["right_child"], node["left_child"]]


def used_features(dump: Mapping[str, Any]) -> list[int]:
    """The features that any tree splits on, ascending; the first feature if none does, so that rows can be counted."""
    return sorted({node["split_feature"] for node in every_node(dump) if "split_feature" in node}) or [0]


def threshold(node: Node) -> float:
    """The split's threshold for ONNX, which compares values as they are.

    LightGBM reads values within ZERO of zero as zero (Predictor drops them from the row), so that thresholds in that
    range are moved to its edges.
    """
    value = float(node["threshold"])
    if abs(value) >= INFINITE:
        return float(np.copysign(np.inf, value))
    if 0.0 <= value < ZERO:
        return ZERO
    if -ZERO <= value < 0.0:
        return float(np.nextafter(-ZERO, -np.inf))
    return value


def missing_goes_left(node: Node) -> bool:
    """Where NaN goes. Without a direction for missing values, LightGBM reads NaN as zero."""
    return bool(node["default_left"]) if node["missing_type"] == "NaN" else threshold(node) >= 0.0


def largest_float32_below(value: float) -> float:
    """The largest float32 that is not above `value`: it divides float32 numbers as `value` does."""
    nearest = np.float32(value)
    return float(np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > value else nearest)
