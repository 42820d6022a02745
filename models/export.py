"""A booster and its feature graph become one ONNX graph: raw columns in, class probabilities out.

`exact`: one ai.onnx.ml v5 TreeEnsemble in float64, built from the booster's own dump, so that it takes the same branch
as LightGBM on every row. `portable`: onnxmltools' TreeEnsembleClassifier in float32 (ai.onnx.ml 4), for runtimes
without the v5 kernel, with thresholds moved so that it takes the same branches as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import lightgbm as lgb
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.errors import RatchetError, bounded
from models.features import FEATURES, IR_VERSION, ML_OPSET, OPSET
from models.manifest import PROBABILITY, Signature

ExportKind = Literal["exact", "portable"]

ML_OPSET_PORTABLE = 4
PREFIX = "__model_"
"""Names inside the model's part of the graph: they must not meet the feature graph's."""
INFINITE = 1e300
"""`dump_model` writes an infinite threshold as this."""
ZERO = float(np.float32(1e-35))
"""LightGBM's kZeroThreshold (include/LightGBM/meta.h)."""
LEQ, SUM, NO_TRANSFORM = 0, 1, 0
"""TreeEnsemble's codes for the node mode BRANCH_LEQ, the aggregate SUM and no post-transform."""


class ExportError(RatchetError):
    """The booster uses something that ONNX cannot express exactly. `what` names it."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"the model cannot be exported: {what}: {why}")
        self.what = what


def export(booster_text: str, features_graph: bytes, signature: Signature, *, kind: ExportKind) -> bytes:
    """One graph with the signature's inputs and the output `probability`, DOUBLE [N, 2]: P(negative), P(positive).

    Equal inputs give equal bytes. Raises ExportError.
    """
    booster = lgb.Booster(model_str=booster_text)
    dump = booster.dump_model()
    _refuse_inexact(dump)
    build = _exact_tail if kind == "exact" else _portable_tail
    features = onnx.load_model_from_string(features_graph)
    return _joined(features, *build(booster, dump), signature)


type Tail = tuple[list[onnx.NodeProto], int]
"""Nodes from `features` to `probability`, and the ai.onnx.ml version they need."""


def _refuse_inexact(dump: dict[str, Any]) -> None:
    name, *options = str(dump.get("objective", "")).split(" ")
    if name != "binary":
        raise ExportError(f"objective {bounded(name, 40)!r}", "only binary models are exported")
    if any(option.startswith("sigmoid:") and float(option.removeprefix("sigmoid:")) != 1.0 for option in options):
        raise ExportError("sigmoid", "the graph applies the standard logistic function")
    if dump.get("average_output"):
        raise ExportError("average_output", "random forests average their trees")
    if dump["num_tree_per_iteration"] != 1:
        raise ExportError("num_tree_per_iteration", "only binary models are exported")
    for tree in dump["tree_info"]:
        for node in _nodes(tree["tree_structure"]):
            if node.get("leaf_features"):
                raise ExportError("linear_tree", "leaves hold linear models")
            if "split_feature" not in node:
                continue
            if node["decision_type"] != "<=":
                raise ExportError("a categorical split", "categories are encoded by the feature graph")
            if node["missing_type"] == "Zero":
                raise ExportError("zero_as_missing", "ONNX trees treat zero as a number")


def _nodes(root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a tree, depth first, left before right. Iterative: trees may be deeper than Python's stack."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        if "split_feature" in node:
            stack += [node["right_child"], node["left_child"]]


@dataclass(slots=True)
class _Ensemble:
    """The attributes of TreeEnsemble, filled tree by tree."""

    roots: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    missing_left: list[int] = field(default_factory=list)
    children: dict[str, list[int]] = field(default_factory=lambda: {"true": [], "false": []})
    leaves: dict[str, list[int]] = field(default_factory=lambda: {"true": [], "false": []})
    weights: list[float] = field(default_factory=list)

    def add(self, root: dict[str, Any]) -> None:
        base = len(self.features)
        self.roots.append(base)
        inner = [node for node in _nodes(root) if "split_feature" in node]
        if not inner:
            self._add_stump(root)
            return
        index = {id(node): base + position for position, node in enumerate(inner)}
        for node in inner:
            threshold = _threshold(node)
            self.features.append(node["split_feature"])
            self.splits.append(threshold)
            # Without a direction for missing values, LightGBM reads NaN as zero.
            goes_left = node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0.0
            self.missing_left.append(int(goes_left))
            for side, child in (("true", node["left_child"]), ("false", node["right_child"])):
                is_leaf = "split_feature" not in child
                self.leaves[side].append(int(is_leaf))
                self.children[side].append(self._leaf(child) if is_leaf else index[id(child)])

    def _add_stump(self, leaf: dict[str, Any]) -> None:
        """A tree of one leaf: a split with the same leaf on both sides, because ONNX has no tree without a split."""
        weight = self._leaf(leaf)
        self.features.append(0)
        self.splits.append(0.0)
        self.missing_left.append(0)
        for side in ("true", "false"):
            self.leaves[side].append(1)
            self.children[side].append(weight)

    def _leaf(self, leaf: dict[str, Any]) -> int:
        self.weights.append(leaf["leaf_value"])
        return len(self.weights) - 1

    def node(self, source: str, target: str) -> onnx.NodeProto:
        """The operator: float64 [N, F] to [N, 2], where column 0 is zero and column 1 the raw score."""
        modes = np.full(len(self.features), LEQ, np.uint8)
        return helper.make_node(
            "TreeEnsemble",
            [source],
            [target],
            domain="ai.onnx.ml",
            n_targets=2,
            aggregate_function=SUM,
            post_transform=NO_TRANSFORM,
            tree_roots=self.roots,
            nodes_featureids=self.features,
            nodes_splits=numpy_helper.from_array(np.array(self.splits, np.float64), "splits"),
            nodes_modes=numpy_helper.from_array(modes, "modes"),
            nodes_truenodeids=self.children["true"],
            nodes_falsenodeids=self.children["false"],
            nodes_trueleafs=self.leaves["true"],
            nodes_falseleafs=self.leaves["false"],
            nodes_missing_value_tracks_true=self.missing_left,
            leaf_targetids=[1] * len(self.weights),
            leaf_weights=numpy_helper.from_array(np.array(self.weights, np.float64), "weights"),
        )


def _exact_tail(_: lgb.Booster, dump: dict[str, Any]) -> Tail:
    ensemble = _Ensemble()
    for tree in dump["tree_info"]:
        ensemble.add(tree["tree_structure"])
    nodes = [
        helper.make_node("Cast", [FEATURES], [f"{PREFIX}wide"], to=TensorProto.DOUBLE),
        ensemble.node(f"{PREFIX}wide", f"{PREFIX}scores"),
        # softmax(0, s) is (1 - logistic(s), logistic(s)). It works row by row, so that a row alone and a row in a batch
        # give the same bits, which onnxruntime's float64 Sigmoid and Exp do not.
        helper.make_node("Softmax", [f"{PREFIX}scores"], [PROBABILITY], axis=1),
    ]
    return nodes, ML_OPSET


def _portable_tail(booster: lgb.Booster, dump: dict[str, Any]) -> Tail:
    with warnings.catch_warnings():
        # onnxmltools imports helpers that onnx has deprecated; nothing in its output depends on them.
        warnings.simplefilter("ignore", DeprecationWarning)
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType

        shape = [("x", FloatTensorType([None, booster.num_feature()]))]
        converted = convert_lightgbm(booster, initial_types=shape, zipmap=False, target_opset=9)
    (ensemble,) = [node for node in converted.graph.node if node.op_type == "TreeEnsembleClassifier"]
    _snap(ensemble, dump)
    ensemble.input[:] = [FEATURES]
    ensemble.output[:] = [f"{PREFIX}label", f"{PREFIX}narrow"]
    ensemble.name = f"{PREFIX}trees"
    widen = helper.make_node("Cast", [f"{PREFIX}narrow"], [PROBABILITY], to=TensorProto.DOUBLE)
    return [ensemble, widen], ML_OPSET_PORTABLE


def _snap(ensemble: onnx.NodeProto, dump: dict[str, Any]) -> None:
    """Moves the float32 thresholds so that they divide float32 features as the float64 ones do.

    x <= t holds for a float32 x exactly when x is at most the largest float32 that is not above t. The converter rounds
    to the nearest one instead, which is above t for about every fifth threshold.
    """
    attributes = {attribute.name: attribute for attribute in ensemble.attribute}
    values = attributes["nodes_values"].floats
    places = zip(attributes["nodes_treeids"].ints, attributes["nodes_nodeids"].ints, strict=True)
    position = {place: index for index, place in enumerate(places)}
    true_ids, false_ids = attributes["nodes_truenodeids"].ints, attributes["nodes_falsenodeids"].ints
    for number, tree in enumerate(dump["tree_info"]):
        stack = [(tree["tree_structure"], position[number, 0])]
        while stack:
            node, index = stack.pop()
            if "split_feature" in node:
                values[index] = float(_largest_float32_below(_threshold(node)))
                stack.append((node["left_child"], position[number, true_ids[index]]))
                stack.append((node["right_child"], position[number, false_ids[index]]))


def _largest_float32_below(threshold: float) -> np.float32:
    nearest = np.float32(threshold)
    return np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > threshold else nearest


def _threshold(node: dict[str, Any]) -> float:
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


def _joined(features: onnx.ModelProto, nodes: list[onnx.NodeProto], ml: int, signature: Signature) -> bytes:
    names = [value.name for value in features.graph.input]
    expected = [column.name for column in signature.inputs]
    if names != expected:
        raise ExportError("the feature graph", f"it takes {names}, the signature says {expected}")
    graph = helper.make_graph(
        [*features.graph.node, *nodes],
        "ratchet",
        features.graph.input,
        [helper.make_tensor_value_info(PROBABILITY, TensorProto.DOUBLE, ["N", 2])],
        features.graph.initializer,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ml)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ratchet")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
