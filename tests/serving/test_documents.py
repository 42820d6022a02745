"""Whatever stands in the pointer or in a version's manifest: it is refused, or what it names answers every protocol."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.pointer import pointer_path, version_path
from serving.service import InferenceService
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE, SIGNATURE, publish
from tests.serving.requests import JSON_VALUES, ROW, body, read, tensor

WORDS = (
    "binary",
    "multiclass",
    "regression",
    "ignore",
    "error",
    "missing",
    "number",
    "integer",
    "late",
    "early",
    "value",
)
TELLING = ("signature", "champion")
"""Members that decide how requests are read and answered."""
VALUES = JSON_VALUES | st.sampled_from([*WORDS, "", "distance", "carrier", "\ud800", 0, -1, 2**63, [], {}, [[]]])


@pytest.fixture(scope="module")
def stored() -> dict[str, bytes]:
    """The blobs of a promoted version."""
    blobs = MemoryBlobs()
    publish(blobs, 1)
    return {info.path: blobs.get(info.path).data for info in blobs.list("models/")}


def _places(document: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON document."""
    yield place
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for name, value in inner:
        yield from _places(value, (*place, name))


def _changed(document: Any, data: st.DataObject) -> Any:
    """The document with another value in one place, or with a member less."""
    places = list(_places(document))[1:]
    telling = [place for place in places if place[0] in TELLING] or places
    *way, last = data.draw(st.sampled_from(places) | st.sampled_from(telling))
    target = document
    for name in way:
        target = target[name]
    if data.draw(st.booleans()) and isinstance(target, dict):
        del target[last]
    else:
        target[last] = copy.deepcopy(data.draw(VALUES))
    return document


@pytest.mark.parametrize("path", [pointer_path(PIPELINE), version_path(PIPELINE, 1, "model.json")])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_document_with_another_value_is_refused_or_serves(
    stored: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, path: str, data: st.DataObject
) -> None:
    blobs = MemoryBlobs()
    for name, content in stored.items():
        blobs.put(name, content)
    document = json.loads(stored[path])
    for _ in range(data.draw(st.integers(1, 3))):
        document = _changed(document, data)
    blobs.put(path, json.dumps(document).encode())
    service = InferenceService(blobs, tmp_path_factory.getbasetemp() / "documents", 1e6, lambda: (PIPELINE,))
    _ask_everything(service)


@given(content=st.binary(max_size=60) | JSON_VALUES.map(body))
def test_a_document_that_is_none_is_refused(stored: dict[str, bytes], tmp_path_factory: Any, content: bytes) -> None:
    for path in (pointer_path(PIPELINE), version_path(PIPELINE, 1, "model.json")):
        blobs = MemoryBlobs()
        for name, kept in stored.items():
            blobs.put(name, kept)
        blobs.put(path, content)
        directory = tmp_path_factory.getbasetemp() / "no-documents"
        service = InferenceService(blobs, directory, 1e6, lambda: (PIPELINE,))
        assert service.predict(PIPELINE, body(ROW)).status == 503


SIGNATURES = {
    "several classes, one of them positive": {"task": "multiclass", "positive": "late"},
    "several classes, another one positive": {"task": "multiclass", "positive": "x"},
    "none of several classes": {"task": "multiclass", "positive": "", "classes": ()},
    "a regression with classes": {"task": "regression", "positive": ""},
    "a regression with a positive class": {"task": "regression", "classes": ()},
    "a truth without its positive class": {"positive": ""},
    "the same class twice": {"classes": ("late", "late")},
}


@pytest.mark.parametrize("changes", SIGNATURES.values(), ids=SIGNATURES)
def test_a_signature_that_contradicts_itself_is_refused(
    blobs: MemoryBlobs, service: InferenceService, changes: dict[str, Any]
) -> None:
    """The golden rows alone would let it through, and every request would find out."""
    publish(blobs, 1, signature=dataclasses.replace(SIGNATURE, **changes))
    answer = service.predict(PIPELINE, body(ROW))
    assert answer.status == 503
    assert "model.json has classes" in read(answer)["error"]["message"]


def _ask_everything(service: InferenceService) -> None:
    tensors = [tensor("distance", "FP64", [1.0])]
    answers = [
        service.predict(PIPELINE, body(ROW)),
        service.predict(PIPELINE, body({"columns": {name: [value] for name, value in ROW.items()}})),
        service.infer(PIPELINE, body({"inputs": tensors})),
        service.infer(PIPELINE, body({"inputs": [tensor(name, "FP64", [1.0]) for name in ROW]}), "1"),
        service.invocations(PIPELINE, body({"dataframe_records": [{**ROW, "at": 0}]})),
        service.metadata(PIPELINE),
        service.model_ready(PIPELINE, "1"),
        service.repository_index(),
        service.ready(),
    ]
    for answer in answers:
        assert answer.status in {200, 400, 404, 503}
        read(answer)
