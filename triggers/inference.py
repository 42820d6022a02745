"""Inference over HTTP: plain JSON for people, the Open Inference Protocol and MLflow's scoring protocol."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal

import azure.functions as func

from adapters.settings import SettingsError
from serving.answers import UNAVAILABLE, Answer, answer
from serving.scoring import VERSION
from triggers import services
from triggers.worker import worker_headers

blueprint = func.Blueprint()

type Handler = Callable[[func.HttpRequest], Answer]
type Place = Literal["here", "computing thread", "thread of its own"]

QUICK_BYTES = 4 * 1024
"""Some thirty rows, a third of a millisecond. Beyond that a thread is faster: the trees run without the interpreter's
lock, so that one request's trees and another's parsing have a CPU each."""
LONG_BYTES = 256 * 1024
"""Some two thousand rows. Beyond that a request takes so long that others must not queue behind it."""


class Response(func.HttpResponse):
    """An answer as the library reads it. Its own class checks and copies each header anew, which takes longer than
    reading a row; here they are ours, and always name the content type."""

    def __init__(self, answer: Answer) -> None:
        # Not the library's: all that it would keep is told below.
        self._answer, self._headers = answer, {**answer.headers, **worker_headers()}

    @property
    def status_code(self) -> int:
        return self._answer.status

    @property
    def headers(self) -> dict[str, str]:  # type: ignore[override]
        """By names in lower case. A mapping is all that the library asks for when it reads them."""
        return self._headers

    @property
    def mimetype(self) -> str:
        return self._headers["content-type"]

    @property
    def charset(self) -> str:
        return "utf-8"

    def get_body(self) -> bytes:
        return self._answer.body


@cache
def _computing() -> ThreadPoolExecutor:
    """Threads for requests that only compute. More of them than CPUs take these, and the interpreter's lock, from each
    other: a hundred rows at once by sixteen clients are a third slower then."""
    return ThreadPoolExecutor(os.process_cpu_count() or 1, thread_name_prefix="ratchet-predict")


def _place(req: func.HttpRequest) -> Place:
    """Where a request is answered so that it does not hold up others."""
    pipeline = req.route_params.get("pipeline")
    service = None if pipeline is None else services.inference_if_there()
    length = len(req.get_body())
    if service is None or length > LONG_BYTES or service.would_wait(pipeline, req.route_params.get("version")):
        return "thread of its own"
    # Handing it to a thread would take longer than the answer to a row.
    return "here" if length <= QUICK_BYTES and "content-encoding" not in req.headers else "computing thread"


def _on_computing_thread(handler: Handler, req: func.HttpRequest) -> asyncio.Future[Answer]:
    run = contextvars.copy_context().run  # what is logged names its invocation
    return asyncio.get_running_loop().run_in_executor(_computing(), run, handler, req)


def _route(name: str, route: str, method: str) -> Callable[[Handler], Callable[..., object]]:
    """Binds a handler of (request) to a route under a function name."""

    def decorate(handler: Handler) -> Callable[..., object]:
        async def function(req: func.HttpRequest) -> func.HttpResponse:
            place = _place(req)
            if place == "here":
                return Response(handler(req))
            on_thread = _on_computing_thread if place == "computing thread" else asyncio.to_thread
            return Response(await on_thread(handler, req))

        function.__name__ = name
        bound = blueprint.route(route, methods=[method], auth_level=func.AuthLevel.FUNCTION)(function)
        return blueprint.function_name(name)(bound)  # type: ignore[no-any-return]

    return decorate


@_route("predict", "api/pipelines/{pipeline}/predict", "POST")
def predict(req: func.HttpRequest) -> Answer:
    return services.inference().predict(req.route_params["pipeline"], req.get_body(), req.headers)


@_route("openapi", "openapi.json", "GET")
def openapi(req: func.HttpRequest) -> Answer:
    return services.inference().description()


@_route("infer", "v2/models/{pipeline}/infer", "POST")
def infer(req: func.HttpRequest) -> Answer:
    return services.inference().infer(req.route_params["pipeline"], req.get_body(), headers=req.headers)


@_route("infer_version", "v2/models/{pipeline}/versions/{version}/infer", "POST")
def infer_version(req: func.HttpRequest) -> Answer:
    pipeline, version = req.route_params["pipeline"], req.route_params["version"]
    return services.inference().infer(pipeline, req.get_body(), version, req.headers)


@_route("model_metadata", "v2/models/{pipeline}", "GET")
def model_metadata(req: func.HttpRequest) -> Answer:
    return services.inference().metadata(req.route_params["pipeline"])


@_route("model_version_metadata", "v2/models/{pipeline}/versions/{version}", "GET")
def model_version_metadata(req: func.HttpRequest) -> Answer:
    return services.inference().metadata(req.route_params["pipeline"], req.route_params["version"])


@_route("model_ready", "v2/models/{pipeline}/ready", "GET")
def model_ready(req: func.HttpRequest) -> Answer:
    return services.inference().model_ready(req.route_params["pipeline"])


@_route("model_version_ready", "v2/models/{pipeline}/versions/{version}/ready", "GET")
def model_version_ready(req: func.HttpRequest) -> Answer:
    return services.inference().model_ready(req.route_params["pipeline"], req.route_params["version"])


@_route("repository_index", "v2/repository/index", "POST")
def repository_index(req: func.HttpRequest) -> Answer:
    return services.inference().repository_index(req.get_body(), req.headers)


@_route("mlflow_invocations", "mlflow/{pipeline}/invocations", "POST")
def mlflow_invocations(req: func.HttpRequest) -> Answer:
    return services.inference().invocations(req.route_params["pipeline"], req.get_body(), req.headers)


@_route("mlflow_ping", "mlflow/{pipeline}/ping", "GET")
def mlflow_ping(req: func.HttpRequest) -> Answer:
    return services.inference().ping(req.route_params["pipeline"])


@_route("mlflow_health", "mlflow/{pipeline}/health", "GET")
def mlflow_health(req: func.HttpRequest) -> Answer:
    return services.inference().ping(req.route_params["pipeline"])


@_route("mlflow_version", "mlflow/{pipeline}/version", "GET")
def mlflow_version(req: func.HttpRequest) -> Answer:
    return services.inference().mlflow_version(req.route_params["pipeline"])


@_route("invocations", "invocations", "POST")
def invocations(req: func.HttpRequest) -> Answer:
    """Of the only pipeline."""
    return services.inference().invocations(None, req.get_body(), req.headers)


@_route("ping", "ping", "GET")
def ping(req: func.HttpRequest) -> Answer:
    """Of the only pipeline."""
    return services.inference().ping(None)


@_route("health", "health", "GET")
def health(req: func.HttpRequest) -> Answer:
    """Of the only pipeline."""
    return services.inference().ping(None)


@_route("version", "version", "GET")
def version(req: func.HttpRequest) -> Answer:
    return VERSION


@_route("server_metadata", "v2", "GET")
def server_metadata(req: func.HttpRequest) -> Answer:
    return services.inference().server_metadata()


@_route("server_live", "v2/health/live", "GET")
def server_live(req: func.HttpRequest) -> Answer:
    return answer({"live": True})


@_route("server_ready", "v2/health/ready", "GET")
def server_ready(req: func.HttpRequest) -> Answer:
    try:
        return services.inference().ready()
    except SettingsError as exc:
        return answer({"ready": False, "error": str(exc)}, status=UNAVAILABLE)
