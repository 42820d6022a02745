"""The handlers: what a client sends and what it gets."""

from __future__ import annotations

import gzip
import itertools
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

from adapters.blobs import Blob
from serving.answers import STATUSES
from serving.errors import ServingError
from serving.limits import Limits
from serving.service import CHUNK_ROWS, InferenceService
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE, expected, publish
from tests.serving.requests import JSON_VALUES, ROW, body, read, tensor


def _kinds(kind: type[ServingError]) -> list[type[ServingError]]:
    return [kind, *(inner for child in kind.__subclasses__() for inner in _kinds(child))]


@pytest.mark.parametrize("document", [ROW, [ROW], {"records": [ROW]}])
def test_predict_takes_a_record_or_several(service: InferenceService, blobs: MemoryBlobs, document: Any) -> None:
    publish(blobs, 1)
    answer = service.predict(PIPELINE, body(document))
    assert answer.status == 200
    assert answer.headers["x-ratchet-model-version"] == "1"
    late = expected(1, 100.0)
    assert read(answer) == {
        "pipeline": PIPELINE,
        "version": 1,
        "run": "run-1",
        "predictions": [
            {"label": "on time", "probability": late, "probabilities": {"on time": 1 - late, "late": late}}
        ],
    }


def test_columns_come_and_go_as_columns(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    answer = service.predict(PIPELINE, body({"columns": {"distance": [100.0, 990.0], "carrier": ["AA", None]}}))
    first, second = expected(1, 100.0), expected(1, 990.0)
    assert read(answer)["predictions"] == {
        "label": ["on time", "late"],
        "probability": [first, second],
        "probabilities": {"on time": [1 - first, 1 - second], "late": [first, second]},
    }


def test_before_the_first_model_it_says_so(service: InferenceService) -> None:
    answer = service.predict(PIPELINE, body(ROW))
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert read(answer)["error"]["code"] == "NoModelYet"
    assert "no model yet for flights" in read(answer)["error"]["message"]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "at least one"),
        (b'"text"', "row 0 is not an object"),
        (body({"distance": "far"}), "row 0: distance is not a number: 'far'"),
        (body([ROW, {"carier": "AA"}]), "row 1: the model has no column 'carier'"),
        (b'{"distance": NaN}', "not JSON"),
        (body({"columns": {"distance": 5}}), "the column distance is not a list of values"),
        (body({"columns": {"distance": [1], "carrier": []}}), "carrier has 0 values; other columns have 1"),
        (body({"columns": {"distance": [1, "far"]}}), "row 1: distance is not a number: 'far'"),
        (body({"columns": {}}), "at least one"),
        (body({"columns": [ROW]}), "row 0: the model has no column 'columns'"),
        (body({"records": [ROW], "distance": 1}), "row 0: the model has no column 'records'"),
    ],
)
def test_a_bad_request_is_told_why(service: InferenceService, blobs: MemoryBlobs, sent: bytes, message: str) -> None:
    publish(blobs, 1)
    answer = service.predict(PIPELINE, sent)
    assert answer.status == 400
    assert message in read(answer)["error"]["message"]


