"""Plain JSON for people: records or columns in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from models.errors import bounded
from models.manifest import Manifest, Signature
from serving.answers import Answer, answer
from serving.errors import BadRequest
from serving.feeds import SHOWN

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """Records (one object per row), or columns (`rows` values each)."""

    records: Sequence[Any]
    columns: Mapping[str, Sequence[Any]] | None
    rows: int


def load_json(body: bytes | memoryview) -> Any:
    """The document. Raises BadRequest. NaN and Infinity are not JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadRequest(f"the body is not JSON: {bounded(exc)}") from exc


def read_request(body: bytes) -> PlainRequest:
    """A record, a list of records, {"records": [...]} or {"columns": {name: [...]}}. Raises BadRequest."""
    document = load_json(body)
    if isinstance(document, dict) and len(document) == 1:
        ((key, value),) = document.items()
        if key == "records" and isinstance(value, list):
            document = value
        elif key == "columns" and isinstance(value, dict):
            return _columns(value)
    records = document if isinstance(document, list) else [document]
    return PlainRequest(records, None, len(records))


def write_answer(
    asked: PlainRequest, manifest: Manifest, answers: np.ndarray[Any, Any], headers: dict[str, str]
) -> Answer:
    """Labels and probabilities, or a regression's values, by row or by column as it was asked.

    `answers` is the graph's output, float64 [N, K].
    """
    document = {
        "pipeline": manifest.pipeline,
        "version": manifest.version,
        "run": manifest.run,
        "predictions": (_by_row if asked.columns is None else _by_column)(manifest.signature, answers),
    }
    return answer(document, headers=headers)


def _columns(columns: dict[str, Any]) -> PlainRequest:
    for name, values in columns.items():
        if not isinstance(values, list):
            raise BadRequest(f"the column {bounded(name, SHOWN)} is not a list of values", column=name)
    return PlainRequest((), columns, len(next(iter(columns.values()), ())))


def _by_row(signature: Signature, answers: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    if not signature.classes:
        return [{signature.output: value} for value in answers.ravel().tolist()]
    return [_prediction(signature, row) for row in answers.tolist()]


def _prediction(signature: Signature, row: list[float]) -> dict[str, Any]:
    """The likeliest class. `probability` is of the positive one; where no class is called so, of the likeliest."""
    classes = signature.classes
    likeliest = row.index(max(row))
    named = classes.index(signature.positive) if signature.positive else likeliest
    return {
        "label": classes[likeliest],
        "probability": row[named],
        "probabilities": dict(zip(classes, row, strict=True)),
    }


def _by_column(signature: Signature, answers: np.ndarray[Any, Any]) -> dict[str, Any]:
    if not signature.classes:
        return {signature.output: answers.ravel()}
    classes = signature.classes
    by_class = dict(zip(classes, answers.T.copy(), strict=True))
    return {
        "label": [classes[choice] for choice in answers.argmax(axis=1).tolist()],
        "probability": by_class[signature.positive] if signature.positive else answers.max(axis=1),
        "probabilities": by_class,
    }
