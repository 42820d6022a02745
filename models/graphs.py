"""Parts of an exported graph."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from models.features import FEATURES


def after_features(model: bytes) -> bytes:
    """The model's part of an exported graph: from `features`, FLOAT [N, F] of the features it uses, to its output.

    It is what a booster's matrix can be compared with, and the floor for how fast a single row can be.
    """
    whole = onnx.load_model_from_string(model)
    known = {FEATURES}
    nodes = []
    for node in whole.graph.node:
        if known & set(node.input):
            known |= set(node.output)
            nodes.append(node)
    names = {name for node in nodes for name in node.input}
    constants = [constant for constant in whole.graph.initializer if constant.name in names]
    taken = helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["N", None])
    graph = helper.make_graph(nodes, "model", [taken], whole.graph.output, constants)
    part = helper.make_model(graph, opset_imports=whole.opset_import, ir_version=whole.ir_version)
    return bytes(part.SerializeToString(deterministic=True))
