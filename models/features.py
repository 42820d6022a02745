"""The feature graph: raw columns to one float32 matrix, as ONNX, so that training and serving cannot differ.

What it computes, it computes with operators that round each row by itself (models.feature_nodes), so that one row gives
the same bits as the same row in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import polars as pl
from onnx import TensorProto, helper

from models.feature_nodes import Nodes
from models.manifest import InputColumn, InputKind, Signature

if TYPE_CHECKING:
    from models.profiles import Profile
    from models.spec import PipelineSpec

OPSET = 21
ML_OPSET = 5
"""The first ai.onnx.ml with TreeEnsemble in float64, so that the model can follow in the same graph."""
IR_VERSION = 10
"""The IR that belongs to opset 21."""
FEATURES = "features"
_VIEW = np.dtype([("length", np.int32), ("text", "S12")])
FLAT, SHAPE = "__flat", "__shape"
BATCH_ROWS = 16_384
"""Rows that go through onnxruntime at once: enough to hide its overhead, few enough to stay in the CPU's caches."""


def feature_names(spec: PipelineSpec) -> tuple[str, ...]:
    """Names of the matrix's columns, in order."""
    return tuple(column.name for column in spec.feature_columns)


def signature(spec: PipelineSpec) -> Signature:
    """What a request carries (the spec's inputs, in order) and what the answers are called."""
    inputs = tuple(InputColumn(name, _kind(spec, name)) for name in spec.inputs)
    positive = spec.label.positive if spec.task == "binary" else ""
    return Signature(
        inputs=inputs,
        classes=spec.classes,
        positive=positive,
        task=spec.task,
        unknown_columns=spec.requests.unknown_columns,
        missing_columns=spec.requests.missing_columns,
    )


def fit_features(profile: Profile, spec: PipelineSpec) -> bytes:
    """The graph for rows of this profile: equal profiles and specs give equal bytes.

    Inputs as in `models.manifest.InputColumn`; output `features`, FLOAT [N, F]. Missing numbers stay NaN. A category
    is 0 when missing (MISSING_TEXTS, as in files), 1 when unknown or rarer than its `minimum_count`, and 2, 3, ... by
    falling frequency (equally frequent ones by name), for at most `maximum` of them.
    """
    inputs = []
    for name in spec.inputs:
        element = TensorProto.STRING if _kind(spec, name) == "category" else TensorProto.DOUBLE
        inputs.append(helper.make_tensor_value_info(name, element, ["N"]))
    nodes = Nodes(profile.categories)
    columns = [nodes.column(column) for column in spec.feature_columns]
    graph = helper.make_graph(
        [*nodes.nodes, *_matrix_nodes(columns)],
        FEATURES,
        inputs,
        [_output(len(columns))],
        initializer=[*nodes.constants, _shape(len(columns))],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ratchet")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def select_features(model: onnx.ModelProto, chosen: Sequence[int]) -> onnx.GraphProto:
    """The graph of `fit_features` with only the `chosen` columns of the matrix, and only what they are computed by.

    Its inputs stay all of them: what a request carries does not change with what a model happens to use.
    """
    (concat,) = [node for node in model.graph.node if list(node.output) == [FLAT]]
    columns = [concat.input[index] for index in chosen]
    nodes = [node for node in model.graph.node if not {FLAT, "__float", "__columns", FEATURES} & set(node.output)]
    kept = _needed(nodes, columns)
    used = {name for node in kept for name in node.input} | set(columns)
    constants = [constant for constant in model.graph.initializer if constant.name in used]
    return helper.make_graph(
        [*kept, *_matrix_nodes(columns)],
        FEATURES,
        model.graph.input,
        [_output(len(columns))],
        initializer=[*constants, _shape(len(columns))],
    )


def feeds(frame: pl.DataFrame, spec: PipelineSpec) -> dict[str, np.ndarray[Any, Any]]:
    """The graph's inputs from a clean frame: float64 [N] with NaN for missing, object [N] of str for categories."""
    return {name: frame[name].to_numpy() for name in spec.inputs}  # where a number is null, that has NaN


class FeatureRows:
    """The feature graph, ready to compute rows of the matrix."""

    def __init__(self, graph: bytes, spec: PipelineSpec, *, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._spec = spec
        self.width = len(spec.feature_columns)

    def compute(self, frame: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.float32]]:
        """float32 [N, F], C-contiguous: the clean frame's rows through the graph, in batches."""
        matrix = np.empty((frame.height, self.width), np.float32)
        for start in range(0, frame.height, BATCH_ROWS):
            batch = frame.slice(start, BATCH_ROWS)
            columns = {name: _quickly(batch[name]) for name in self._spec.inputs}
            matrix[start : start + batch.height] = self._session.run([FEATURES], columns)[0]
        return matrix


def compute_matrix(
    graph: bytes, frame: pl.DataFrame, spec: PipelineSpec, threads: int = 1
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 [N, F], C-contiguous: the clean frame's rows through the graph."""
    return FeatureRows(graph, spec, threads=threads).compute(frame)


def _quickly(values: pl.Series) -> np.ndarray[Any, Any]:
    """As in `feeds`, but texts as bytes where that is possible: onnxruntime takes them five times as fast.

    Arrow keeps a text of up to twelve bytes within its view, behind its length and filled up with zeros. onnxruntime
    reads bytes up to a zero. So where one text is longer than eleven bytes, or has a zero in it, all are objects.
    Source: https://arrow.apache.org/docs/format/Columnar.html#variable-size-binary-view-layout
    """
    if values.dtype != pl.String:
        return values.to_numpy()
    array = values.to_arrow(compat_level=pl.CompatLevel.newest())
    views = np.frombuffer(array.buffers()[1], _VIEW, count=len(array), offset=array.offset * _VIEW.itemsize)
    lengths, texts = views["length"], np.ascontiguousarray(views["text"])
    if lengths.max(initial=0) >= texts.itemsize or np.count_nonzero(texts.view(np.uint8)) != lengths.sum():
        return values.to_numpy()
    return texts


def _needed(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs are computed by, in the order they are in."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


def _matrix_nodes(columns: Sequence[str]) -> list[onnx.NodeProto]:
    # The columns end to end, cut into rows and turned: four nodes instead of one for each column.
    return [
        helper.make_node("Concat", columns, [FLAT], axis=0),
        helper.make_node("Cast", [FLAT], ["__float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["__float", SHAPE], ["__columns"]),
        helper.make_node("Transpose", ["__columns"], [FEATURES], perm=[1, 0]),
    ]


def _shape(columns: int) -> onnx.TensorProto:
    return helper.make_tensor(SHAPE, TensorProto.INT64, [2], [columns, -1])


def _output(columns: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["N", columns])


def _kind(spec: PipelineSpec, name: str) -> InputKind:
    kind = spec.columns[name].type
    if kind == "text":
        raise ValueError(f"{name} is a text column, which no feature can be")
    return kind
