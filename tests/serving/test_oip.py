"""The Open Inference Protocol: JSON tensors, raw tensors, and everything beside inference."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.service import InferenceService
from serving.tensors import NUMPY_TYPES
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE, expected, publish
from tests.serving.requests import JSON_VALUES, binary, body, outputs, packed, read, tensor


def test_infer_answers_tensors(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    request = {
        "id": "42",
        "inputs": [tensor("distance", "FP64", [100.0, 990.0]), tensor("carrier", "BYTES", [["AA"], ["B6"]], [2, 1])],
    }
    answer = service.infer(PIPELINE, body(request))
    assert answer.status == 200
    document = read(answer)
    assert (document["id"], document["model_name"], document["model_version"]) == ("42", PIPELINE, "1")
    probability, label = document["outputs"]
    first, second = expected(1, 100.0), expected(1, 990.0)
    assert probability == tensor("probability", "FP64", [1 - first, first, 1 - second, second], [2, 2])
    assert label == tensor("label", "BYTES", ["on time", "late"])


def test_infer_answers_only_what_is_asked_for(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    request = {"inputs": [tensor("distance", "INT64", [1])], "outputs": [{"name": "label"}]}
    assert [output["name"] for output in read(service.infer(PIPELINE, body(request)))["outputs"]] == ["label"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ([], "list of `inputs`"),
        ({"inputs": []}, "list of `inputs`"),
        ({"inputs": ["x"]}, "name, datatype, shape and data"),
        ({"inputs": [tensor("distance", "FP8", [1.0])]}, "datatype 'FP8'"),
        ({"inputs": [tensor("distance", [], [1.0])]}, "datatype [] is none of"),  # type: ignore[arg-type]
        ({"inputs": [{"name": "distance", "datatype": "FP64", "shape": [1]}]}, "data is not a list"),
        ({"inputs": [tensor("distance", "FP64", [[]])]}, "row 0: distance is not a number: []"),
        ({"inputs": [tensor("distance", "BOOL", [True])]}, "row 0: distance is not a number: True"),
        ({"inputs": [tensor("carrier", "INT64", [1])]}, "row 0: carrier is not a text: 1"),
        ({"inputs": [tensor("distance", "FP64", [1.0])], "outputs": [{"name": [1]}]}, "no output [1]"),
        ({"inputs": [tensor("distance", "FP64", [1.0], [2])]}, "shape says 2 rows, data has 1"),
        ({"inputs": [tensor("distance", "FP64", [1.0], [1, 2])]}, "is not [N] or [N, 1]"),
        ({"inputs": [tensor("distance", "FP64", [1.0])] * 2}, "given twice"),
        ({"inputs": [tensor("distance", "FP64", [1.0]), tensor("carrier", "BYTES", ["A", "B"])]}, "others have 1"),
        ({"inputs": [tensor("speed", "FP64", [1.0])]}, "no column 'speed'"),
        ({"inputs": [tensor("distance", "FP64", [1.0])], "outputs": [{"name": "x"}]}, "no output 'x'"),
    ],
)
def test_a_bad_inference_request_is_told_why(
    service: InferenceService, blobs: MemoryBlobs, request_: Any, message: str
) -> None:
    publish(blobs, 1)
    answer = service.infer(PIPELINE, body(request_))
    assert answer.status == 400
    assert message in read(answer)["error"], "a text, as the protocol has it"
    assert read(answer)["code"] == "BadRequest"


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT8"])
def test_a_number_comes_in_every_datatype(service: InferenceService, blobs: MemoryBlobs, datatype: str) -> None:
    publish(blobs, 1)
    answer = service.infer(PIPELINE, body({"inputs": [tensor("distance", datatype, [100])]}))
    assert read(answer)["outputs"][0]["data"][1] == expected(1, 100.0)


@pytest.mark.parametrize(
    "sent",
    [
        tensor("at", "BYTES", ["2013-01-01T05:00:00Z"]),
        tensor("at", "FP64", [1357016400.0]),
        tensor("at", "BYTES", [None]),
        tensor("carrier", "BYTES", [None]),
        tensor("carrier", "BYTES", ["\u00e9\u0000"]),
    ],
)
def test_other_columns_come_in_their_datatypes(
    service: InferenceService, blobs: MemoryBlobs, sent: dict[str, Any]
) -> None:
    publish(blobs, 1)
    answer = service.infer(PIPELINE, body({"inputs": [tensor("distance", "FP64", [100]), sent]}))
    assert read(answer)["outputs"][0]["data"][1] == expected(1, 100.0)


DISTANCE = ("distance", "FP64", 2, np.array([100.0, 990.0]).tobytes())
CARRIER = ("carrier", "BYTES", 2, packed([b"AA", "Zür\0".encode()]))


def test_raw_tensors_come_and_go(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    sent, headers = binary([DISTANCE, CARRIER], id="7", parameters={"binary_data_output": True})
    answer = service.infer(PIPELINE, sent, headers=headers)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    first, second = expected(1, 100.0), expected(1, 990.0)
    assert outputs(answer) == {"probability": [1 - first, first, 1 - second, second], "label": ["on time", "late"]}


@pytest.mark.parametrize("mode", ["all", "one", "none", "all but one"])
def test_each_output_comes_as_it_was_asked_for(service: InferenceService, blobs: MemoryBlobs, mode: str) -> None:
    publish(blobs, 1)
    modes: dict[str, dict[str, Any]] = {
        "all": {"parameters": {"binary_data_output": True}},
        "one": {"outputs": [{"name": "label", "parameters": {"binary_data": True}}, {"name": "probability"}]},
        "none": {},
        "all but one": {
            "parameters": {"binary_data_output": True},
            "outputs": [{"name": "label"}, {"name": "probability", "parameters": {"binary_data": False}}],
        },
    }
    asked = modes[mode]
    sent, headers = binary([DISTANCE], **asked)
    answer = service.infer(PIPELINE, sent, headers=headers)
    raw = {"all": 2, "none": 0}.get(mode, 1)
    assert answer.body.count(b"binary_data_size") == raw
    assert ("inference-header-content-length" in answer.headers) == (raw > 0)
    first, second = expected(1, 100.0), expected(1, 990.0)
    assert outputs(answer) == {"probability": [1 - first, first, 1 - second, second], "label": ["on time", "late"]}
    assert list(outputs(answer)) == [o["name"] for o in asked.get("outputs", [])] or ["probability", "label"]


@pytest.mark.parametrize("datatype", sorted(NUMPY_TYPES.keys() - {"BOOL", "BF16"}))
@pytest.mark.parametrize("column", ["distance", "at"])
def test_raw_numbers_of_every_datatype_are_those_of_json(
    service: InferenceService, blobs: MemoryBlobs, datatype: str, column: str
) -> None:
    publish(blobs, 1)
    raw = np.array([100, 7]).astype(NUMPY_TYPES[datatype]).tobytes()
    for shape in ([2], [2, 1]):
        sent, headers = binary([(column, datatype, 2, raw)])
        sent = sent.replace(b'"shape": [2]', b'"shape": %s' % str(shape).encode())
        headers = {"inference-header-content-length": str(len(sent) - len(raw))}
        answer = service.infer(PIPELINE, sent, headers=headers)
        assert outputs(answer) == outputs(service.infer(PIPELINE, body({"inputs": [tensor(column, "FP64", [100, 7])]})))


def test_a_raw_bfloat16_is_the_upper_half_of_a_float(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    sent, headers = binary([("distance", "BF16", 1, struct.pack("<f", 100.0)[2:])])
    assert outputs(service.infer(PIPELINE, sent, headers=headers))["probability"][1] == expected(1, 100.0)


def test_a_raw_nan_is_missing(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    sent, headers = binary([("distance", "FP32", 1, struct.pack("<f", float("nan")))])
    answer = service.infer(PIPELINE, sent, headers=headers)
    assert read(answer)["outputs"][0]["data"] == [None, None], "what the graph has for it; JSON has no NaN"


@pytest.mark.parametrize(
    ("inputs", "fields", "message"),
    [
        ([("distance", "FP64", 3, b"\0" * 16)], {}, "3 rows of FP64 (8 bytes each) do not make 16 bytes"),
        ([("distance", "FP99", 2, b"\0" * 16)], {}, "datatype 'FP99' is none of"),
        ([("distance", "FP64", 1, struct.pack("<d", float("inf")))], {}, "row 0: distance is not a finite number: inf"),
        ([("distance", "BOOL", 2, b"\0\1")], {}, "row 0: distance is not a number: False"),
        ([("distance", "BYTES", 1, packed([b"12"]))], {}, "row 0: distance is not a number: '12'"),
        ([("carrier", "INT8", 2, b"\0\1")], {}, "row 0: carrier is not a text: 0"),
        ([("carrier", "BYTES", 2, packed([b"AA"]))], {}, "shape says 2 rows; the 6 bytes of binary data end before"),
        ([("carrier", "BYTES", 1, packed([b"AA", b"B6"]))], {}, "1 rows make 6 bytes of binary data, not 12"),
        ([("carrier", "BYTES", 1, b"\xff\xff\xff\xffAA")], {}, "make 4,294,967,299 bytes of binary data, not 6"),
        ([("carrier", "BYTES", 2, packed([b"AA", b"\xff"]))], {}, "row 1: carrier is not UTF-8"),
        ([("at", "BYTES", 1, packed([b"noon"]))], {}, "row 0: at is not an ISO 8601 time: 'noon'"),
        ([DISTANCE, ("at", "FP64", 1, b"\0" * 8)], {}, "input at has 1 rows; others have 2"),
        ([DISTANCE], {"parameters": {"binary_data_output": "yes"}}, "binary_data_output is 'yes'"),
        ([DISTANCE], {"parameters": [1]}, "parameters is not an object"),
        ([DISTANCE], {"id": 5}, "id 5 is not a text"),
        ([DISTANCE], {"outputs": [{"name": "label"}, {"name": "label"}]}, "output label is asked for twice"),
        (
            [DISTANCE],
            {"outputs": [{"name": "label", "parameters": {"classification": 2}}]},
            "the parameter classification is not supported; ask for the output label instead",
        ),
        ([DISTANCE], {"outputs": [{"name": "label", "parameters": 5}]}, "output label: parameters is not an object"),
    ],
)
def test_a_bad_raw_request_is_told_why(
    service: InferenceService, blobs: MemoryBlobs, inputs: Any, fields: dict[str, Any], message: str
) -> None:
    publish(blobs, 1)
    sent, headers = binary(inputs, **fields)
    answer = service.infer(PIPELINE, sent, headers=headers)
    assert answer.status == 400
    assert message in read(answer)["error"]


@pytest.mark.parametrize("length", ["", "-1", "x", "1.0", "999999", "9" * 5000, "²"])
def test_a_wrong_length_of_the_json_is_told(service: InferenceService, blobs: MemoryBlobs, length: str) -> None:
    publish(blobs, 1)
    sent, _ = binary([DISTANCE])
    answer = service.infer(PIPELINE, sent, headers={"inference-header-content-length": length})
    assert answer.status == 400
    assert "inference-header-content-length" in read(answer)["error"]
    assert len(answer.body) < 500


@pytest.mark.parametrize(
    ("parameters", "extra", "message"),
    [
        ({"binary_data_size": 16}, b"12345", "5 bytes follow the JSON that belong to no input"),
        ({"binary_data_size": 17}, b"", "the inputs announce 17 bytes of binary data; there are 16"),
        ({"binary_data_size": -1}, b"", "binary_data_size -1 is not a number of bytes"),
        ({"binary_data_size": True}, b"", "binary_data_size True is not a number of bytes"),
        ({"binary_data_size": 2**80}, b"", "is not a number of bytes"),
        ({"shared_memory_region": "r"}, b"", "shared memory is not supported"),
        ([], b"", "data is not a list"),
        ([1], b"", "parameters is not an object"),
    ],
)
def test_sizes_have_to_agree(
    service: InferenceService, blobs: MemoryBlobs, parameters: Any, extra: bytes, message: str
) -> None:
    publish(blobs, 1)
    head = body({"inputs": [{"name": "distance", "datatype": "FP64", "shape": [2], "parameters": parameters}]})
    sent = head + DISTANCE[3] + extra
    answer = service.infer(PIPELINE, sent, headers={"inference-header-content-length": str(len(head))})
    assert answer.status == 400
    assert message in read(answer)["error"]


def test_data_in_json_and_behind_it_is_refused(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    twice = {**tensor("distance", "FP64", [1.0]), "parameters": {"binary_data_size": 0}}
    assert "one of them is enough" in read(service.infer(PIPELINE, body({"inputs": [twice]})))["error"]


NEARLY_TENSORS = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.sampled_from(["distance", "carrier", "at"]),
                    "datatype": st.sampled_from(["FP64", "INT8", "BYTES", "BOOL", "BF16"]) | JSON_VALUES,
                    "shape": st.sampled_from([[1], [2], [1, 1]]) | JSON_VALUES,
                },
                optional={
                    "data": st.lists(JSON_VALUES, max_size=2),
                    "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(0, 20)}) | JSON_VALUES,
                },
            ),
            max_size=2,
        )
    },
    optional={"outputs": JSON_VALUES, "id": JSON_VALUES, "parameters": JSON_VALUES},
)


@pytest.fixture(scope="module")
def ready_service(tmp_path_factory: pytest.TempPathFactory) -> InferenceService:
    blobs = MemoryBlobs()
    publish(blobs, 1)
    return InferenceService(blobs, tmp_path_factory.mktemp("cache"), 60.0, lambda: (PIPELINE,))


@given(document=JSON_VALUES | NEARLY_TENSORS, raw=st.none() | st.binary(max_size=40))
def test_whatever_is_sent_to_infer_is_answered(
    ready_service: InferenceService, document: Any, raw: bytes | None
) -> None:
    sent = body(document)
    headers = {} if raw is None else {"inference-header-content-length": str(len(sent))}
    answer = ready_service.infer(PIPELINE, sent + (raw or b""), headers=headers)
    assert answer.status in {200, 400}
    if "inference-header-content-length" not in answer.headers:
        read(answer)


def test_metadata_describes_inputs_and_outputs(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 3)
    for answer in (service.metadata(PIPELINE), service.metadata(PIPELINE, "3")):
        metadata = read(answer)
        assert (metadata["name"], metadata["versions"]) == (PIPELINE, ["3"])
        assert metadata["inputs"][1] == {"name": "carrier", "datatype": "BYTES", "shape": [-1]}
        assert metadata["outputs"][0] == {"name": "probability", "datatype": "FP64", "shape": [-1, 2]}
        assert metadata["parameters"] == {"run": "run-3", "classes": ["on time", "late"]}
    server = read(service.server_metadata())
    assert server["name"] == "ratchet"
    assert "binary_tensor_data" in server["extensions"]


def test_the_server_is_ready_whatever_its_models_are(tmp_path: Path, blobs: MemoryBlobs) -> None:
    """It answers, be it with 503 for a pipeline without a champion; and it asks no storage, which may hang."""
    publish(blobs, 1)
    service = InferenceService(blobs, tmp_path, 60.0, lambda: (PIPELINE, "without-champion"))
    service.warm([PIPELINE, "without-champion"])
    blobs.away = True
    answer = service.ready()
    assert answer.status == 200
    assert [model["version"] for model in read(answer)["models"]] == [1, None]
    assert "nothing was promoted" in read(answer)["models"][1]["last_error"]
    assert service.model_ready(PIPELINE).status == 200
    assert service.model_ready(PIPELINE, "1").status == 200
    assert service.model_ready("without-champion").status == 503
    assert service.model_ready(PIPELINE, "2").status == 503, "storage is away: nobody knows whether there is one"
    blobs.away = False
    assert service.model_ready(PIPELINE, "3").status == 404
    assert service.model_ready("nothing").status == 404


def test_the_index_lists_every_model_and_its_state(tmp_path: Path, blobs: MemoryBlobs) -> None:
    publish(blobs, 4)
    service = InferenceService(blobs, tmp_path, 60.0, lambda: (PIPELINE, "without-champion"))
    ready = {"name": PIPELINE, "version": "4", "state": "READY", "reason": ""}
    for sent in (b"", b"{}", b'{"ready": false}'):
        first, second = read(service.repository_index(sent))
        assert first == ready
        assert (second["name"], second["state"]) == ("without-champion", "UNAVAILABLE")
        assert "no model yet" in second["reason"]
    assert read(service.repository_index(b'{"ready": true}')) == [ready]
    for sent in (b"[]", b'{"ready": 1}', b"{"):
        assert service.repository_index(sent).status == 400


def test_another_version_than_the_live_one_is_not_found(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 2)
    request = body({"inputs": [tensor("distance", "FP64", [1.0])]})
    assert service.infer(PIPELINE, request, "2").status == 200
    assert service.infer(PIPELINE, request, "1").status == 404
