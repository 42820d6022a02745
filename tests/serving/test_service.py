"""The handlers: what a client sends and what it gets."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serving.answers import Answer
from serving.service import MAX_BODY_BYTES, InferenceService
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE, expected, publish

ROW = {"distance": 100.0, "carrier": "AA", "at": "2013-01-01T05:00:00Z"}


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def service(blobs: MemoryBlobs, tmp_path: Path) -> InferenceService:
    return InferenceService(blobs, tmp_path, 0.0, lambda: (PIPELINE,))


def _body(document: Any) -> bytes:
    return json.dumps(document).encode()


def _read(answer: Answer) -> Any:
    return json.loads(answer.body)


def _tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


@pytest.mark.parametrize("document", [ROW, [ROW], {"records": [ROW]}])
def test_predict_takes_a_record_or_several(service: InferenceService, blobs: MemoryBlobs, document: Any) -> None:
    publish(blobs, 1)
    answer = service.predict(PIPELINE, _body(document))
    assert answer.status == 200
    assert answer.headers["x-ratchet-model-version"] == "1"
    late = expected(1, 100.0)
    assert _read(answer) == {
        "pipeline": PIPELINE,
        "version": 1,
        "run": "run-1",
        "predictions": [
            {"label": "on time", "probability": late, "probabilities": {"on time": 1 - late, "late": late}}
        ],
    }


def test_before_the_first_model_it_says_so(service: InferenceService) -> None:
    answer = service.predict(PIPELINE, _body(ROW))
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert _read(answer)["error"]["code"] == "NoModelYet"
    assert "no model yet for flights" in _read(answer)["error"]["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "1 to 100,000 rows"),
        (b'"text"', "row 0 is not an object"),
        (_body({"distance": "far"}), "row 0: distance is not a number: 'far'"),
        (_body([ROW, {"carier": "AA"}]), "row 1: the model has no column 'carier'"),
        (b'{"distance": NaN}', "not JSON"),
    ],
)
def test_a_bad_request_is_told_why(service: InferenceService, blobs: MemoryBlobs, body: bytes, message: str) -> None:
    publish(blobs, 1)
    answer = service.predict(PIPELINE, body)
    assert answer.status == 400
    assert message in _read(answer)["error"]["message"]


def test_a_mistake_in_a_row_is_pointed_at(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    error = _read(service.predict(PIPELINE, _body([ROW, {"distance": "far"}])))["error"]
    assert (error["row"], error["column"]) == (1, "distance")


def test_a_body_beyond_the_limit_is_refused(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    assert service.predict(PIPELINE, b" " * (MAX_BODY_BYTES + 1)).status == 413


def test_an_unknown_pipeline_reaches_no_storage(service: InferenceService, blobs: MemoryBlobs) -> None:
    blobs.away = True
    answer = service.predict("../secrets", _body(ROW))
    assert answer.status == 404


def test_a_missing_number_is_no_nan_in_the_answer(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    answer = service.predict(PIPELINE, _body({"carrier": "AA"}))
    assert answer.status == 200
    assert b"NaN" not in answer.body


def test_infer_answers_tensors(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    request = {
        "id": "42",
        "inputs": [_tensor("distance", "FP64", [100.0, 990.0]), _tensor("carrier", "BYTES", [["AA"], ["B6"]], [2, 1])],
    }
    answer = service.infer(PIPELINE, _body(request))
    assert answer.status == 200
    document = _read(answer)
    assert (document["id"], document["model_name"], document["model_version"]) == ("42", PIPELINE, "1")
    probability, label = document["outputs"]
    first, second = expected(1, 100.0), expected(1, 990.0)
    assert probability == _tensor("probability", "FP64", [1 - first, first, 1 - second, second], [2, 2])
    assert label == _tensor("label", "BYTES", ["on time", "late"])


def test_infer_answers_only_what_is_asked_for(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    request = {"inputs": [_tensor("distance", "INT64", [1])], "outputs": [{"name": "label"}]}
    assert [output["name"] for output in _read(service.infer(PIPELINE, _body(request)))["outputs"]] == ["label"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ([], "list of `inputs`"),
        ({"inputs": []}, "list of `inputs`"),
        ({"inputs": ["x"]}, "name, datatype, shape and data"),
        ({"inputs": [_tensor("distance", "FP8", [1.0])]}, "datatype 'FP8'"),
        ({"inputs": [_tensor("distance", "FP64", [1.0], [2])]}, "shape says 2 rows, data has 1"),
        ({"inputs": [_tensor("distance", "FP64", [1.0], [1, 2])]}, "is not [N] or [N, 1]"),
        ({"inputs": [_tensor("distance", "FP64", [1.0])] * 2}, "given twice"),
        ({"inputs": [_tensor("distance", "FP64", [1.0]), _tensor("carrier", "BYTES", ["A", "B"])]}, "others have 1"),
        ({"inputs": [_tensor("speed", "FP64", [1.0])]}, "no column 'speed'"),
        ({"inputs": [_tensor("distance", "FP64", [1.0])], "outputs": [{"name": "x"}]}, "no output 'x'"),
    ],
)
def test_a_bad_inference_request_is_told_why(
    service: InferenceService, blobs: MemoryBlobs, request_: Any, message: str
) -> None:
    publish(blobs, 1)
    answer = service.infer(PIPELINE, _body(request_))
    assert answer.status == 400
    assert message in _read(answer)["error"]["message"]


def test_metadata_and_readiness(service: InferenceService, blobs: MemoryBlobs) -> None:
    assert service.ready().status == 503
    assert service.model_ready(PIPELINE).status == 503
    publish(blobs, 1)
    assert service.ready().status == 200
    assert service.model_ready(PIPELINE).status == 200
    metadata = _read(service.metadata(PIPELINE))
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"][1] == {"name": "carrier", "datatype": "BYTES", "shape": [-1]}
    assert _read(service.server_metadata())["name"] == "ratchet"
    assert service.live().status == 200


def test_another_version_than_the_live_one_is_not_found(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 2)
    request = _body({"inputs": [_tensor("distance", "FP64", [1.0])]})
    assert service.infer(PIPELINE, request, "2").status == 200
    assert service.infer(PIPELINE, request, "1").status == 404


def test_importing_the_service_imports_nothing_heavy() -> None:
    heavy = ["lightgbm", "sklearn", "scipy", "pandas", "mlflow", "polars", "pyarrow", "onnx", "numpy", "azure"]
    code = f"import sys, serving.service; print([m for m in {heavy!r} if m in sys.modules])"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
