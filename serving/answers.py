"""Transport-neutral answers, and the one place where serving errors become HTTP statuses."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import orjson

from models.errors import bounded
from serving.errors import (
    BadRequest,
    BodyTooLarge,
    ModelRefused,
    NoModelYet,
    NothingPromoted,
    OutOfTime,
    SchemaMismatch,
    ServingError,
    TooManyRows,
    UnknownEncoding,
    UnknownModel,
    ValuesRefused,
)

UNAVAILABLE = 503
RETRY_AFTER_SECONDS = 10
"""What a client is told to wait when the error names no time of its own."""
Protocol = Literal["plain", "oip", "mlflow"]
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
MLFLOW_CODES = {
    404: "RESOURCE_DOES_NOT_EXIST",
    500: "INTERNAL_ERROR",
    UNAVAILABLE: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""MLflow's names of errors that are not the request's, by status."""
MLFLOW_INVALID = ("BAD_REQUEST", "KAM00", "INVALID_PARAMETER_VALUE")
MLFLOW_ERRORS: tuple[tuple[type[ServingError], tuple[str, str, str]], ...] = (
    (SchemaMismatch, ("INVALID_PARAMETER_VALUE", "KAM01", "SCHEMA_ENFORCEMENT_FAILED")),
    (ValuesRefused, ("INVALID_PARAMETER_VALUE", "KAM00", "INVALID_PARAMETER_VALUE")),
)
"""error_code, sqlstate and error_class of the request's errors."""


class Answer(NamedTuple):
    """An HTTP answer without HTTP. A named tuple, because one is made for every request."""

    status: int
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


def dumps(document: Any) -> bytes:
    """JSON. orjson writes NaN as null, so no answer can carry one."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def answer(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """A JSON answer."""
    return Answer(status, dumps(document), JSON if headers is None else {**JSON, **headers})


def refusal(
    exc: ServingError, *, protocol: Protocol = "plain", headers: Mapping[str, str] = MappingProxyType({})
) -> Answer:
    """The answer to a request that failed: what happened, and which row and column when that is known.

    `headers` name the version that judged the request, where it came so far.

    Plain JSON has {"error": {"code", "message", "row"?, "column"?}}. The Open Inference Protocol has a text there:
    {"error": message}, and the rest stands beside it. MLflow has a code of its own, and text for what it cannot read.
    """
    status = next((status for kind, status in STATUSES if isinstance(exc, kind)), 500)
    headers = dict(headers)
    if status == UNAVAILABLE:
        seconds = exc.retry_after_seconds if isinstance(exc, NoModelYet) else RETRY_AFTER_SECONDS
        headers["retry-after"] = str(seconds)
    message = str(exc)
    if protocol == "mlflow":
        if isinstance(exc, UnknownEncoding):
            return Answer(status, message.encode(), {**headers, "content-type": "text/plain; charset=utf-8"})
        return answer(_mlflow_error(status, exc, message), status=status, headers=headers)
    details: dict[str, Any] = {"code": type(exc).__name__}
    if isinstance(exc, BadRequest):
        if exc.row is not None:
            details["row"] = exc.row
        if exc.column is not None:
            details["column"] = bounded(exc.column)
    document = {"error": message, **details} if protocol == "oip" else {"error": {"message": message, **details}}
    return answer(document, status=status, headers=headers)


def _mlflow_error(status: int, exc: ServingError, message: str) -> dict[str, str]:
    if status in MLFLOW_CODES:
        return {"error_code": MLFLOW_CODES[status], "message": message}
    code, state, kind = next((error for type_, error in MLFLOW_ERRORS if isinstance(exc, type_)), MLFLOW_INVALID)
    return {"error_code": code, "message": message, "sqlstate": state, "error_class": kind}
