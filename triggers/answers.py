"""HTTP answers, and the one place where errors become statuses."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable
from typing import Any, cast

import azure.functions as func

from adapters.blobs import BlobNotFound, StorageUnavailable
from adapters.ledger import LedgerError
from adapters.specs import UnknownPipeline
from models.errors import RatchetError, bounded
from triggers.runs import NotUnderWay, RunsKeepEnding

UNAVAILABLE = 503


class BadParameter(RatchetError):
    """A query parameter has a value that means nothing."""

    def __init__(self, name: str, value: str) -> None:
        super().__init__(f"{name}={bounded(value, 40)} means nothing; write {name}=true or {name}=false")
        self.name, self.value = name, value


RETRY_AFTER_SECONDS = "5"
STATUSES: tuple[tuple[type[RatchetError], int], ...] = (
    (UnknownPipeline, 404),
    (BadParameter, 400),
    (NotUnderWay, 409),
    (RunsKeepEnding, UNAVAILABLE),
    (BlobNotFound, 404),
    (StorageUnavailable, UNAVAILABLE),
    (LedgerError, UNAVAILABLE),
)


def worker_headers() -> dict[str, str]:
    """Names the worker process that answered, so that a swap can be seen in every one of them."""
    return {"x-ratchet-worker": str(os.getpid())}


def answer_json(document: Any, *, status: int = 200) -> func.HttpResponse:
    body = json.dumps(document, allow_nan=False)
    return func.HttpResponse(body, status_code=status, mimetype="application/json", headers=worker_headers())


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
