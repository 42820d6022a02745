"""Inference over HTTP: plain JSON for people, the Open Inference Protocol and MLflow's scoring protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import azure.functions as func

from adapters.settings import SettingsError
from serving.answers import UNAVAILABLE, Answer, answer
from serving.scoring import VERSION
from triggers import services
from triggers.worker import worker_headers

blueprint = func.Blueprint()

QUICK_BYTES = 4 * 1024
"""Some thirty rows, a third of a millisecond. Beyond that a thread is faster: the trees run without the interpreter's
lock, so that one request's trees and another's parsing have a CPU each."""


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


def _is_quick(req: func.HttpRequest) -> bool:
    """Whether a request is answered on the event loop: small, plain, and for a model that is there.

    Handing it to a thread would take longer than the answer to a row.
    """
    pipeline = req.route_params.get("pipeline")
    if pipeline is None or len(req.get_body()) > QUICK_BYTES or "content-encoding" in req.headers:
        return False
    service = services.inference_if_there()
    return service is not None and not service.would_wait(pipeline, req.route_params.get("version"))


def _route(name: str, route: str, method: str) -> Callable[[Callable[..., Answer]], Callable[..., object]]:
    """Binds a handler of (request) to a route under a function name."""

    def decorate(handler: Callable[[func.HttpRequest], Answer]) -> Callable[..., object]:
        async def function(req: func.HttpRequest) -> func.HttpResponse:
            return Response(handler(req) if _is_quick(req) else await asyncio.to_thread(handler, req))

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
