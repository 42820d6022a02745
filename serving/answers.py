"""Transport-neutral answers, and the one place where serving errors become HTTP statuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from serving.errors import BadRequest, BodyTooLarge, ModelRefused, NoModelYet, ServingError, UnknownModel

JSON = {"content-type": "application/json"}

STATUSES: tuple[tuple[type[ServingError], int], ...] = (
    (BadRequest, 400),
    (UnknownModel, 404),
    (BodyTooLarge, 413),
    (NoModelYet, 503),
    (ModelRefused, 503),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer without HTTP."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def answer(document: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """A JSON answer. orjson writes NaN as null, so no answer can carry one."""
    body = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return Answer(status, body, JSON if headers is None else {**JSON, **headers})


def refusal(exc: ServingError) -> Answer:
    """The answer to a request that failed: what happened, and which row and column when that is known."""
    status = next((status for kind, status in STATUSES if isinstance(exc, kind)), 500)
    error: dict[str, Any] = {"code": type(exc).__name__, "message": str(exc)}
    headers = {}
    if isinstance(exc, BadRequest):
        error |= {name: value for name, value in (("row", exc.row), ("column", exc.column)) if value is not None}
    if isinstance(exc, NoModelYet):
        headers["retry-after"] = str(exc.retry_after_seconds)
    return answer({"error": error}, status=status, headers=headers)