def test_a_mistake_in_a_row_is_pointed_at(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    error = read(service.predict(PIPELINE, body([ROW, {"distance": "far"}])))["error"]
    assert (error["row"], error["column"]) == (1, "distance")


def test_a_refusal_names_the_version_that_judged(service: InferenceService, blobs: MemoryBlobs) -> None:
    """What is wrong with a request hangs on the model's columns, and the next version may have others."""
    publish(blobs, 1)
    named = {"x-ratchet-model-version": "1", "x-ratchet-run": "run-1"}
    wrong = {"dataframe_records": [{**ROW, "distance": "far"}]}
    refused = [
        service.predict(PIPELINE, body({"distance": "far"})),
        service.infer(PIPELINE, body({"inputs": [tensor("distance", "BYTES", ["far"])]})),
        service.infer(PIPELINE, body({"inputs": [tensor("distance", "BYTES", ["far"])]}), "1"),
        service.invocations(PIPELINE, body(wrong)),
    ]
    for answer in refused:
        assert answer.status == 400
        assert named.items() <= answer.headers.items()
        assert answer.headers["content-type"] == "application/json"
    assert "x-ratchet-model-version" not in service.predict("nothing", body(ROW)).headers


def test_a_body_beyond_the_limit_is_refused(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    answer = service.predict(PIPELINE, b" " * (Limits().body_bytes + 1))
    assert answer.status == 413
    assert "at most 10,485,760 are taken" in read(answer)["error"]["message"]


def test_more_rows_than_the_limit_are_refused(blobs: MemoryBlobs, tmp_path: Path) -> None:
    publish(blobs, 1)
    service = InferenceService(blobs, tmp_path, 60.0, lambda: (PIPELINE,), limits=Limits(rows=2))
    assert service.predict(PIPELINE, body([ROW] * 2)).status == 200
    infer_body = body({"inputs": [tensor("distance", "FP64", [1.0] * 3)]})
    for answer in (service.predict(PIPELINE, body([ROW] * 3)), service.infer(PIPELINE, infer_body)):
        assert answer.status == 413
        assert "3 rows; at most 2" in answer.body.decode()


def test_a_request_that_takes_too_long_is_given_up(blobs: MemoryBlobs, tmp_path: Path) -> None:
    """The clock moves by a second each time that it is looked at."""
    publish(blobs, 1)
    seconds = itertools.count()
    service = InferenceService(
        blobs, tmp_path, 1e6, lambda: (PIPELINE,), limits=Limits(seconds=8), clock=lambda: float(next(seconds))
    )
    service.warm([PIPELINE])
    assert service.predict(PIPELINE, body([ROW])).status == 200
    answer = service.predict(PIPELINE, body([ROW] * (CHUNK_ROWS * 10)))
    assert answer.status == 504
    assert "not ready within 8 s; send fewer rows" in read(answer)["error"]["message"]


class Hanging(MemoryBlobs):
    """Storage that does not answer until the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def get(self, path: str, *, if_match: str | None = None) -> Blob:
        assert self.gate.wait(60)
        return super().get(path, if_match=if_match)

    def get_if_changed(self, path: str, *, etag: str | None) -> Blob | None:
        assert self.gate.wait(60)
        return super().get_if_changed(path, etag=etag)


def test_a_request_has_its_answer_in_time_although_storage_hangs(tmp_path: Path) -> None:
    blobs = Hanging()
    service = InferenceService(blobs, tmp_path, 60.0, lambda: (PIPELINE,), limits=Limits(seconds=0.05))
    answers = [
        service.predict(PIPELINE, body(ROW)),
        service.infer(PIPELINE, b"{}", "1"),
        service.invocations(PIPELINE, b"{}"),
        service.metadata(PIPELINE),
        service.model_ready(PIPELINE, "1"),
        service.ping(PIPELINE),
    ]
    assert [answer.status for answer in answers] == [503] * len(answers)
    assert all("retry-after" in answer.headers for answer in answers)
    (entry,) = read(service.repository_index())
    assert entry["state"] == "UNAVAILABLE"
    assert not blobs.gate.is_set(), "storage still has not answered"
    blobs.gate.set()


def test_many_rows_are_answered_like_each_alone(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    distances = [float(row % 997) for row in range(CHUNK_ROWS + 7)]
    predictions = read(service.predict(PIPELINE, body([{"distance": distance} for distance in distances])))[
        "predictions"
    ]
    assert [prediction["probability"] for prediction in predictions] == [expected(1, value) for value in distances]


def test_an_unknown_pipeline_reaches_no_storage(service: InferenceService, blobs: MemoryBlobs) -> None:
    blobs.away = True
    answer = service.predict("../secrets", body(ROW))
    assert answer.status == 404


def test_a_missing_number_is_no_nan_in_the_answer(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    answer = service.predict(PIPELINE, body({"carrier": "AA"}))
    assert answer.status == 200
    assert b"NaN" not in answer.body


@pytest.mark.parametrize("document", [None, {"inputs": [tensor("distance", "FP64", [1.0])]}])
def test_the_protocol_also_says_when_there_is_no_model(service: InferenceService, document: Any) -> None:
    answers = [service.infer(PIPELINE, body(document)), service.metadata(PIPELINE), service.model_ready(PIPELINE)]
    for answer in answers:
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "no model yet" in read(answer)["error"]


def test_a_long_name_is_not_repeated_in_full(service: InferenceService, blobs: MemoryBlobs) -> None:
    publish(blobs, 1)
    name = "x" * 100_000
    request = {"inputs": [tensor(name, "FP64", [1.0])]}
    for answer in (service.infer(PIPELINE, body(request)), service.predict(PIPELINE, body({name: 1}))):
        assert answer.status == 400
        assert len(answer.body) < 2000


@pytest.fixture(scope="module")
def ready_service(tmp_path_factory: pytest.TempPathFactory) -> InferenceService:
    blobs = MemoryBlobs()
    publish(blobs, 1)
    return InferenceService(blobs, tmp_path_factory.mktemp("cache"), 60.0, lambda: (PIPELINE,))


@given(sent=JSON_VALUES.map(body) | st.binary(max_size=30))
def test_whatever_is_sent_to_predict_is_answered(ready_service: InferenceService, sent: bytes) -> None:
    answer = ready_service.predict(PIPELINE, sent)
    assert answer.status in {200, 400}
    read(answer)


HEADERS = {
    "content-encoding": ("gzip", "deflate", "gzip, gzip", "identity"),
    "accept-encoding": ("gzip;q=nan", "*;q=inf", "deflate;q=-1", "gzip;q=", ",;,", "gzip;q=1e999"),
    "inference-header-content-length": ("0", "2", "-1", "+2", "٣", "1e3", "²"),
    "content-type": ("text/csv", "application/json; charset=utf-8", ";;"),
}


@given(
    headers=st.fixed_dictionaries(
        {}, optional={name: st.text(max_size=12) | st.sampled_from(values) for name, values in HEADERS.items()}
    ),
    sent=st.binary(max_size=20) | st.sampled_from([body([ROW] * 40), b"{}", gzip.compress(b"{}")]),
)
def test_whatever_headers_are_sent_are_answered(
    ready_service: InferenceService, headers: dict[str, str], sent: bytes
) -> None:
    answers = [
        ready_service.predict(PIPELINE, sent, headers),
        ready_service.infer(PIPELINE, sent, headers=headers),
        ready_service.invocations(PIPELINE, sent, headers),
        ready_service.repository_index(sent, headers),
    ]
    assert {answer.status for answer in answers} <= {200, 400, 415}


@given(name=st.text(max_size=30), version=st.text(max_size=12))
def test_whatever_is_asked_for_by_name_is_answered(ready_service: InferenceService, name: str, version: str) -> None:
    for answer in (
        ready_service.predict(name, body(ROW)),
        ready_service.metadata(PIPELINE, version),
        ready_service.infer(PIPELINE, body(ROW), version),
        ready_service.ping(name),
        ready_service.mlflow_version(name),
    ):
        assert answer.status in {404} or version == "1"


def test_the_names_are_asked_for_once(blobs: MemoryBlobs, tmp_path: Path) -> None:
    """Whoever knows them reads a directory: too slow for each request. A name that is new is looked for."""
    asked: list[int] = []
    names = [PIPELINE]

    def known() -> list[str]:
        asked.append(1)
        return names

    publish(blobs, 1)
    service = InferenceService(blobs, tmp_path, 60.0, known)
    assert [service.predict(PIPELINE, body(ROW)).status for _ in range(3)] == [200] * 3
    assert len(asked) == 1
    assert service.predict("new", body(ROW)).status == 404
    names.append("new")
    assert service.predict("new", body(ROW)).status == 503


def test_every_answer_during_swaps_belongs_to_the_version_that_it_names(blobs: MemoryBlobs, tmp_path: Path) -> None:
    """Header, document and probability, over both protocols, from many threads, while champions come and go."""
    publish(blobs, 1)
    service = InferenceService(blobs, tmp_path, 0.0, lambda: (PIPELINE,))
    stop = threading.Event()
    infer_body = body({"inputs": [tensor("distance", "FP64", [100.0])]})

    def ask() -> set[int]:
        seen = set()
        while not stop.is_set():
            plain, tensors = service.predict(PIPELINE, body(ROW)), service.infer(PIPELINE, infer_body)
            version = int(plain.headers["x-ratchet-model-version"])
            assert plain.headers["x-ratchet-run"] == f"run-{version}"
            document = read(plain)
            assert (document["version"], document["run"]) == (version, f"run-{version}")
            assert document["predictions"][0]["probability"] == expected(version, 100.0)
            version = int(tensors.headers["x-ratchet-model-version"])
            document = read(tensors)
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


HEAVY = ("lightgbm", "sklearn", "scipy", "pandas", "mlflow", "polars", "pyarrow", "onnx", "pydantic", "yaml")


def _loaded(code: str, modules: tuple[str, ...], *arguments: str) -> list[str]:
    """Which of these modules a fresh process has after some code."""
    command = [
        sys.executable,
        "-c",
        f"{code}\nimport json; print(json.dumps([m for m in {modules!r} if m in sys.modules]))",
    ]
    root = Path(__file__).parents[2]
    done = subprocess.run([*command, *arguments], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded: list[str] = json.loads(done.stdout)
    return loaded


def test_importing_the_service_imports_nothing_heavy() -> None:
    assert _loaded("import sys, serving.service", (*HEAVY, "numpy", "azure")) == []


ANSWER = """
import sys
from pathlib import Path
from adapters import azure_blobs
from serving.service import InferenceService
from tests.fakes.blobs import MemoryBlobs

blobs, folder = MemoryBlobs(), Path(sys.argv[1])
for path in folder.rglob("*.*"):
    blobs.put(str(path.relative_to(folder)), path.read_bytes())
service = InferenceService(blobs, Path(sys.argv[2]), 60.0, lambda: ("flights",))
row = b'{"distance": 1.5, "carrier": "AA", "at": "2013-01-01"}'
tensors = b'{"inputs": [{"name": "distance", "datatype": "FP64", "shape": [1], "data": [1.5]}]'
answers = [
    service.predict("flights", row),
    service.predict("flights", b'{"columns": {"distance": [1.5]}}', {"accept-encoding": "gzip"}),
    service.infer("flights", tensors + b"}"),
    service.infer("flights", tensors + b', "parameters": {"binary_data_output": true}}', "1"),
    service.invocations("flights", b'{"dataframe_records": [' + row + b"]}"),
    service.invocations("flights", b"distance,carrier,at\\n1.5,AA,0\\n", {"content-type": "text/csv"}),
    service.metadata("flights"), service.repository_index(), service.ready(), service.description(),
]
assert [answer.status for answer in answers] == [200] * len(answers), answers
"""


def test_answering_in_every_protocol_loads_nothing_heavy(blobs: MemoryBlobs, tmp_path: Path) -> None:
    """numpy, onnxruntime, orjson and the storage client, and no more than they bring."""
    publish(blobs, 1)
    for info in blobs.list("models/"):
        path = tmp_path / "stored" / info.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blobs.get(info.path).data)
    modules = (*HEAVY, "numpy", "onnxruntime", "orjson")
    arguments = (str(tmp_path / "stored"), str(tmp_path / "cache"))
    assert _loaded(ANSWER, modules, *arguments) == ["numpy", "onnxruntime", "orjson"]
