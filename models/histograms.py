"""Histograms whose edges are the same for all data, so that those of two partitions add up to that of both.

A bucket holds the numbers that share their sign, exponent and first three bits of mantissa: eight buckets between each
power of two and the next, so that a bucket's ends differ by an eighth of its lower one at most. Zero has its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_SHIFT = np.uint64(49)
"""52 bits of mantissa but for the first three."""
_BUCKETS = 1 << 15
"""Sign, eleven bits of exponent, three of mantissa."""


def histogram(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, int]:
    """How many of the finite numbers `values`, float64 [N], are in each bucket that has any, by the bucket's number."""
    # Adding zero makes -0.0 into 0.0.
    buckets = (np.ascontiguousarray(values) + 0.0).view(np.uint64) >> _SHIFT
    counts = np.bincount(buckets.astype(np.intp), minlength=_BUCKETS)
    found = np.flatnonzero(counts)
    return dict(sorted(zip(map(str, found.tolist()), counts[found].tolist(), strict=True)))


def bucket_edges(bucket: str) -> tuple[float, float]:
    """The smallest number of a bucket, and the smallest one of the next: all of its numbers lie between the two."""
    ends = np.array([int(bucket), int(bucket) + 1], np.uint64) << _SHIFT
    first, second = ends.view(np.float64).tolist()
    return (first, second) if first <= second else (second, first)
