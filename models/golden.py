"""Golden rows: raw inputs with the exact answers of a graph, recorded when it is made, asked before it serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.evaluation import OUTPUT, open_session
from models.manifest import GoldenRows

COUNT = 16


def golden_rows(model: bytes, feed: Mapping[str, np.ndarray[Any, Any]], *, count: int = COUNT) -> GoldenRows:
    """`count` rows spread over `feed`, and one with every column missing, with P of each class as the graph gives it.

    One thread, as in serving: the answers are reproduced bit for bit by the same onnxruntime on the same kind of CPU.
    """
    rows = len(next(iter(feed.values())))
    chosen = np.unique(np.linspace(0, max(rows - 1, 0), min(count, rows)).astype(int))
    picked = {name: _with_missing(values[chosen]) for name, values in feed.items()}
    answers = open_session(model, threads=1).run([OUTPUT], picked)[0]
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
