"""Mergeable statistics of clean partitions: what the feature graph is fitted to, without reading the rows again.

`merge` is associative and does not care about order, so profiles can be cached per partition and reduced in any tree.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import polars as pl

from models.errors import RatchetError
from models.partitions import LABEL, TIME
from models.spec import PipelineSpec

MAX_DISTINCT_CATEGORIES = 100_000
"""Most categories of one column in one partition; a column with more is an identifier, not a category."""


class ProfileError(RatchetError):
    """A column has too many categories to be counted. `column`, `distinct` and `limit` say which and how many."""

    def __init__(self, column: str, distinct: int, limit: int) -> None:
        super().__init__(
            f"`{column}` has {distinct} different values in one file, more than the {limit} that a category may have. "
            "It looks like an identifier: leave it out of the pipeline's features."
        )
        self.column, self.distinct, self.limit = column, distinct, limit


@dataclass(frozen=True, slots=True)
class NumberProfile:
    """`count` values that are there and `missing` that are not; the extremes are None where there is no value."""

    count: int
    missing: int
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True, slots=True)
class Profile:
    """Exact statistics of rows. Times are seconds since 1970 UTC, None without rows.

    `numbers` is by number, integer or boolean feature; `categories` by category feature: rows by value, '' = missing.
    """

    rows: int
    positives: int
    time_min: float | None
    time_max: float | None
    numbers: Mapping[str, NumberProfile]
    categories: Mapping[str, Mapping[str, int]]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives an equal object back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises KeyError or TypeError when the document is malformed."""
        numbers = {name: NumberProfile(**profile) for name, profile in data["numbers"].items()}
        categories = {name: dict(counts) for name, counts in data["categories"].items()}
        return cls(**{**data, "numbers": numbers, "categories": categories})

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal profiles give equal bytes."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The profile that `to_bytes` wrote."""
        return cls.from_dict(json.loads(data))


def profile(frame: pl.DataFrame, spec: PipelineSpec) -> Profile:
    """Statistics of a clean partition's frame. Raises ProfileError for a category that is no category."""
    kinds = {name: spec.columns[name].type for name in spec.features}
    return Profile(
        rows=frame.height,
        positives=int(frame[LABEL].sum()),
        time_min=_extreme(frame[TIME].min()),
        time_max=_extreme(frame[TIME].max()),
        numbers={name: _numbers(frame[name]) for name, kind in kinds.items() if kind != "category"},
        categories={name: _categories(frame[name]) for name, kind in kinds.items() if kind == "category"},
    )


def merge(profiles: Iterable[Profile]) -> Profile:
    """The profile of all their rows together. Raises ValueError for none, or for profiles of different columns."""
    parts = list(profiles)
    if not parts:
        raise ValueError("there is no profile to merge")
    first = parts[0]
    if any(set(part.numbers) != set(first.numbers) or set(part.categories) != set(first.categories) for part in parts):
        raise ValueError("the profiles are of different columns; make them again from the same pipeline spec")
    return Profile(
        rows=sum(part.rows for part in parts),
        positives=sum(part.positives for part in parts),
        time_min=_least(part.time_min for part in parts),
        time_max=_greatest(part.time_max for part in parts),
        numbers={name: _merged_numbers([part.numbers[name] for part in parts]) for name in first.numbers},
        categories={name: _merged_categories([part.categories[name] for part in parts]) for name in first.categories},
    )


def _numbers(values: pl.Series) -> NumberProfile:
    missing = values.null_count()
    return NumberProfile(values.len() - missing, missing, _extreme(values.min()), _extreme(values.max()))


def _categories(values: pl.Series) -> dict[str, int]:
    counts = values.alias("value").value_counts(name="rows")
    if counts.height > MAX_DISTINCT_CATEGORIES:
        raise ProfileError(values.name, counts.height, MAX_DISTINCT_CATEGORIES)
    return dict(sorted(zip(counts["value"].to_list(), counts["rows"].to_list(), strict=True)))


def _merged_numbers(parts: list[NumberProfile]) -> NumberProfile:
    return NumberProfile(
        count=sum(part.count for part in parts),
        missing=sum(part.missing for part in parts),
        minimum=_least(part.minimum for part in parts),
        maximum=_greatest(part.maximum for part in parts),
    )


def _merged_categories(parts: list[Mapping[str, int]]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part)
    return dict(sorted(counts.items()))


def _extreme(value: object) -> float | None:
    # Adding zero makes -0.0 into 0.0: which of the two comes out would depend on the order of the rows.
    return float(value) + 0.0 if isinstance(value, int | float) else None


def _least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _greatest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
