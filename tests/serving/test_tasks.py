"""What models of several classes, and of numbers, answer in each protocol."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from models.manifest import GoldenRows, InputColumn, Signature, Task
from serving.service import InferenceService
from serving.session import Session, golden_feed
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE, publish
from tests.serving.requests import binary, body, outputs, read, tensor

INPUTS = (InputColumn("distance", "number"),)
RECORD = {"distance": 0.25}


def _graph(output: str, weights: list[float]) -> bytes:
    """Column k of the output [N, K] is distance * weights[k]."""
    nodes = [
        helper.make_node("Unsqueeze", ["distance", "axis"], ["column"]),
        helper.make_node("Mul", ["column", "weights"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "weights",
        [helper.make_tensor_value_info("distance", TensorProto.DOUBLE, ["N"])],
        [helper.make_tensor_value_info(output, TensorProto.DOUBLE, ["N", len(weights)])],
        [
            helper.make_tensor("weights", TensorProto.DOUBLE, [1, len(weights)], weights),
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString(deterministic=True))


def _serve(folder: Path, task: Task, classes: tuple[str, ...], weights: list[float]) -> InferenceService:
    blobs = MemoryBlobs()
    signature = Signature(INPUTS, classes, "", task)
    model = _graph(signature.output, weights)
    rows: dict[str, Any] = {"distance": (1.0, 2.0)}
    answers = Session(model).run(golden_feed(signature, GoldenRows(rows, ())))
    golden = GoldenRows(rows, tuple(tuple(row) for row in answers.tolist()))
    sha256 = hashlib.sha256(model).hexdigest()
    publish(blobs, 1, model=model, model_sha256=sha256, signature=signature, golden=golden)
    return InferenceService(blobs, folder, 60.0, lambda: (PIPELINE,))


@pytest.fixture
def classes(tmp_path: Path) -> InferenceService:
    return _serve(tmp_path, "multiclass", ("red", "green", "blue"), [1.0, 2.0, 1.0])


@pytest.fixture
def numbers(tmp_path: Path) -> InferenceService:
    return _serve(tmp_path, "regression", (), [10.0])


def test_of_several_classes_the_likeliest_is_the_label(classes: InferenceService) -> None:
    by_class = {"red": 0.25, "green": 0.5, "blue": 0.25}
    answer = {"label": "green", "probability": 0.5, "probabilities": by_class}
    assert read(classes.predict(PIPELINE, body(RECORD)))["predictions"] == [answer]
    columns = read(classes.predict(PIPELINE, body({"columns": {"distance": [0.25]}})))["predictions"]
    by_column = {name: [value] for name, value in by_class.items()}
    assert columns == {"label": ["green"], "probability": [0.5], "probabilities": by_column}


def test_a_regression_answers_values(numbers: InferenceService) -> None:
    assert read(numbers.predict(PIPELINE, body([RECORD] * 2)))["predictions"] == [{"value": 2.5}] * 2
    columns = read(numbers.predict(PIPELINE, body({"columns": {"distance": [0.25, 1]}})))["predictions"]
    assert columns == {"value": [2.5, 10.0]}


@pytest.mark.parametrize("raw", [True, False])
def test_tensors_have_the_models_outputs(classes: InferenceService, numbers: InferenceService, raw: bool) -> None:
    sent, headers = binary([("distance", "FP64", 1, b"\0\0\0\0\0\0\xd0\x3f")], parameters={"binary_data_output": raw})
    answer = classes.infer(PIPELINE, sent, headers=headers)
    assert outputs(answer) == {"probability": [0.25, 0.5, 0.25], "label": ["green"]}
    assert outputs(numbers.infer(PIPELINE, sent, headers=headers)) == {"value": [2.5]}


def test_metadata_and_errors_name_the_models_outputs(classes: InferenceService, numbers: InferenceService) -> None:
    described = read(classes.metadata(PIPELINE))["outputs"]
    assert [(output["name"], output["shape"]) for output in described] == [("probability", [-1, 3]), ("label", [-1])]
    assert read(numbers.metadata(PIPELINE))["outputs"] == [{"name": "value", "datatype": "FP64", "shape": [-1, 1]}]
    asked = {"inputs": [tensor("distance", "FP64", [0.25])], "outputs": [{"name": "label"}]}
    refused = numbers.infer(PIPELINE, body(asked))
    assert refused.status == 400
    assert read(refused)["error"] == "the model has no output 'label'; it has value"


def test_mlflow_gets_a_record_for_each_row(classes: InferenceService, numbers: InferenceService) -> None:
    sent = body({"dataframe_records": [RECORD]})
    (row,) = read(classes.invocations(PIPELINE, sent))["predictions"]
    assert list(row.values()) == [0.25, 0.5, 0.25]
    assert read(numbers.invocations(PIPELINE, sent)) == {"predictions": [{"value": 2.5}]}
