"""Mergeable statistics of clean partitions: what the feature graph is fitted to, without reading the rows again.

`merge` is associative and does not care about order, so profiles can be cached per partition and reduced in any tree.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import polars as pl

from models.errors import RatchetError
from models.histograms import histogram
from models.partitions import LABEL, TIME
from models.spec import PipelineSpec

MAX_DISTINCT_CATEGORIES = 100_000
"""Most categories of one column in one partition; a column with more is an identifier, not a category."""


class ProfileError(RatchetError):
    """A column has too many categories to be counted: `column` more than `limit`."""

    def __init__(self, column: str, limit: int) -> None:
        super().__init__(
            f"`{column}` has more than the {limit} different values in one file that a category may have. "
            "It looks like an identifier: leave it out of the pipeline's features."
        )
        self.column, self.limit = column, limit


@dataclass(frozen=True, slots=True)
class NumberProfile:
    """`count` values that are there and `missing` that are not; the extremes are None where there is no value.

    `histogram` is how many values are in each bucket of models.histograms that has any.
    """

    count: int
    missing: int
    minimum: float | None
    maximum: float | None
    histogram: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Profile:
    """Exact statistics of rows. Times are seconds since 1970 UTC, None without rows.

    `classes` has the rows of each class of the label, and nothing in a regression. `numbers` is by input that is no
    category, and has `__label` in a regression; `categories` by category input: rows by value, '' = missing.
    """

    rows: int
    classes: Mapping[str, int]
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
        return cls(**{**data, "classes": dict(data["classes"]), "numbers": numbers, "categories": categories})

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal profiles give equal bytes."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The profile that `to_bytes` wrote."""
        return cls.from_dict(json.loads(data))


def profile(frame: pl.DataFrame, spec: PipelineSpec) -> Profile:
    """Statistics of a clean partition's frame, or of some of its rows."""
    kinds = {name: spec.columns[name].type for name in spec.inputs}
    numbers = [name for name, kind in kinds.items() if kind != "category"] + [LABEL] * (spec.task == "regression")
    return Profile(
        rows=frame.height,
        classes=_classes(frame[LABEL], spec),
        time_min=_extreme(frame[TIME].min()),
        time_max=_extreme(frame[TIME].max()),
        numbers={name: _numbers(frame[name]) for name in numbers},
        categories={name: _categories(frame[name]) for name, kind in kinds.items() if kind == "category"},
    )


def check_categories(partition: Profile) -> None:
    """Raises ProfileError when a category of one partition is no category."""
    for column, counts in partition.categories.items():
        if len(counts) > MAX_DISTINCT_CATEGORIES:
            raise ProfileError(column, MAX_DISTINCT_CATEGORIES)


def merge(profiles: Iterable[Profile]) -> Profile:
    """The profile of all their rows together. Raises ValueError for none, or for profiles of different columns."""
    parts = list(profiles)
    if not parts:
        raise ValueError("there is no profile to merge")
    first = parts[0]
    if any(_columns(part) != _columns(first) for part in parts):
        raise ValueError("the profiles are of different columns; make them again from the same pipeline spec")
    return Profile(
        rows=sum(part.rows for part in parts),
        classes=_merged_counts([part.classes for part in parts]),
        time_min=_least(part.time_min for part in parts),
        time_max=_greatest(part.time_max for part in parts),
        numbers={name: _merged_numbers([part.numbers[name] for part in parts]) for name in first.numbers},
        categories={name: _merged_counts([part.categories[name] for part in parts]) for name in first.categories},
    )


def _numbers(values: pl.Series) -> NumberProfile:
    present = values.drop_nulls()
    counts = histogram(present.to_numpy())
    return NumberProfile(present.len(), values.null_count(), _extreme(values.min()), _extreme(values.max()), counts)


def _classes(labels: pl.Series, spec: PipelineSpec) -> dict[str, int]:
    if not spec.classes:
        return {}
    counts = np.bincount(labels.to_numpy(), minlength=len(spec.classes))
    return dict(sorted(zip(spec.classes, counts.tolist(), strict=True)))


def _columns(one: Profile) -> tuple[set[str], set[str], set[str]]:
    return set(one.classes), set(one.numbers), set(one.categories)


def _categories(values: pl.Series) -> dict[str, int]:
    counts = values.alias("value").value_counts(name="rows")
    return dict(sorted(zip(counts["value"].to_list(), counts["rows"].to_list(), strict=True)))


def _merged_numbers(parts: list[NumberProfile]) -> NumberProfile:
    return NumberProfile(
        count=sum(part.count for part in parts),
        missing=sum(part.missing for part in parts),
        minimum=_least(part.minimum for part in parts),
        maximum=_greatest(part.maximum for part in parts),
        histogram=_merged_counts([part.histogram for part in parts]),
    )


def _merged_counts(parts: list[Mapping[str, int]]) -> dict[str, int]:
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
