"""Rows where a wrong graph shows: on and beside the thresholds of a model, missing, unknown and extreme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.ensemble import INFINITE, NO_FEATURE, Trees
from models.feature_columns import FeatureColumn
from models.feature_nodes import DAY
from models.scoring import Feed

RAW_ROWS = 5_000
SEEN = 200
"""Values of the data that are mixed in, of each column."""
SEED = 20130101
EXTREMES = (np.nan, 0.0, -0.0, 1e-40, -1e-40, 1e30, -1e30, 1e300, -1e300, np.inf, -np.inf)


def raw_rows(feed: Feed, trees: Trees, columns: Sequence[FeatureColumn]) -> dict[str, np.ndarray[Any, Any]]:
    """RAW_ROWS rows of raw columns, each column drawn by itself (seeded) from what is most likely to go wrong.

    Values on the model's thresholds and a hair beside them, midnights, missing values, extremes, unknown and missing
    categories, and values of `feed`.
    """
    rng = np.random.default_rng(SEED)
    thresholds = thresholds_of(trees)
    result: dict[str, np.ndarray[Any, Any]] = {}
    for name, seen in feed.items():
        if seen.dtype == object:
            pool = np.array([*sorted(set(seen[:SEEN].tolist())), "", "never seen before", "\U0001f600"], dtype=object)
        else:
            mine = [index for index, column in enumerate(columns) if name in column.sources]
            split_at = [
                value for index in mine if columns[index].kind == "value" for value in thresholds.get(index, [])
            ]
            edges = _midnights(seen[:SEEN]) if any(columns[index].kind == "part" for index in mine) else np.empty(0)
            pool = np.concatenate(
                [np.array(split_at), beside(split_at).astype(np.float64), edges, seen[:SEEN], EXTREMES]
            )
        result[name] = pool[rng.integers(0, len(pool), RAW_ROWS)]
    return result


def threshold_rows(matrix: np.ndarray[Any, Any], trees: Trees) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 [M, F]: for every threshold of every feature a row on it and one float step to either side.

    The other features are of rows of `matrix`, float32 [N, F] with N > 0, in turn.
    """
    thresholds = thresholds_of(trees)
    values = {feature: beside(of_feature) for feature, of_feature in thresholds.items()}
    total = sum(len(column) for column in values.values())
    rows = matrix[np.random.default_rng(SEED).integers(0, len(matrix), total)]
    start = 0
    for feature, column in values.items():
        rows[start : start + len(column), feature] = column
        start += len(column)
    return np.asarray(rows, np.float32)


def beside(thresholds: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The float32 nearest to each threshold, and its two neighbours: at least one is on either side."""
    nearest = np.array(thresholds, np.float32)
    infinity = np.float32(np.inf)
    return np.concatenate([nearest, np.nextafter(nearest, infinity), np.nextafter(nearest, -infinity)])


def thresholds_of(trees: Trees) -> dict[int, list[float]]:
    """Finite thresholds by feature, ascending."""
    finite = (trees.feature != NO_FEATURE) & (np.abs(trees.threshold) < INFINITE)
    features, thresholds = trees.feature[finite], trees.threshold[finite]
    return {feature: np.unique(thresholds[features == feature]).tolist() for feature in np.unique(features).tolist()}


def _midnights(seconds: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The midnight before each time, and the moments a microsecond beside it."""
    midnight = np.floor(seconds[np.isfinite(seconds)] / DAY) * DAY
    return np.concatenate([midnight, midnight - 1e-6, midnight + 1e-6])
