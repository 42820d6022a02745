"""The Open Inference Protocol with its real client, against the whole stack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.integration.served import FIELDS, NAME, RECORDS
from tests.integration.shop import Shop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(450)]

type Tensors = dict[str, tuple[str, np.ndarray[Any, Any]]]


@pytest.fixture
def client(served: Shop) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served.stack.app_url.removeprefix("http://")) as client:
        yield client


@pytest.fixture
def late(served: Shop) -> list[list[float]]:
    """What the records get in plain JSON: the probabilities of both classes."""
    predictions = served.predict(RECORDS).body["predictions"]
    return [list(prediction["probabilities"].values()) for prediction in predictions]


def _tensors(*, numbers: str = "FP64", texts: Any = object) -> Tensors:
    """The records as tensors, all numbers in one datatype."""
    dtype = {"FP64": np.float64, "FP32": np.float32, "INT64": np.int64, "INT32": np.int32}[numbers]
    towns = [record["town"] for record in RECORDS]
    return {
        "price": ("FP64", np.array([record["price"] for record in RECORDS])),
        "town": ("BYTES", np.array(towns, object) if texts is object else np.array([t.encode() for t in towns])),
        "visits": (numbers, np.array([record["visits"] for record in RECORDS], dtype)),
        "member": ("BOOL", np.array([record["member"] for record in RECORDS])),
    }


def _inputs(tensors: Tensors, *, binary: bool = True) -> list[Any]:
    inputs = []
    for name, (datatype, values) in tensors.items():
        inputs.append(triton.InferInput(name, list(values.shape), datatype))
        inputs[-1].set_data_from_numpy(values, binary_data=binary)
    return inputs


def test_server_and_models_describe_themselves(served: Shop, client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready(), "although other pipelines have no model"
    assert client.is_model_ready(NAME)
    assert client.is_model_ready(NAME, "1")
    assert not client.is_model_ready(NAME, "7")
    assert not client.is_model_ready("nothing")
    server = client.get_server_metadata()
    assert server["name"] == "ratchet"
    assert "binary_tensor_data" in server["extensions"]
    for metadata in (client.get_model_metadata(NAME), client.get_model_metadata(NAME, "1")):
        assert (metadata["name"], metadata["versions"]) == (NAME, ["1"])
        assert {entry["name"]: entry["datatype"] for entry in metadata["inputs"]} == {
            "price": "FP64",
            "town": "BYTES",
            "visits": "FP64",
            "member": "FP64",
        }
        assert [entry["shape"] for entry in metadata["inputs"]] == [[-1]] * len(FIELDS)
        assert [(entry["name"], entry["shape"]) for entry in metadata["outputs"]] == [
            ("probability", [-1, 2]),
            ("label", [-1]),
        ]
    index = {entry["name"]: entry for entry in client.get_model_repository_index()}
    assert index[NAME] == {"name": NAME, "version": "1", "state": "READY", "reason": ""}
    assert index.keys() > {NAME}


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("numbers", ["FP64", "FP32", "INT64", "INT32"])
def test_tensors_of_every_datatype_both_ways(
    client: triton.InferenceServerClient, late: list[list[float]], numbers: str, binary_in: bool, binary_out: bool
) -> None:
    wanted = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("label", "probability")]
    result = client.infer(NAME, _inputs(_tensors(numbers=numbers), binary=binary_in), request_id="r-1", outputs=wanted)
    np.testing.assert_array_equal(result.as_numpy("probability"), late)
    labels = [label.decode() if isinstance(label, bytes) else label for label in result.as_numpy("label")]
    assert labels == ["sold" if row[1] > row[0] else "kept" for row in late]
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("r-1", NAME, "1")
    assert [output["name"] for output in response["outputs"]] == ["label", "probability"]
    assert response["parameters"]["run"]


def test_all_outputs_with_a_version_and_parameters(
    client: triton.InferenceServerClient, late: list[list[float]]
) -> None:
    for texts in (object, bytes):
        result = client.infer(
            NAME, _inputs(_tensors(texts=texts)), model_version="1", priority=1, timeout=10_000_000, parameters={"a": 1}
        )
        np.testing.assert_array_equal(result.as_numpy("probability"), late)
    only = client.infer(NAME, _inputs(_tensors()), outputs=[triton.InferRequestedOutput("label")])
    assert only.as_numpy("probability") is None


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_both_ways(client: triton.InferenceServerClient, late: list[list[float]], algorithm: str) -> None:
    tensors = {name: (datatype, np.tile(values, 100)) for name, (datatype, values) in _tensors().items()}
    result = client.infer(
        NAME,
        _inputs(tensors),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_array_equal(result.as_numpy("probability"), late * 100)


def test_async_requests(client: triton.InferenceServerClient, late: list[list[float]]) -> None:
    pending = [client.async_infer(NAME, _inputs(_tensors())) for _ in range(8)]
    for request in pending:
        np.testing.assert_array_equal(request.get_result().as_numpy("probability"), late)


def test_a_column_of_one_and_missing_values(served: Shop, client: triton.InferenceServerClient) -> None:
    price = triton.InferInput("price", [3, 1], "FP32")
    price.set_data_from_numpy(np.array([[10.0], [np.nan], [55.25]], np.float32))
    result = client.infer(NAME, [price])
    alone = served.predict([{"price": 10.0}, {}, {"price": 55.25}]).body["predictions"]
    assert result.as_numpy("probability")[:, 1].tolist() == [prediction["probability"] for prediction in alone]


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        ({"model_name": "nothing"}, "404", "there is no pipeline 'nothing'"),
        ({"model_name": NAME, "model_version": "7"}, "404", "'7'"),
        ({"model_name": "many"}, "503", "no model yet for many"),
        ({"model_name": NAME, "outputs": [triton.InferRequestedOutput("x")]}, "400", "the model has no output 'x'"),
        (
            {"model_name": NAME, "outputs": [triton.InferRequestedOutput("label", class_count=2)]},
            "400",
            "classification is not supported",
        ),
    ],
)
def test_errors_reach_the_client(
    client: triton.InferenceServerClient, request_: dict[str, Any], status: str, message: str
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(inputs=_inputs(_tensors()), **request_)
    assert caught.value.status() == status
    assert message in caught.value.message()


def test_a_wrong_value_is_pointed_at(client: triton.InferenceServerClient) -> None:
    tensors = _tensors()
    tensors["visits"] = ("FP64", np.array([1.0, 2.5, 3.0]))
    with pytest.raises(InferenceServerException, match=r"row 1: visits is not an integer: 2\.5"):
        client.infer(NAME, _inputs(tensors))
    tensors["visits"] = ("BYTES", np.array(["1", "2", "3"], object))
    with pytest.raises(InferenceServerException, match="row 0: visits is not a number: '1'"):
        client.infer(NAME, _inputs(tensors))
