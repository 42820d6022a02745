"""Golden rows: raw inputs with the exact answers of a graph, recorded when it is made, asked before it serves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from models.errors import RatchetError
from models.manifest import GoldenRows, Manifest
from models.scoring import open_session

COUNT = 16


class GoldenMismatch(RatchetError):
    """A stored version is not the model that was exported. It must not be promoted."""

    def __init__(self, version: int, reason: str) -> None:
        super().__init__(f"version {version} does not prove itself: {reason}")
        self.version = version


def golden_rows(model: bytes, feed: Mapping[str, np.ndarray[Any, Any]], *, count: int = COUNT) -> GoldenRows:
    """`count` rows spread over `feed`, and one with every column missing, with what the graph answers.

    One thread, as in serving: the answers are reproduced bit for bit by the same onnxruntime on the same kind of CPU.
    """
    rows = len(next(iter(feed.values())))
    chosen = np.unique(np.linspace(0, max(rows - 1, 0), min(count, rows)).astype(int))
    picked = {name: _with_missing(values[chosen]) for name, values in feed.items()}
    answers = open_session(model, threads=1).run(None, picked)[0]
    return GoldenRows(
        inputs={name: tuple(map(_plain, values.tolist())) for name, values in picked.items()},
        probabilities=tuple(tuple(row) for row in answers.tolist()),
    )


def _with_missing(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    missing = np.array([""], dtype=object) if values.dtype == object else np.array([np.nan])
    return np.concatenate([values, missing])


def _plain(value: float | str) -> float | str | None:
    """As model.json has it: None for missing."""
    return None if value == "" or value != value else value  # noqa: PLR0124 (only NaN differs from itself)


def prove(model: bytes, manifest: Manifest) -> None:
    """Checks stored bytes against their manifest: the hash, and every golden row bit for bit. Raises GoldenMismatch."""
    if hashlib.sha256(model).hexdigest() != manifest.model_sha256:
        raise GoldenMismatch(manifest.version, "the stored bytes are not those that were exported")
    feed = {
        column.name: _column(manifest.golden.inputs[column.name], text=column.kind == "category")
        for column in manifest.signature.inputs
    }
    answers = open_session(model, threads=1).run(None, feed)[0]
    if not np.array_equal(answers, np.array(manifest.golden.probabilities)):
        raise GoldenMismatch(manifest.version, "it answers its golden rows differently than when it was made")


def _column(values: tuple[float | str | None, ...], *, text: bool) -> np.ndarray[Any, Any]:
    if text:
        return np.array(["" if value is None else value for value in values], dtype=object)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
