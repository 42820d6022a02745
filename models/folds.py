"""Shares of rows and groups that are always the same ones: uniform numbers made from names, not drawn."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import polars as pl

_FOLD_BITS = 53
"""What a float64 holds exactly."""


def folds(key: str, rows: int, *, before: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """float64 [rows] in [0, 1): a hash of (`key`, row number), whatever else is in the dataset.

    The first row's number is 1, or one more than there are rows `before`.

    SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014) seeded with SHA-256 of `key`.
    """
    seed = np.uint64(_seed(key))
    # uint64 arithmetic on arrays wraps around, as the algorithm wants.
    z = np.arange(before + 1, before + rows + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + seed
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(64 - _FOLD_BITS)).astype(np.float64) * 2.0**-_FOLD_BITS


def group_folds(groups: pl.Series) -> pl.Series:
    """Float64 [N] in [0, 1): a hash of each text, so that all rows of a group are on the same side. Null stays null."""
    names = groups.drop_nulls().unique().to_list()
    codes = [_seed(name) >> (64 - _FOLD_BITS) for name in names]
    return groups.replace_strict(
        names, [code * 2.0**-_FOLD_BITS for code in codes], default=None, return_dtype=pl.Float64
    )


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
