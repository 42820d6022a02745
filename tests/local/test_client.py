"""The typed client against answers that are right, wrong and missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from local.client import AppClient, AppUnavailable, NoModelYet, RequestRefused, ServedBy, Tensor, UnexpectedAnswer
from tests.local.fake_app import Served

SERVED = {"x-ratchet-model-version": "10", "x-ratchet-worker": "4101"}
COLUMNS = [Tensor("hour", "FP64", [1, None]), Tensor("carrier", "BYTES", ["UA", "B6"])]


@contextmanager
def client_of(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Iterator[AppClient]:
    """A client of an app that gives the same answer to everything."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(document, status=status, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    with Served(app) as url, AppClient(url + "/", "flight-delays") as client:
        yield client


def test_a_run_under_way_and_a_pipeline_without_a_model() -> None:
    run = {"id": "r", "step": "train", "index": 6, "steps": 12, "done": 3, "total": 4, "since": "", "waiting": False}
    document = {"pipeline": "flight-delays", "champion": None, "partitions": {"claimed": 1}, "run": run, "new": 1}
    with client_of(document) as client:
        status = client.status()

    assert status.champion is None
    assert status.run is not None
    assert (status.run.step, status.run.index, status.run.done, status.run.total) == ("train", 6, 3, 4)


@pytest.mark.parametrize("workers", [[7, 8], [{"pid": 7, "busy": 0}, {"pid": 8, "busy": 1}]])
def test_workers_are_listed_as_process_ids(workers: list[Any]) -> None:
    with client_of({"state": "Running", "workers": workers}) as client:
        assert client.workers() == {7, 8}


def test_predict_tells_who_answered() -> None:
    with client_of({"predictions": []}, headers=SERVED) as client:
        assert client.predict({"hour": 5}) == ServedBy(version=10, worker=4101)


@pytest.mark.parametrize("data", [[0.25, 0.75, 0.5, 0.5], [[0.25, 0.75], [0.5, 0.5]]])
def test_inference_takes_flat_and_nested_values(data: list[Any]) -> None:
    output = {"name": "probability", "shape": [2, 2], "datatype": "FP64", "data": data}
    with client_of({"outputs": [output]}, headers=SERVED) as client:
        inference = client.infer(COLUMNS)

    assert inference.probability.tolist() == [[0.25, 0.75], [0.5, 0.5]]
    assert inference.served_by.version == 10


def test_a_missing_probability_is_not_a_number() -> None:
    output = {"name": "probability", "shape": [2, 2], "data": [0.25, 0.75, 0.5, None]}
    with client_of({"outputs": [output]}, headers=SERVED) as client:
        assert np.isnan(client.infer(COLUMNS).probability).tolist() == [[False, False], [False, True]]


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [{"name": "label", "shape": [2, 2], "data": [0, 1, 1, 0]}],
        [{"name": "probability", "shape": [1, 2], "data": [0, 1]}],
        [{"name": "probability", "shape": [2, 2], "data": [0, 1, 1]}],
        [{"name": "probability", "shape": [2, 2], "data": [0, 1, 1, "x"]}],
    ],
)
def test_an_inference_of_another_shape_is_refused(outputs: list[Any]) -> None:
    with client_of({"outputs": outputs}, headers=SERVED) as client, pytest.raises(UnexpectedAnswer, match="infer"):
        client.infer(COLUMNS)


@pytest.mark.parametrize("headers", [{}, {**SERVED, "x-ratchet-worker": "one"}])
def test_an_answer_without_its_origin_is_refused(headers: dict[str, str]) -> None:
    with client_of({}, headers=headers) as client, pytest.raises(UnexpectedAnswer, match="x-ratchet-worker"):
        client.predict({})


def test_503_with_retry_after_means_no_model() -> None:
    with client_of({}, status=503, headers={"Retry-After": "5"}) as client, pytest.raises(NoModelYet) as caught:
        client.predict({})

    assert caught.value.retry_after == 5


def test_503_without_it_means_no_host_to_ask() -> None:
    with client_of({}, status=503) as client, pytest.raises(AppUnavailable):
        client.predict({})


def test_503_of_anything_but_a_prediction_means_that_the_app_cannot_work_now() -> None:
    answer = client_of({"error": "storage"}, status=503, headers={"Retry-After": "5"})
    with answer as client, pytest.raises(AppUnavailable, match="storage"):
        client.status()


def test_a_run_that_is_about_to_begin_has_no_id() -> None:
    run = {"id": None, "step": "quiet", "index": 1, "steps": 0, "done": 0, "total": 0, "since": None, "waiting": True}
    with client_of({"pipeline": "p", "champion": None, "run": run, "last_run": None}) as client:
        status = client.status()

    assert status.run is not None
    assert status.run.waiting


def test_an_error_status_carries_the_reason() -> None:
    with client_of({"error": "no such run"}, status=404) as client, pytest.raises(RequestRefused) as caught:
        client.record("a/b")

    assert caught.value.status == 404
    assert "no such run" in str(caught.value)
    assert caught.value.url.endswith("/runs/a%2Fb")


@pytest.mark.parametrize(
    "ask",
    [AppClient.status, AppClient.runs, AppClient.workers, lambda client: client.record("r")],
    ids=["status", "runs", "workers", "record"],
)
def test_another_shape_than_promised_is_refused(ask: Callable[[AppClient], object]) -> None:
    with client_of({"something": "else"}) as client, pytest.raises(UnexpectedAnswer, match="another shape"):
        ask(client)


def test_an_answer_that_is_not_json_is_refused() -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>")

    app = web.Application()
    app.router.add_get("/{path:.*}", page)
    with Served(app) as url, AppClient(url, "p") as client, pytest.raises(UnexpectedAnswer, match="JSON"):
        client.status()


def test_nobody_there() -> None:
    with Served(web.Application()) as url:
        pass
    with AppClient(url, "p") as client, pytest.raises(AppUnavailable, match="does not answer"):
        client.status()
