"""Plain JSON for people: records or columns in, labels and probabilities out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from models.errors import bounded
from models.manifest import Manifest
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
    asked: PlainRequest, manifest: Manifest, probabilities: np.ndarray[Any, Any], headers: dict[str, str]
) -> Answer:
    """Label and probabilities, by row or by column as it was asked. `probabilities` is float64 [N, K]."""
    document = {
        "pipeline": manifest.pipeline,
        "version": manifest.version,
        "run": manifest.run,
        "predictions": (_by_row if asked.columns is None else _by_column)(manifest, probabilities),
    }
    return answer(document, headers=headers)


def _columns(columns: dict[str, Any]) -> PlainRequest:
    for name, values in columns.items():
        if not isinstance(values, list):
            raise BadRequest(f"the column {bounded(name, SHOWN)} is not a list of values", column=name)
    return PlainRequest((), columns, len(next(iter(columns.values()), ())))


def _by_row(manifest: Manifest, probabilities: np.ndarray[Any, Any]) -> list[dict[str, Any]]:
    classes = manifest.signature.classes
    positive = classes.index(manifest.signature.positive)
    return [
        {
            "label": classes[row.index(max(row))],
            "probability": row[positive],
            "probabilities": dict(zip(classes, row, strict=True)),
        }
        for row in probabilities.tolist()
    ]


def _by_column(manifest: Manifest, probabilities: np.ndarray[Any, Any]) -> dict[str, Any]:
    classes = manifest.signature.classes
    by_class = dict(zip(classes, probabilities.T.copy(), strict=True))
    return {
        "label": [classes[choice] for choice in probabilities.argmax(axis=1).tolist()],
        "probability": by_class[manifest.signature.positive],
        "probabilities": by_class,
    }
