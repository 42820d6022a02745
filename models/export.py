"""A booster and its feature graph become one ONNX graph: raw columns in, answers out.

`exact`: one ai.onnx.ml v5 TreeEnsemble in float64, built from the booster's own text, so that it takes the same branch
as LightGBM on every row. `portable`: onnxmltools' trees in float32 (ai.onnx.ml 4), for runtimes without the v5 kernel,
with thresholds moved so that they take the same branches as well. Features that no tree uses are not computed.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import lightgbm as lgb
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.ensemble import (
    NO_FEATURE,
    ExportError,
    Integers,
    Trees,
    largest_float32_below,
    link_of,
    missing_goes_left,
    onnx_thresholds,
    read_trees,
    refuse_inexact,
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
    trees = read_trees(booster_text)
    refuse_inexact(trees)
    link = link_of(trees)
    if max(len(signature.classes), 1) != (2 if link.function == "logistic" else trees.per_iteration):
        raise ExportError("objective", f"{trees.per_iteration} scores do not make {list(signature.classes)}")
    features = onnx.load_model_from_string(features_graph)
    _check_inputs(features, signature)
    used = used_features(trees)
    # The logistic function of s is the softmax of (0, s): the trees write the second column of two.
    written = [1] if link.function == "logistic" else list(range(trees.per_iteration))
    ensemble = _Ensemble(trees, used, written)
    nodes = ensemble.exact() if kind == "exact" else ensemble.portable(booster_text)
    tail = link_nodes(link, width=ensemble.width, output=signature.output)
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
class _Ensemble:
    """The booster's trees as an operator from `features` (of which only the `used` are computed) to SCORES.

    SCORES is DOUBLE [N, width]. The trees of an iteration write the columns `written`, one each.
    """

    trees: Trees
    used: Sequence[int]
    written: Sequence[int]

    @property
    def width(self) -> int:
        return max(self.written) + 1

    def exact(self) -> list[onnx.NodeProto]:
        trees = self.trees
        split_base, leaf_base = (np.repeat(first, trees.splits) for first in (trees.first_split, trees.first_leaf))

        def places(children: Integers) -> list[int]:
            found: list[int] = np.where(children < 0, ~children + leaf_base, children + split_base).tolist()
            return found

        targets = np.resize(self.written, len(trees.splits))
        ensemble = helper.make_node(
            "TreeEnsemble",
            [f"{PREFIX}wide"],
            [SCORES],
            domain="ai.onnx.ml",
            n_targets=self.width,
            aggregate_function=SUM,
            post_transform=NO_TRANSFORM,
            tree_roots=trees.first_split.tolist(),
            nodes_featureids=self._feature_places().tolist(),
            nodes_splits=numpy_helper.from_array(onnx_thresholds(trees), "splits"),
            nodes_modes=numpy_helper.from_array(np.full(len(trees.feature), LEQ, np.uint8), "modes"),
            nodes_truenodeids=places(trees.left),
            nodes_falsenodeids=places(trees.right),
            nodes_trueleafs=(trees.left < 0).astype(int).tolist(),
            nodes_falseleafs=(trees.right < 0).astype(int).tolist(),
            nodes_missing_value_tracks_true=missing_goes_left(trees).astype(int).tolist(),
            leaf_targetids=np.repeat(targets, trees.leaves).tolist(),
            leaf_weights=numpy_helper.from_array(trees.leaf, "weights"),
        )
        widen = helper.make_node("Cast", [FEATURES], [f"{PREFIX}wide"], to=TensorProto.DOUBLE)
        return [widen, ensemble]

    def portable(self, booster_text: str) -> list[onnx.NodeProto]:
        attributes = _converted(booster_text, self.trees.width)
        self._snap(attributes)
        weights = "class" if "class_ids" in attributes else "target"
        ensemble = helper.make_node(
            "TreeEnsembleRegressor",
            [FEATURES],
            [f"{PREFIX}narrow"],
            domain="ai.onnx.ml",
            name=f"{PREFIX}trees",
            n_targets=self.width,
            aggregate_function="SUM",
            post_transform="NONE",
            target_ids=[self.written[score] for score in attributes[f"{weights}_ids"]],
            target_nodeids=attributes[f"{weights}_nodeids"],
            target_treeids=attributes[f"{weights}_treeids"],
            target_weights=attributes[f"{weights}_weights"],
            **{name: value for name, value in attributes.items() if name.startswith("nodes_")},
        )
        return [ensemble, helper.make_node("Cast", [f"{PREFIX}narrow"], [SCORES], to=TensorProto.DOUBLE)]

    def _feature_places(self) -> Integers:
        """Where each split's feature is among the ones that are computed, [S]; anywhere for NO_FEATURE."""
        return np.searchsorted(self.used, self.trees.feature)

    def _snap(self, attributes: dict[str, Any]) -> None:
        """Moves the float32 thresholds so that they divide float32 features as the float64 ones do.

        x <= t holds for a float32 x exactly when x is at most the largest float32 that is not above t. The converter
        rounds to the nearest one instead, which is above t for about every fifth threshold.
        """
        trees = self.trees
        values, places = largest_float32_below(onnx_thresholds(trees)).tolist(), self._feature_places().tolist()
        missing_left = missing_goes_left(trees).astype(int).tolist()
        names = zip(attributes["nodes_treeids"], attributes["nodes_nodeids"], strict=True)
        position = {name: index for index, name in enumerate(names)}
        children = (("nodes_truenodeids", trees.left), ("nodes_falsenodeids", trees.right))
        for number, base in enumerate(trees.first_split.tolist()):
            if trees.feature[base] == NO_FEATURE:
                continue
            stack = [(0, position[number, 0])]
            while stack:
                split, index = stack.pop()
                attributes["nodes_values"][index] = values[base + split]
                attributes["nodes_featureids"][index] = places[base + split]
                attributes["nodes_missing_value_tracks_true"][index] = missing_left[base + split]
                stack += [
                    (int(child[base + split]), position[number, attributes[ids][index]])
                    for ids, child in children
                    if child[base + split] >= 0
                ]


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
