"""The feature graph: raw columns to one float32 matrix, as ONNX, so that training and serving cannot differ.

Its operators (LabelEncoder, Concat, Cast, Reshape, Transpose) move and look up values and compute none, so that one
row gives the same bits as the same row in a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from models.manifest import InputColumn, InputKind, Signature
from models.texts import MISSING_TEXTS

if TYPE_CHECKING:
    import polars as pl

    from models.profiles import Profile
    from models.spec import PipelineSpec

OPSET = 21
ML_OPSET = 5
"""The first ai.onnx.ml with TreeEnsemble in float64, so that the model can follow in the same graph."""
IR_VERSION = 10
"""The IR that belongs to opset 21."""
FEATURES = "features"
MISSING_CODE = 0.0
UNKNOWN_CODE = 1.0
FIRST_CODE = 2.0
"""The most frequent category's code; the next ones follow. Codes are floats because trees read one float matrix (all
codes are far below 2**24, so they are exact), and frequency ranks because trees then split off the frequent first."""
BATCH_ROWS = 65_536
"""Rows that go through onnxruntime at once: enough to hide its overhead, few enough to bound the string arrays."""


def feature_names(spec: PipelineSpec) -> tuple[str, ...]:
    """Names of the matrix's columns, in order."""
    return spec.features


def signature(spec: PipelineSpec) -> Signature:
    """What a request carries (the spec's features, in order) and what the probabilities are called."""
    inputs = tuple(InputColumn(name, _kind(spec, name)) for name in spec.features)
    classes = (spec.label.negative, spec.label.positive)
    return Signature(
        inputs=inputs,
        classes=classes,
        positive=spec.label.positive,
        unknown_columns=spec.requests.unknown_columns,
        missing_columns=spec.requests.missing_columns,
    )


def fit_features(profile: Profile, spec: PipelineSpec) -> bytes:
    """The graph for rows of this profile: equal profiles and specs give equal bytes.

    Inputs as in `models.manifest.InputColumn`; output `features`, FLOAT [N, F]. Missing numbers stay NaN. A category
    is 0 when missing (MISSING_TEXTS, as in files), 1 when unknown or rarer than `categories.minimum_count`, and 2, 3,
    ... by falling frequency (equally frequent ones by name), for at most `categories.maximum` of them.
    """
    inputs, nodes, columns = [], [], []
    for name in spec.features:
        category = _kind(spec, name) == "category"
        element = TensorProto.STRING if category else TensorProto.DOUBLE
        inputs.append(helper.make_tensor_value_info(name, element, ["N"]))
        columns.append(f"__code_{name}" if category else name)
        if category:
            nodes.append(_encoder(name, columns[-1], _ranked(profile, spec, name)))
    shape = helper.make_tensor("__shape", TensorProto.INT64, [2], [len(columns), -1])
    # The columns end to end, cut into rows and turned: four nodes instead of one for each column.
    nodes += [
        helper.make_node("Concat", columns, ["__flat"], axis=0),
        helper.make_node("Cast", ["__flat"], ["__float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["__float", "__shape"], ["__columns"]),
        helper.make_node("Transpose", ["__columns"], [FEATURES], perm=[1, 0]),
    ]
    output = helper.make_tensor_value_info(FEATURES, TensorProto.FLOAT, ["N", len(columns)])
    graph = helper.make_graph(nodes, FEATURES, inputs, [output], initializer=[shape])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ratchet")
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def feeds(frame: pl.DataFrame, spec: PipelineSpec) -> dict[str, np.ndarray[Any, Any]]:
    """The graph's inputs from a clean frame: float64 [N] with NaN for missing, object [N] of str for categories."""
    return {
        name: frame[name].to_numpy() if _kind(spec, name) == "category" else frame[name].fill_null(np.nan).to_numpy()
        for name in spec.features
    }


def compute_matrix(
    graph: bytes, frame: pl.DataFrame, spec: PipelineSpec, threads: int = 1
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 [N, F], C-contiguous: the clean frame's rows through the graph, in batches."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    matrix = np.empty((frame.height, len(spec.features)), np.float32)
    for start in range(0, frame.height, BATCH_ROWS):
        batch = frame.slice(start, BATCH_ROWS)
        matrix[start : start + batch.height] = session.run([FEATURES], feeds(batch, spec))[0]
    return matrix


def _kind(spec: PipelineSpec, name: str) -> InputKind:
    kind = spec.columns[name].type
    if kind == "text":
        raise ValueError(f"{name} is a text column, which no feature can be")
    return kind


def _ranked(profile: Profile, spec: PipelineSpec, name: str) -> list[str]:
    counts = profile.categories[name]
    kept = [value for value, rows in counts.items() if value and rows >= spec.categories.minimum_count]
    return sorted(kept, key=lambda value: (-counts[value], value))[: spec.categories.maximum]


def _encoder(name: str, output: str, ranked: list[str]) -> onnx.NodeProto:
    codes = [MISSING_CODE] * len(MISSING_TEXTS) + [FIRST_CODE + rank for rank in range(len(ranked))]
    texts = [text.encode() for text in (*MISSING_TEXTS, *ranked)]
    keys = helper.make_tensor("keys", TensorProto.STRING, [len(codes)], texts)
    values = helper.make_tensor("values", TensorProto.DOUBLE, [len(codes)], codes)
    default = helper.make_tensor("default", TensorProto.DOUBLE, [1], [UNKNOWN_CODE])
    return helper.make_node(
        "LabelEncoder",
        [name],
        [output],
        domain="ai.onnx.ml",
        keys_tensor=keys,
        values_tensor=values,
        default_tensor=default,
    )
