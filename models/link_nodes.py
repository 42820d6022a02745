"""From the trees' sums to answers, in operators that give a row the same bits alone and in a batch.

onnxruntime's float64 Sigmoid and Exp do not, nor does Softmax over three columns (it depends on how a row lies in
memory). Softmax over two does, and so do Pow, division, and a sum written column by column.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from models.ensemble import Link

PREFIX = "__model_"
"""Names inside the model's part of the graph: they must not meet the feature graph's."""
SCORES = f"{PREFIX}scores"


@dataclass(slots=True)
class LinkNodes:
    """Nodes and constants from SCORES on."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def op(self, operator: str, *inputs: str, output: str = "", **attributes: int) -> str:
        name = output or f"{PREFIX}{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, value: float | list[int]) -> str:
        name = f"{PREFIX}constant_{len(self.constants)}"
        array = np.array(value, np.int64 if isinstance(value, list) else np.float64)
        self.constants.append(numpy_helper.from_array(array, name))
        return name


def link_nodes(link: Link, *, width: int, output: str) -> LinkNodes:
    """SCORES, DOUBLE [N, width], to `output` of the same shape."""
    made = LinkNodes()
    scores = SCORES
    if link.iterations != 1:
        scores = made.op("Div", scores, made.constant(float(link.iterations)))
    if link.function == "logistic":
        if link.scale != 1.0:
            scores = made.op("Mul", scores, made.constant(link.scale))
        # softmax(0, s) is (1 - logistic(s), logistic(s)).
        made.op("Softmax", scores, output=output, axis=1)
    elif link.function == "softmax":
        _softmax(made, scores, width, output)
    elif link.function == "exponential":
        made.op("Pow", made.constant(float(np.e)), scores, output=output)
    elif link.function == "signed square":
        made.op("Mul", made.op("Sign", scores), made.op("Mul", scores, scores), output=output)
    else:
        made.op("Identity", scores, output=output)
    return made


def _softmax(made: LinkNodes, scores: str, width: int, output: str) -> None:
    largest = made.op("ReduceMax", scores, made.constant([1]), keepdims=1)
    powers = made.op("Pow", made.constant(float(np.e)), made.op("Sub", scores, largest))
    columns = [f"{PREFIX}column_{index}" for index in range(width)]
    made.nodes.append(helper.make_node("Split", [powers], columns, axis=1, num_outputs=width))
    made.op("Div", powers, made.op("Sum", *columns), output=output)
