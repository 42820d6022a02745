"""`model.json`: what is known of one immutable model version. Written by export and register, read by serving.

Imports nothing but the standard library, because every serving process loads it on a cold start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

MANIFEST_SCHEMA = 1
"""Raised when a field changes its meaning; a reader refuses a number it does not know."""

PROBABILITY = "probability"
"""The one output of a version's graph: DOUBLE [N, K]."""

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""A pipeline's name: a prefix of blobs, a part of URLs, a file's name. To be matched in full."""
_SHA256 = re.compile(r"[0-9a-f]{64}")

InputKind = Literal["number", "integer", "boolean", "category", "timestamp"]
UnknownColumns = Literal["error", "ignore"]
MissingColumns = Literal["missing", "error"]


def is_sha256(text: object) -> bool:
    """Whether `text` is a hash as manifests and pointers record it; only that becomes the name of a file."""
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class InputColumn:
    """One raw column that a request carries.

    The graph's tensor for it has this name and shape [N]: `number`, `integer` and `boolean` are DOUBLE with NaN for
    missing, `category` is STRING with '' for missing, `timestamp` is DOUBLE in seconds since 1970 UTC with NaN for
    missing.
    """

    name: str
    kind: InputKind


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs in the graph's order. The graph's output is [N, K] with K = len(classes).

    `unknown_columns` and `missing_columns` say what a request may have too much and leave out. Versions that were made
    before these were recorded have what was the rule then, which is the default.
    """

    inputs: tuple[InputColumn, ...]
    classes: tuple[str, ...]
    positive: str
    unknown_columns: UnknownColumns = "error"
    missing_columns: MissingColumns = "missing"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From plain JSON types, as `asdict` and JSON make them."""
        inputs = tuple(InputColumn(**column) for column in data["inputs"])
        policies = {name: data[name] for name in ("unknown_columns", "missing_columns") if name in data}
        return cls(inputs, tuple(data["classes"]), data["positive"], **policies)


@dataclass(frozen=True, slots=True)
class GoldenRows:
    """Raw inputs by column (None = missing) and the probabilities [N, K] that the graph gives for them, bit for bit."""

    inputs: Mapping[str, tuple[float | str | None, ...]]
    probabilities: tuple[tuple[float, ...], ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From plain JSON types, as `asdict` and JSON make them."""
        inputs = {name: tuple(values) for name, values in data["inputs"].items()}
        return cls(inputs, tuple(tuple(row) for row in data["probabilities"]))


@dataclass(frozen=True, slots=True)
class LineagePartition:
    """One partition that taught (or judged) a version. `path` is the blob's name within the training container."""

    path: str
    etag: str
    rows: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """Which rows taught a version: those of `partitions` with a time before `holdout_from` (seconds since 1970 UTC)."""

    dataset: str
    spec: str
    holdout_from: float
    partitions: tuple[LineagePartition, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a version that serving and later runs need. `model_path` is container/name in blob storage."""

    pipeline: str
    version: int
    run: str
    created: str
    model_path: str
    model_sha256: str
    model_bytes: int
    signature: Signature
    golden: GoldenRows
    lineage: Lineage
    metrics: Mapping[str, float] = field(default_factory=dict)
    rejected: bool = False
    """Whether the gate rejected it. Who asks for such a version by its number gets it, and is told."""
    schema: int = MANIFEST_SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives an equal object back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises ValueError when the document is of another schema, KeyError or TypeError when it is malformed."""
        if data.get("schema") != MANIFEST_SCHEMA:
            raise ValueError(f"model.json has schema {data.get('schema')!r}; this code reads {MANIFEST_SCHEMA}")
        lineage = data["lineage"]
        return cls(
            **{
                **data,
                "signature": Signature.from_dict(data["signature"]),
                "golden": GoldenRows.from_dict(data["golden"]),
                "lineage": Lineage(
                    dataset=lineage["dataset"],
                    spec=lineage["spec"],
                    holdout_from=lineage["holdout_from"],
                    partitions=tuple(LineagePartition(**partition) for partition in lineage["partitions"]),
                ),
            }
        )
