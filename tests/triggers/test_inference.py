"""Where a request is answered: on the event loop when that is quick, or else on a thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import azure.functions as func
import pytest
from azure.functions.http import HttpResponseConverter

from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE
from tests.serving.test_cache import _until
from tests.triggers.test_services import stored
from triggers import inference, services

__all__ = ["stored"]
ROW = b'{"distance": 100.0}'


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads on which the service was asked, in turn."""
    used: list[str] = []
    found = services.inference

    def watched() -> Any:
        used.append(threading.current_thread().name)
        return found()

    monkeypatch.setattr(services, "inference", watched)
    monkeypatch.setattr(services, "inference_if_there", lambda: found() if found.cache_info().currsize else None)
    return used


async def _predict(body: bytes, **headers: str) -> func.HttpResponse:
    request = func.HttpRequest(
        method="POST", url="/", headers=headers, params={}, route_params={"pipeline": PIPELINE}, body=body
    )
    handler: Callable[[func.HttpRequest], Coroutine[Any, Any, func.HttpResponse]]
    handler = inference.predict._function.get_user_function()  # type: ignore[attr-defined]
    return await handler(request)


async def test_a_row_is_answered_on_the_event_loop_once_the_model_is_there(
    stored: MemoryBlobs, threads: list[str]
) -> None:
    here = threading.current_thread().name
    assert (await _predict(ROW)).status_code == 200
    assert threads[-1] != here, "the first one loads the model"
    _until(lambda: services.inference().status(PIPELINE)["version"] == 1)
    assert (await _predict(ROW)).status_code == 200
    assert threads[-1] == here


@pytest.mark.parametrize(
    ("body", "headers"),
    [(ROW.ljust(inference.QUICK_BYTES + 1), {}), (ROW, {"content-encoding": "gzip"})],
    ids=["long", "compressed"],
)
async def test_what_may_take_long_is_answered_on_a_thread(
    stored: MemoryBlobs, threads: list[str], body: bytes, headers: dict[str, str]
) -> None:
    await _predict(ROW)
    await _predict(body, **headers)
    assert threads[-1] != threading.current_thread().name


async def test_an_answer_reaches_the_host_with_the_headers_that_it_has(stored: MemoryBlobs) -> None:
    """Also where a text has its character set: the library adds one to a text's type, be there one or not."""
    request = func.HttpRequest(
        method="POST",
        url="/",
        headers={"content-type": "image/png"},
        route_params={"pipeline": PIPELINE},
        body=ROW,
    )
    handler = inference.mlflow_invocations._function.get_user_function()  # type: ignore[attr-defined]
    datum = HttpResponseConverter.encode(await handler(request), expected_type=None)
    headers = {name: header.value for name, header in datum.value["headers"].items()}
    assert (datum.value["status_code"].value, headers["content-type"]) == ("415", "text/plain; charset=utf-8")
    assert headers["x-ratchet-worker"] == str(os.getpid())
