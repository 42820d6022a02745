"""The pipeline spec: what a user writes in `pipelines/*.yaml`, validated and frozen.

A mistake is a SpecError that names the file, the line and the field. Reading a spec needs pydantic and PyYAML, so the
function app imports this module only inside activities and management calls, never at its own import.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from models.errors import RatchetError, bounded
from models.parameters import canonical

ColumnType = Literal["number", "integer", "boolean", "category", "timestamp", "text"]
FEATURE_TYPES = frozenset({"number", "integer", "boolean", "category"})
RESERVED_COLUMNS = frozenset({"features", "probability"})
"""Names that the graph's outputs have; names that begin with two underscores are Ratchet's own, too."""
SLUG = re.compile(r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")


DATA_VERSION = 2
"""Raised when cells are read or checked in another way than before, so that partitions are cleaned anew."""


class SpecError(RatchetError):
    """A pipeline file has a mistake. `line` counts from 1; `field` is dotted (`columns.distance.type`)."""

    def __init__(self, source: str, line: int, field: str, problem: str) -> None:
        where = f"{source}:{line}" + (f": {field}" if field else "")
        super().__init__(f"{where}: {problem}")
        self.source, self.line, self.field, self.problem = source, line, field, problem


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


type Names = Annotated[tuple[str, ...], BeforeValidator(_tuple)]


class Column(_Part):
    """What a raw column may hold. `columns: {distance: number}` is short for `{distance: {type: number}}`."""

    type: ColumnType
    """number, integer, boolean, category, timestamp (ISO 8601, UTC without a zone) or text (carried, not used)."""
    minimum: float | None = None
    """Smallest value allowed; a row with a smaller one is quarantined."""
    maximum: float | None = None
    """Largest value allowed; a row with a larger one is quarantined."""
    allowed: Names | None = None
    """The only texts allowed in a category."""
    required: bool = False
    """Whether a missing value puts the row into quarantine. Missing is otherwise a value of its own."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.minimum is not None or self.maximum is not None) and self.type not in {"number", "integer"}:
            raise ValueError(f"minimum and maximum are for number and integer columns, not for {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        if self.allowed is not None and self.type != "category":
            raise ValueError(f"allowed is for category columns, not for {self.type}")
        return self


class Label(_Part):
    """What is to be predicted: a column of zeros and ones (or true and false), or an expression over the columns."""

    column: str | None = None
    expression: str | None = None
    """A condition in Polars SQL over the raw columns, for example `arr_delay > 15`."""
    negative: str = "no"
    """What a prediction calls the class of zeros."""
    positive: str = "yes"
    """What a prediction calls the class of ones; its probability is what `probability` means."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.column is None) == (self.expression is None):
            raise ValueError("give either column or expression")
        if self.negative == self.positive:
            raise ValueError("negative and positive need different names")
        return self


class Categories(_Part):
    """How categories become codes: by frequency rank, with codes of their own for missing and unknown."""

    minimum_count: int = Field(default=20, ge=1)
    """A category seen less often counts as unknown."""
    maximum: int = Field(default=500, ge=1, le=100_000)
    """Most categories kept for a column."""


class Holdout(_Part):
    """The newest window of the data: judged on, never trained on by the challenger."""

    days: float = Field(default=7, gt=0)


class Validation(_Part):
    """The share of the training rows (chosen by hash) that only decides when to stop."""

    fraction: float = Field(default=0.1, gt=0, lt=0.5)


class Training(_Part):
    """How LightGBM is run."""

    seed: int = Field(default=7, ge=0)
    rounds: int = Field(default=300, ge=1, le=10_000)
    early_stopping: int = Field(default=30, ge=1)
    """Rounds without progress on the validation rows after which training stops."""
    minimum_rows: int = Field(default=500, ge=10)
    """Fewer training rows than this make no model."""
    parameters: Mapping[str, bool | int | float | str] = Field(default_factory=dict)
    """LightGBM's parameters, by any of their names, except for what cannot be exported exactly."""

    @field_validator("parameters")
    @classmethod
    def _exportable(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        canonical(value)
        return value


class Quality(_Part):
    """When a file as a whole is rejected."""

    maximum_bad_rows: float = Field(default=0.05, ge=0, le=1)
    """Largest share of quarantined rows that a file may have."""


class Gate(_Part):
    """What a challenger has to show before it may replace the champion."""

    minimum_auc: float = Field(default=0.5, ge=0, le=1)
    """Absolute floor on the unseen rows."""
    improvement: float = Field(default=0.0, ge=-1, le=1)
    """The AUC's gain over the champion must exceed this with the given confidence."""
    confidence: float = Field(default=0.9, ge=0.5, lt=1)
    """One-sided confidence of the gain (paired bootstrap)."""
    minimum_rows: int = Field(default=200, ge=1)
    """Fewer unseen rows than this decide nothing: the champion stays."""
    maximum_latency_ms: float = Field(default=5.0, gt=0)
    """Largest p99 of one row through the graph, in milliseconds."""
    maximum_size_mb: float = Field(default=50.0, gt=0)
    """Largest size of the graph, in megabytes."""


class Quiet(_Part):
    """How long a run waits for more uploads before it claims what is there."""

    seconds: float = Field(default=60, ge=0, le=86_400)
    """Uploads have settled when none came for so long."""
    longest_wait_seconds: float = Field(default=600, ge=0, le=604_800)
    """The run starts after this, quiet or not."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.longest_wait_seconds < self.seconds:
            raise ValueError("longest_wait_seconds is shorter than seconds")
        return self


class Schedule(_Part):
    """Retraining by the clock, beside what uploads bring about."""

    hours: float = Field(ge=0.25, le=8_784)
    """A run is forced when the latest one ended so long ago, also without new data."""


class PipelineSpec(_Part):
    """One pipeline: from raw columns to the gate."""

    DATA_FIELDS: ClassVar[frozenset[str]] = frozenset({"columns", "label", "time", "features", "quality"})

    name: str
    """Lower-case letters, digits and hyphens; the prefix of the pipeline's blobs and its name in URLs."""
    description: str = ""
    task: Literal["binary"] = "binary"
    columns: Mapping[str, Column] = Field(min_length=1)
    """Every raw column that the pipeline reads. Other columns of a file are ignored."""
    label: Label
    time: str
    """The timestamp column that orders rows: the newest are the holdout."""
    features: Annotated[tuple[str, ...], BeforeValidator(_tuple)] = ()
    """Columns that the model sees. By default every column that neither the label nor time uses."""
    categories: Categories = Categories()
    holdout: Holdout = Holdout()
    validation: Validation = Validation()
    training: Training = Training()
    export: Literal["exact", "portable"] = "exact"
    """exact: one float64 TreeEnsemble (onnxruntime 1.32 and later); portable: onnxmltools, ai.onnx.ml 4, float32."""
    quality: Quality = Quality()
    gate: Gate = Gate()
    promotion: Literal["automatic"] = "automatic"
    quiet: Quiet = Quiet()
    schedule: Schedule | None = None
    """Retraining by the clock, beside what uploads bring about."""

    @field_validator("name")
    @classmethod
    def _slug(cls, value: str) -> str:
        if not SLUG.match(value):
            raise ValueError("use lower-case letters, digits and hyphens, at most 63, no hyphen at either end")
        return value

    @model_validator(mode="after")
    def _columns_agree(self) -> Self:
        for name in self.columns:
            if name in RESERVED_COLUMNS or name.startswith("__"):
                raise ValueError(f"columns.{name}: the name is reserved; rename the column")
        self._require("time", self.time, {"timestamp"})
        if self.label.column is not None:
            self._require("label.column", self.label.column, {"integer", "number", "boolean"})
        used = set(_identifiers(self.label)) | {self.time}
        features = self.features or tuple(
            name for name, column in self.columns.items() if name not in used and column.type in FEATURE_TYPES
        )
        if not features:
            raise ValueError("features: no column is left for the model to see")
        if len(set(features)) != len(features):
            raise ValueError("features: a column is named twice")
        for name in features:
            self._require("features", name, FEATURE_TYPES)
            if name in used:
                raise ValueError(f"features: {name} makes the label or is the time; the model may not see it")
        object.__setattr__(self, "features", features)
        return self

    def _require(self, field: str, name: str, types: frozenset[str] | set[str]) -> None:
        if name not in self.columns:
            raise ValueError(f"{field}: {name} is not among the columns")
        if self.columns[name].type not in types:
            kinds = " or ".join(sorted(types))
            raise ValueError(f"{field}: {name} is a {self.columns[name].type} column; it takes a {kinds} column")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that can change a model (not the description): the dataset id depends on it."""
        return _digest(self.model_dump(mode="json", exclude={"description", "quiet", "gate", "promotion", "schedule"}))

    @property
    def data_fingerprint(self) -> str:
        """SHA-256 of what a clean partition depends on: it keys the cache of clean partitions and profiles."""
        fields = self.model_dump(mode="json", include=set(self.DATA_FIELDS))
        return _digest({"version": DATA_VERSION, **fields})


class _Loader(yaml.SafeLoader):
    """A safe loader for which a date is a text like any other."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_spec(text: str, *, source: str) -> PipelineSpec:
    """The spec in `text` (YAML). `source` is the file's name, for messages. Raises SpecError."""
    try:
        root = yaml.compose(text, Loader=_Loader)
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 (it is a SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise SpecError(source, line, "", f"not YAML: {bounded(exc.problem)}") from exc
    except (yaml.YAMLError, ValueError) as exc:
        # ValueError: an explicit tag (!!int) on a scalar that is none.
        raise SpecError(source, 1, "", f"not YAML: {bounded(exc)}") from exc
    if not isinstance(root, yaml.MappingNode):
        raise SpecError(source, 1, "", "a pipeline is a mapping of fields (name, columns, label, time, ...)")
    _refuse_duplicates(root, source, ())
    try:
        return PipelineSpec.model_validate(data)
    except ValidationError as exc:
        raise _first_mistake(exc, root, source) from exc


def line_of(text: str, field: str) -> int:
    """The line of a dotted field in a pipeline's file that has been parsed, from 1."""
    root = yaml.compose(text, Loader=_Loader)
    return _line(root, field.split(".")) if root is not None else 1


def _refuse_duplicates(node: yaml.Node, source: str, path: tuple[str, ...]) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise SpecError(source, key.start_mark.line + 1, ".".join((*path, name)), "given twice")
            seen.add(name)
            _refuse_duplicates(value, source, (*path, name))


def _first_mistake(exc: ValidationError, root: yaml.MappingNode, source: str) -> SpecError:
    # Of two mistakes on a line, a field that is missing may well be the other one, misspelt.
    error = min(exc.errors(), key=lambda error: (_line(root, error["loc"]), error["type"] == "missing"))
    location: tuple[int | str, ...] = error["loc"]
    problem = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        problem = "missing"
    elif error["type"] == "extra_forbidden":
        problem = "no such field"
    elif not location and ": " in problem:
        # The checks across fields say themselves which field they are about.
        field, _, rest = problem.partition(": ")
        if _line(root, tuple(field.split("."))) > 1 or field in PipelineSpec.model_fields:
            location, problem = tuple(field.split(".")), rest
    elif error["type"] not in {"value_error"}:
        problem = f"{problem[0].lower()}{problem[1:]} (got {bounded(error['input'], 60)})"
    return SpecError(source, _line(root, location), ".".join(map(str, location)), problem)


def _line(root: yaml.Node, location: Sequence[int | str]) -> int:
    """The line of the deepest node on the way to `location`, from 1."""
    node, line = root, root.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if str(key.value) == str(part)), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line


def _identifiers(label: Label) -> list[str]:
    """Names that the label reads: the column, or every bare or quoted identifier of the expression."""
    if label.column is not None:
        return [label.column]
    without_texts = re.sub(r"'[^']*'", " ", label.expression or "")
    return re.findall(r"[A-Za-z_][A-Za-z_0-9]*", without_texts)


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
