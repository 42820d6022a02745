"""HTTP answers, and the one place where errors become statuses."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from typing import Any, cast

import azure.functions as func

from activities.live import DoesNotServe
from activities.pointing import PointerMoved
from activities.rollback import NothingToRollBack
from activities.waiting import AlreadyDecided, NothingWaits
from adapters.blobs import BlobNotFound, StorageUnavailable
from adapters.ledger import LedgerError
from adapters.mlflow_webhook import WebhookRefused
from adapters.registry import RegistryError
from adapters.specs import UnknownPipeline
from models.errors import RatchetError
from triggers import services
from triggers.runs import NotUnderWay, RunsKeepEnding
from triggers.worker import worker_headers

UNAVAILABLE, CONFLICT, BAD_REQUEST, NOT_FOUND, FORBIDDEN = 503, 409, 400, 404, 403
RETRY_AFTER_SECONDS = "5"


class BadRequest(RatchetError):
    """A management request that cannot be understood."""


STATUSES: tuple[tuple[type[RatchetError], int], ...] = (
    (BadRequest, BAD_REQUEST),
    (UnknownPipeline, NOT_FOUND),
    (BlobNotFound, NOT_FOUND),
    (NothingWaits, NOT_FOUND),
    (WebhookRefused, FORBIDDEN),
    (NotUnderWay, CONFLICT),
    (AlreadyDecided, CONFLICT),
    (DoesNotServe, CONFLICT),
    (NothingToRollBack, CONFLICT),
    (PointerMoved, CONFLICT),
    (RunsKeepEnding, UNAVAILABLE),
    (RegistryError, UNAVAILABLE),
    (StorageUnavailable, UNAVAILABLE),
    (LedgerError, UNAVAILABLE),
)


def answer_json(document: Any, *, status: int = 200) -> func.HttpResponse:
    body = json.dumps(document, allow_nan=False)
    return func.HttpResponse(body, status_code=status, mimetype="application/json", headers=worker_headers())


def known_pipeline(req: func.HttpRequest) -> str:
    """The pipeline of the route. Raises UnknownPipeline."""
    pipeline: str = req.route_params["pipeline"]
    names = services.specs().names()
    if pipeline not in names:
        raise UnknownPipeline(pipeline, names)
    return pipeline


def read_object(req: func.HttpRequest) -> dict[str, Any]:
    """The JSON object of the body; an empty one for no body. Raises BadRequest."""
    try:
        document = json.loads(req.get_body() or b"{}")
    except (ValueError, RecursionError) as exc:
        raise BadRequest("the body is not JSON") from exc
    if not isinstance(document, dict):
        raise BadRequest("the body is not a JSON object")
    return document


def answering[**P, R](handler: Callable[P, R]) -> Callable[P, R]:
    """Turns a RatchetError of `handler` (plain or async) into an answer. Other exceptions are bugs, and stay a 500."""
    if inspect.iscoroutinefunction(handler):

        @functools.wraps(handler)
        async def awaiting(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                return await handler(*args, **kwargs)
            except RatchetError as exc:
                return _refusal(exc)

        return cast(Callable[P, R], awaiting)

    @functools.wraps(handler)
    def calling(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return handler(*args, **kwargs)
        except RatchetError as exc:
            return _refusal(exc)

    return calling


def _refusal(exc: RatchetError) -> func.HttpResponse:
    status = next((status for kind, status in STATUSES if isinstance(exc, kind)), 500)
    response = answer_json({"error": {"code": type(exc).__name__, "message": str(exc)}}, status=status)
    if status == UNAVAILABLE:
        response.headers["Retry-After"] = RETRY_AFTER_SECONDS
    return response
