"""Transport-neutral answers, and the one place where serving errors become HTTP statuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from models.errors import bounded
from serving.errors import (
    BadRequest,
    BodyTooLarge,
    ModelRefused,
    NoModelYet,
    NothingPromoted,
    OutOfTime,
    ServingError,
    TooManyRows,
    UnknownEncoding,
    UnknownModel,
)

UNAVAILABLE = 503
RETRY_AFTER_SECONDS = 10
"""What a client is told to wait when the error names no time of its own."""
Protocol = Literal["plain", "oip"]
JSON = {"content-type": "application/json"}

STATUSES: tuple[tuple[type[ServingError], int], ...] = (
    (BadRequest, 400),
    (UnknownModel, 404),
    (BodyTooLarge, 413),
    (TooManyRows, 413),
    (UnknownEncoding, 415),
    (OutOfTime, 504),
    (NoModelYet, UNAVAILABLE),
    (ModelRefused, UNAVAILABLE),
    (NothingPromoted, UNAVAILABLE),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer without HTTP."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def dumps(document: Any) -> bytes:
    """JSON. orjson writes NaN as null, so no answer can carry one."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def answer(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """A JSON answer."""
    return Answer(status, dumps(document), JSON if headers is None else {**JSON, **headers})


def refusal(exc: ServingError, *, protocol: Protocol = "plain") -> Answer:
    """The answer to a request that failed: what happened, and which row and column when that is known.

    Plain JSON has {"error": {"code", "message", "row"?, "column"?}}. The Open Inference Protocol has a text there:
    {"error": message}, and the rest stands beside it.
    """
    status = next((status for kind, status in STATUSES if isinstance(exc, kind)), 500)
    details: dict[str, Any] = {"code": type(exc).__name__}
    headers = {}
    if isinstance(exc, BadRequest):
        if exc.row is not None:
            details["row"] = exc.row
        if exc.column is not None:
            details["column"] = bounded(exc.column)
    if status == UNAVAILABLE:
        seconds = exc.retry_after_seconds if isinstance(exc, NoModelYet) else RETRY_AFTER_SECONDS
        headers["retry-after"] = str(seconds)
    message = str(exc)
    document = {"error": message, **details} if protocol == "oip" else {"error": {"message": message, **details}}
    return answer(document, status=status, headers=headers)
