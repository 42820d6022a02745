"""`model.json`: what is known of one immutable model version. Written by export and register, read by serving.

Loads nothing but the standard library, because every serving process loads it on a cold start.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from models.documents import read_document

MANIFEST_SCHEMA = 1
"""Raised when a field changes its meaning; a reader refuses a number it does not know."""

PROBABILITY, VALUE = "probability", "value"
"""The one output of a version's graph: `probability`, DOUBLE [N, K], or in a regression `value`, DOUBLE [N, 1]."""

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
"""A pipeline's name: a prefix of blobs, a part of URLs, a file's name. To be matched in full."""
_SHA256 = re.compile(r"[0-9a-f]{64}")

Task = Literal["binary", "multiclass", "regression"]
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
    """Inputs in the graph's order. The graph's output is [N, K] with K = len(classes), or [N, 1] in a regression.

    `positive` is the class that a binary model's one probability is of; other tasks have none ('').
    `unknown_columns` and `missing_columns` say what a request may have too much and leave out. Versions that were made
    before these were recorded have what was the rule then, which is the default.
    """

    inputs: tuple[InputColumn, ...]
    classes: tuple[str, ...]
    positive: str
    task: Task = "binary"
    unknown_columns: UnknownColumns = "error"
    missing_columns: MissingColumns = "missing"

    @property
    def output(self) -> str:
        """The name of the graph's output."""
        return VALUE if self.task == "regression" else PROBABILITY

    @property
    def width(self) -> int:
        """Columns of the graph's output."""
        return len(self.classes) or 1

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From plain JSON types, as `asdict` and JSON make them."""
        return read_document(cls, data)


@dataclass(frozen=True, slots=True)
class GoldenRows:
    """Raw inputs by column (None = missing) and what the graph gives for them, bit for bit.

    `probabilities` is [N, K], in a regression the values [N, 1].
    """

    inputs: Mapping[str, tuple[float | str | None, ...]]
    probabilities: tuple[tuple[float, ...], ...]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From plain JSON types, as `asdict` and JSON make them."""
        return read_document(cls, data)


@dataclass(frozen=True, slots=True)
class LineagePartition:
    """One partition that taught (or judged) a version. `path` is the blob's name within the training container.

    `content` is the SHA-256 of the upload, which stays when a blob is renamed; '' where it was not kept yet.
    """

    path: str
    etag: str
    rows: int
    content: str = ""


@dataclass(frozen=True, slots=True)
class HoldoutRule:
    """Which rows are judged on and never taught. `since` is in seconds since 1970 UTC."""

    by: Literal["time", "hash", "group"] = "time"
    since: float = 0.0
    fraction: float = 0.0
    column: str = ""

    def holds(self, time: Any, fold: Any) -> Any:
        """Boolean [N] for arrays of times (float64 [N]) and folds (float64 [N] in [0, 1): of rows, or of groups)."""
        return time >= self.since if self.by == "time" else fold < self.fraction


@dataclass(frozen=True, slots=True)
class Lineage:
    """Which rows taught a version: those of `partitions` that its holdout does not hold.

    `holdout_from` is where a holdout by time begins (seconds since 1970 UTC), 0 for others, which `holdout` describes.
    `data` is the contract that the partitions were cleaned by: under another one, a row has another place in its file.
    """

    dataset: str
    spec: str
    holdout_from: float
    partitions: tuple[LineagePartition, ...]
    holdout: HoldoutRule | None = None
    data: str = ""

    @property
    def rule(self) -> HoldoutRule:
        """The holdout; of a version from before there were several kinds, the one by time."""
        return self.holdout or HoldoutRule("time", self.holdout_from)


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
    opset: Mapping[str, int] = field(default_factory=dict)
    """The operator sets that the graph needs, by domain ('' is ONNX's own)."""
    schema: int = MANIFEST_SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives an equal object back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises ValueError when the document is of another schema, TypeError when it is malformed."""
        return read_document(cls, data, schema=MANIFEST_SCHEMA)
