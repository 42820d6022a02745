"""Where a request is answered: on the event loop when that is quick, or else on a thread."""

from __future__ import annotations

import contextvars
import gzip
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
    ("body", "headers", "thread"),
    [
        (ROW.ljust(inference.QUICK_BYTES + 1), {}, "ratchet-predict"),
        (gzip.compress(ROW), {"content-encoding": "gzip"}, "ratchet-predict"),
        (ROW.ljust(inference.LONG_BYTES + 1), {}, "asyncio"),
    ],
    ids=["many rows", "compressed", "very many rows"],
)
async def test_what_may_take_long_is_answered_on_a_thread(
    stored: MemoryBlobs, threads: list[str], body: bytes, headers: dict[str, str], thread: str
) -> None:
    """Of a few, as long as nothing holds up those behind it."""
    await _predict(ROW)
    _until(lambda: services.inference().status(PIPELINE)["version"] == 1)
    assert (await _predict(body, **headers)).status_code == 200
    assert threads[-1].startswith(thread)


async def test_a_thread_knows_which_invocation_it_works_for(
    stored: MemoryBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    invocation = contextvars.ContextVar("invocation", default="")
    await _predict(ROW)
    _until(lambda: services.inference().status(PIPELINE)["version"] == 1)
    found = services.inference
    seen: list[str] = []

    def watched() -> Any:
        seen.append(invocation.get())
        return found()

    monkeypatch.setattr(services, "inference", watched)
    monkeypatch.setattr(services, "inference_if_there", found)
    invocation.set("this one")
    await _predict(ROW.ljust(inference.QUICK_BYTES + 1))
    assert seen == ["this one"]


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
