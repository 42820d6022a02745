"""A booster and its feature graph become one ONNX graph: raw columns in, answers out.

`exact`: one ai.onnx.ml v5 TreeEnsemble in float64, built from the booster's own dump, so that it takes the same branch
as LightGBM on every row. `portable`: onnxmltools' trees in float32 (ai.onnx.ml 4), for runtimes without the v5 kernel,
with thresholds moved so that they take the same branches as well. Features that no tree uses are not computed.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import lightgbm as lgb
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.ensemble import (
    ExportError,
    Node,
    largest_float32_below,
    link_of,
    missing_goes_left,
    nodes_of,
    refuse_inexact,
    threshold,
    used_features,
)
from models.features import FEATURES, IR_VERSION, ML_OPSET, OPSET, select_features
from models.link_nodes import PREFIX, SCORES, link_nodes
from models.manifest import Signature

__all__ = ["ExportError", "ExportKind", "export", "opset_of"]

ExportKind = Literal["exact", "portable"]

ML_OPSET_PORTABLE = 4
LEQ, SUM, NO_TRANSFORM = 0, 1, 0
"""TreeEnsemble's codes for the node mode BRANCH_LEQ, the aggregate SUM and no post-transform."""


def export(booster_text: str, features_graph: bytes, signature: Signature, *, kind: ExportKind) -> bytes:
    """One graph with the signature's inputs and its output, DOUBLE [N, K]: probabilities, or in a regression the value.

    Equal inputs give equal bytes. Raises ExportError.
    """
    booster = lgb.Booster(model_str=booster_text)
    dump = booster.dump_model()
    refuse_inexact(dump)
    link, per_iteration = link_of(dump), int(dump["num_tree_per_iteration"])
    if max(len(signature.classes), 1) != (2 if link.function == "logistic" else per_iteration):
        raise ExportError("objective", f"{per_iteration} scores do not make {list(signature.classes)}")
    features = onnx.load_model_from_string(features_graph)
    _check_inputs(features, signature)
    used = used_features(dump)
    places = {feature: place for place, feature in enumerate(used)}
    # The logistic function of s is the softmax of (0, s): the trees write the second column of two.
    trees = _Trees(dump, places, targets=2 if link.function == "logistic" else per_iteration)
    nodes = trees.exact() if kind == "exact" else trees.portable(booster_text, booster.num_feature())
    tail = link_nodes(link, width=trees.targets, output=signature.output)
    graph = _joined(select_features(features, used), [*nodes, *tail.nodes], tail.constants, signature)
    ml = ML_OPSET if kind == "exact" else ML_OPSET_PORTABLE
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ml)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ratchet")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def opset_of(model: bytes) -> dict[str, int]:
    """The operator sets that a graph needs, by domain ('' is ONNX's own)."""
    return {opset.domain: opset.version for opset in onnx.load_model_from_string(model).opset_import}


def _check_inputs(features: onnx.ModelProto, signature: Signature) -> None:
    names = [value.name for value in features.graph.input]
    expected = [column.name for column in signature.inputs]
    if names != expected:
        raise ExportError("the feature graph", f"it takes {names}, the signature says {expected}")


@dataclass(frozen=True, slots=True)
class _Trees:
    """The booster's trees as an operator from `features` to SCORES, DOUBLE [N, targets]."""

    dump: Mapping[str, Any]
    places: Mapping[int, int]
    """Where a feature is among the ones that are computed."""
    targets: int

    def exact(self) -> list[onnx.NodeProto]:
        per_iteration = self.dump["num_tree_per_iteration"]
        ensemble = _Ensemble(self.places)
        for number, tree in enumerate(self.dump["tree_info"]):
            ensemble.add(tree["tree_structure"], target=self._target(number % per_iteration))
        widen = helper.make_node("Cast", [FEATURES], [f"{PREFIX}wide"], to=TensorProto.DOUBLE)
        return [widen, ensemble.node(f"{PREFIX}wide", SCORES, self.targets)]

    def portable(self, booster_text: str, features: int) -> list[onnx.NodeProto]:
        attributes = _converted(booster_text, features)
        self._snap(attributes)
        weights = "class" if "class_ids" in attributes else "target"
        ensemble = helper.make_node(
            "TreeEnsembleRegressor",
            [FEATURES],
            [f"{PREFIX}narrow"],
            domain="ai.onnx.ml",
            name=f"{PREFIX}trees",
            n_targets=self.targets,
            aggregate_function="SUM",
            post_transform="NONE",
            target_ids=[self._target(target) for target in attributes[f"{weights}_ids"]],
            target_nodeids=attributes[f"{weights}_nodeids"],
            target_treeids=attributes[f"{weights}_treeids"],
            target_weights=attributes[f"{weights}_weights"],
            **{name: value for name, value in attributes.items() if name.startswith("nodes_")},
        )
        return [ensemble, helper.make_node("Cast", [f"{PREFIX}narrow"], [SCORES], to=TensorProto.DOUBLE)]

    def _target(self, score: int) -> int:
        return score if self.targets == self.dump["num_tree_per_iteration"] else 1

    def _snap(self, attributes: dict[str, Any]) -> None:
        """Moves the float32 thresholds so that they divide float32 features as the float64 ones do.

        x <= t holds for a float32 x exactly when x is at most the largest float32 that is not above t. The converter
        rounds to the nearest one instead, which is above t for about every fifth threshold.
        """
        places = zip(attributes["nodes_treeids"], attributes["nodes_nodeids"], strict=True)
        position = {place: index for index, place in enumerate(places)}
        true_ids, false_ids = attributes["nodes_truenodeids"], attributes["nodes_falsenodeids"]
        for number, tree in enumerate(self.dump["tree_info"]):
            stack: list[tuple[Node, int]] = [(tree["tree_structure"], position[number, 0])]
            while stack:
                node, index = stack.pop()
                if "split_feature" not in node:
                    continue
                attributes["nodes_values"][index] = largest_float32_below(threshold(node))
                attributes["nodes_featureids"][index] = self.places[node["split_feature"]]
                attributes["nodes_missing_value_tracks_true"][index] = int(missing_goes_left(node))
                stack.append((node["left_child"], position[number, true_ids[index]]))
                stack.append((node["right_child"], position[number, false_ids[index]]))


