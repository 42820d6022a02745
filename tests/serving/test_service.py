"""The handlers: what a client sends and what it gets."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.answers import STATUSES, Answer
from serving.errors import ServingError
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


def _kinds(kind: type[ServingError]) -> list[type[ServingError]]:
    return [kind, *(inner for child in kind.__subclasses__() for inner in _kinds(child))]


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
        ({"inputs": [_tensor("distance", [], [1.0])]}, "datatype [] is none of"),  # type: ignore[arg-type]
        ({"inputs": [{"name": "distance", "datatype": "FP64", "shape": [1]}]}, "data is not a list"),
        ({"inputs": [_tensor("distance", "FP64", [[]])]}, "row 0: distance is not a number: []"),
        ({"inputs": [_tensor("distance", "BOOL", [True])]}, "row 0: distance is not a number: True"),
        ({"inputs": [_tensor("carrier", "INT64", [1])]}, "row 0: carrier is not a text: 1"),
        ({"inputs": [_tensor("distance", "FP64", [1.0])], "outputs": [{"name": [1]}]}, "no output '[1]'"),
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
    assert message in _read(answer)["error"], "a text, as the protocol has it"
    assert _read(answer)["code"] == "BadRequest"


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT8"])
def test_a_number_comes_in_every_datatype(service: InferenceService, blobs: MemoryBlobs, datatype: str) -> None:
    publish(blobs, 1)
    answer = service.infer(PIPELINE, _body({"inputs": [_tensor("distance", datatype, [100])]}))
    assert _read(answer)["outputs"][0]["data"][1] == expected(1, 100.0)


@pytest.mark.parametrize(
    "tensor",
    [
        _tensor("at", "BYTES", ["2013-01-01T05:00:00Z"]),
        _tensor("at", "FP64", [1357016400.0]),
        _tensor("at", "BYTES", [None]),
        _tensor("carrier", "BYTES", [None]),
        _tensor("carrier", "BYTES", ["\u00e9\u0000"]),
    ],
)
def test_other_columns_come_in_their_datatypes(
    service: InferenceService, blobs: MemoryBlobs, tensor: dict[str, Any]
) -> None:
    publish(blobs, 1)
    answer = service.infer(PIPELINE, _body({"inputs": [_tensor("distance", "FP64", [100]), tensor]}))
    assert _read(answer)["outputs"][0]["data"][1] == expected(1, 100.0)


@pytest.mark.parametrize("document", [None, {"inputs": [_tensor("distance", "FP64", [1.0])]}])
def test_the_protocol_also_says_when_there_is_no_model(service: InferenceService, document: Any) -> None:
    answers = [service.infer(PIPELINE, _body(document)), service.metadata(PIPELINE), service.model_ready(PIPELINE)]
    for answer in answers:
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "no model yet" in _read(answer)["error"]


def test_a_long_name_is_not_repeated_in_full(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    name = "x" * 100_000
    request = {"inputs": [_tensor(name, "FP64", [1.0])]}
    for answer in (service.infer(PIPELINE, _body(request)), service.predict(PIPELINE, _body({name: 1}))):
        assert answer.status == 400
        assert len(answer.body) < 2000


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
    | st.sampled_from(["2013-01-01", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00+23:59"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["distance", "carrier", "at", "records", "inputs", "name", "datatype", "shape", "data"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
NEARLY_TENSORS = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["distance", "carrier", "at"]),
                    "datatype": st.sampled_from(["FP64", "BYTES", "BOOL"]) | JSON_VALUES,
                    "shape": st.sampled_from([[1], [2], [1, 1]]) | JSON_VALUES,
                    "data": st.lists(JSON_VALUES, max_size=2),
                }
            ),
            max_size=2,
        )
    },
    optional={"outputs": JSON_VALUES, "id": JSON_VALUES},
)


@pytest.fixture(scope="module")
def ready_service(tmp_path_factory: pytest.TempPathFactory) -> InferenceService:
    blobs = MemoryBlobs()
    publish(blobs, 1)
    return InferenceService(blobs, tmp_path_factory.mktemp("cache"), 60.0, lambda: (PIPELINE,))


@given(body=JSON_VALUES.map(_body) | st.binary(max_size=30))
def test_whatever_is_sent_to_predict_is_answered(ready_service: InferenceService, body: bytes) -> None:
    answer = ready_service.predict(PIPELINE, body)
    assert answer.status in {200, 400}
    json.loads(answer.body, parse_constant=pytest.fail)


@given(body=(JSON_VALUES | NEARLY_TENSORS).map(_body))
def test_whatever_is_sent_to_infer_is_answered(ready_service: InferenceService, body: bytes) -> None:
    answer = ready_service.infer(PIPELINE, body)
    assert answer.status in {200, 400}
    json.loads(answer.body, parse_constant=pytest.fail)


def test_the_names_are_asked_for_once(blobs: MemoryBlobs, tmp_path: Path) -> None:
    """Whoever knows them reads a directory: too slow for each request. A name that is new is looked for."""
    asked: list[int] = []
    names = [PIPELINE]

    def known() -> list[str]:
        asked.append(1)
        return names

    publish(blobs, 1)
    service = InferenceService(blobs, tmp_path, 60.0, known)
    assert [service.predict(PIPELINE, _body(ROW)).status for _ in range(3)] == [200] * 3
    assert len(asked) == 1
    assert service.predict("new", _body(ROW)).status == 404
    names.append("new")
    assert service.predict("new", _body(ROW)).status == 503


def test_every_answer_during_swaps_belongs_to_the_version_that_it_names(blobs: MemoryBlobs, tmp_path: Path) -> None:
    """Header, document and probability, over both protocols, from many threads, while champions come and go."""
    publish(blobs, 1)
    service = InferenceService(blobs, tmp_path, 0.0, lambda: (PIPELINE,))
    stop = threading.Event()
    infer_body = _body({"inputs": [_tensor("distance", "FP64", [100.0])]})

    def ask() -> set[int]:
        seen = set()
        while not stop.is_set():
            plain, tensors = service.predict(PIPELINE, _body(ROW)), service.infer(PIPELINE, infer_body)
            version = int(plain.headers["x-ratchet-model-version"])
            assert plain.headers["x-ratchet-run"] == f"run-{version}"
            document = _read(plain)
            assert (document["version"], document["run"]) == (version, f"run-{version}")
            assert document["predictions"][0]["probability"] == expected(version, 100.0)
            version = int(tensors.headers["x-ratchet-model-version"])
            document = _read(tensors)
            assert (document["model_version"], document["parameters"]["run"]) == (str(version), f"run-{version}")
            assert document["outputs"][0]["data"][1] == expected(version, 100.0)
            seen.add(version)
        return seen

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask) for _ in range(8)]
        try:
            for version in [*range(2, 10), 3, 9, 1]:
                publish(blobs, version)
                service.warm([PIPELINE])
        finally:
            stop.set()
        seen = set().union(*(future.result(timeout=30) for future in asking))
    assert len(seen) > 1
    assert service.status(PIPELINE)["version"] == 1, "a rollback is a swap like any other"


@pytest.mark.parametrize("kind", [kind for kind in _kinds(ServingError) if kind is not ServingError])
def test_every_serving_error_has_a_status(kind: type[ServingError]) -> None:
    assert any(issubclass(kind, known) for known, _ in STATUSES)


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
