"""Rows for people to try a model with, made up from what is usual in each column: no row is one of the data."""

from __future__ import annotations

from collections.abc import Mapping

from models.histograms import bucket_edges
from models.manifest import InputKind
from models.profiles import NumberProfile, Profile

SHARES = (0.5, 0.25, 0.75)
"""One row for each: the share of a column's values that are at most as large as the row's."""
SECONDS_A_DAY = 86_400.0


def example_rows(merged: Profile, kinds: Mapping[str, InputKind]) -> dict[str, list[float | str | None]]:
    """A value of each column for each of SHARES, None for a column without values.

    Numbers are near the median and the quartiles, times (seconds since 1970 UTC) at a midnight, categories the most
    frequent ones.
    """
    return {
        name: _categories(merged.categories[name]) if kind == "category" else _numbers(merged.numbers[name], kind)
        for name, kind in kinds.items()
    }


def _categories(counts: Mapping[str, int]) -> list[float | str | None]:
    found = sorted((value for value in counts if value), key=lambda value: (-counts[value], value))
    return [found[number % len(found)] if found else None for number in range(len(SHARES))]


def _numbers(profile: NumberProfile, kind: InputKind) -> list[float | str | None]:
    low, high = profile.minimum, profile.maximum
    if low is None or high is None:
        return [None] * len(SHARES)
    if kind == "timestamp":
        return [(low + share * (high - low)) // SECONDS_A_DAY * SECONDS_A_DAY for share in SHARES]
    found = [min(max(_near(profile, share), low), high) for share in SHARES]
    return [round(value) + 0.0 for value in found] if kind in {"integer", "boolean"} else [*found]


def _near(profile: NumberProfile, share: float) -> float:
    """A round number in the histogram's bucket where that share of the values is reached; 0 for infinite ones alone."""
    buckets = sorted((*bucket_edges(bucket), rows) for bucket, rows in profile.histogram.items())
    wanted, passed = share * sum(rows for *_, rows in buckets), 0
    for first, _, rows in buckets:
        passed += rows
        if passed >= wanted:
            return first
    return 0.0