@dataclass(slots=True)
class _Ensemble:
    """The attributes of TreeEnsemble, filled tree by tree."""

    places: Mapping[int, int]
    roots: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    missing_left: list[int] = field(default_factory=list)
    children: dict[str, list[int]] = field(default_factory=lambda: {"true": [], "false": []})
    leaves: dict[str, list[int]] = field(default_factory=lambda: {"true": [], "false": []})
    weights: list[float] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)

    def add(self, root: Node, *, target: int) -> None:
        base = len(self.features)
        self.roots.append(base)
        inner = [node for node in nodes_of(root) if "split_feature" in node]
        if not inner:
            self._add_stump(root, target)
            return
        index = {id(node): base + position for position, node in enumerate(inner)}
        for node in inner:
            self.features.append(self.places[node["split_feature"]])
            self.splits.append(threshold(node))
            self.missing_left.append(int(missing_goes_left(node)))
            for side, child in (("true", node["left_child"]), ("false", node["right_child"])):
                is_leaf = "split_feature" not in child
                self.leaves[side].append(int(is_leaf))
                self.children[side].append(self._leaf(child, target) if is_leaf else index[id(child)])

    def _add_stump(self, leaf: Node, target: int) -> None:
        """A tree of one leaf: a split with the same leaf on both sides, because ONNX has no tree without a split."""
        weight = self._leaf(leaf, target)
        self.features.append(0)
        self.splits.append(0.0)
        self.missing_left.append(0)
        for side in ("true", "false"):
            self.leaves[side].append(1)
            self.children[side].append(weight)

    def _leaf(self, leaf: Node, target: int) -> int:
        self.weights.append(leaf["leaf_value"])
        self.targets.append(target)
        return len(self.weights) - 1

    def node(self, source: str, output: str, targets: int) -> onnx.NodeProto:
        """The operator: float64 [N, F] to [N, targets], the sum of the trees of each target."""
        modes = np.full(len(self.features), LEQ, np.uint8)
        return helper.make_node(
            "TreeEnsemble",
            [source],
            [output],
            domain="ai.onnx.ml",
            n_targets=targets,
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
            leaf_targetids=self.targets,
            leaf_weights=numpy_helper.from_array(np.array(self.weights, np.float64), "weights"),
        )


def _converted(booster_text: str, features: int) -> dict[str, Any]:
    """The attributes of onnxmltools' tree ensemble.

    It is told of a plain objective, because it gets the links of some wrong and refuses others; the link follows in
    operators of its own.
    """
    plain = re.sub(r"^objective=(?!multiclass).*$", "objective=regression", booster_text, flags=re.MULTILINE)
    plain = re.sub(r"^\[objective: (?!multiclass).*\]$", "[objective: regression]", plain, flags=re.MULTILINE)
    plain = re.sub(r"^average_output\n", "", plain, flags=re.MULTILINE)
    with warnings.catch_warnings():
        # onnxmltools imports helpers that onnx has deprecated; nothing in its output depends on them.
        warnings.simplefilter("ignore", DeprecationWarning)
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType

        shape = [("x", FloatTensorType([None, features]))]
        converted = convert_lightgbm(lgb.Booster(model_str=plain), initial_types=shape, zipmap=False, target_opset=9)
    (ensemble,) = [node for node in converted.graph.node if node.op_type.startswith("TreeEnsemble")]
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in ensemble.attribute}
    return {name: list(value) if not isinstance(value, bytes | int) else value for name, value in values.items()}


def _joined(
    features: onnx.GraphProto, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], signature: Signature
) -> onnx.GraphProto:
    return helper.make_graph(
        [*features.node, *nodes],
        "ratchet",
        features.input,
        [helper.make_tensor_value_info(signature.output, TensorProto.DOUBLE, ["N", signature.width])],
        [*features.initializer, *constants],
    )
