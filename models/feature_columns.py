"""The columns of the matrix that a model sees, as the pipeline's `features` describe them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from models.spec_parts import Categories, Column, Feature, TimestampPart

FeatureKind = Literal["value", "category", "ratio", "difference", "part", "age"]


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """One column of the matrix. `clip` is (smallest, largest); `age_at` is in seconds since 1970 UTC."""

    name: str
    kind: FeatureKind
    sources: tuple[str, ...]
    clip: tuple[float | None, float | None] = (None, None)
    part: TimestampPart | None = None
    age_at: float = 0.0
    minimum_count: int = 1
    maximum: int = 1


def feature_columns(
    features: Iterable[Feature], columns: Mapping[str, Column], categories: Categories
) -> tuple[FeatureColumn, ...]:
    """The matrix's columns, in order."""
    return tuple(column for feature in features for column in _columns(feature, columns, categories))


def _columns(feature: Feature, columns: Mapping[str, Column], categories: Categories) -> Iterator[FeatureColumn]:
    sources, clip = feature.sources, feature.clip or (None, None)
    if feature.ratio is not None:
        yield FeatureColumn(feature.name or "/".join(sources), "ratio", sources, clip)
        return
    if feature.difference is not None:
        yield FeatureColumn(feature.name or "-".join(sources), "difference", sources, clip)
        return
    (source,) = sources
    for part in feature.parts or ():
        yield FeatureColumn(f"{source}.{part}", "part", sources, part=part)
    if feature.age_at is not None:
        at = datetime.fromisoformat(feature.age_at).replace(tzinfo=UTC).timestamp()
        yield FeatureColumn(feature.name or f"{source}.age", "age", sources, clip, age_at=at)
    if feature.parts is not None or feature.age_at is not None:
        return
    if columns[source].type == "category":
        yield FeatureColumn(
            feature.name or source,
            "category",
            sources,
            minimum_count=feature.minimum_count or categories.minimum_count,
            maximum=feature.maximum or categories.maximum,
        )
        return
    yield FeatureColumn(feature.name or source, "value", sources, clip)
