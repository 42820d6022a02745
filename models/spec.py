"""The pipeline spec: what a user writes in `pipelines/*.yaml`, validated and frozen.

A mistake is a SpecError that names the file, the line and the field. Reading a spec needs pydantic and PyYAML, so the
function app imports this module only inside activities and management calls, never at its own import.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from models.errors import bounded
from models.feature_columns import FeatureColumn, feature_columns
from models.manifest import SLUG
from models.metric_names import HIGHER_IS_BETTER, METRICS_OF
from models.promotion import Promotion
from models.spec_lines import Loader, SpecError, line_at, refuse_duplicates
from models.spec_parts import (
    NUMBERS,
    VALUES,
    Categories,
    Column,
    ColumnType,
    Feature,
    Gate,
    Holdout,
    Label,
    Metric,
    Names,
    Objective,
    Part,
    Quality,
    Quiet,
    Requests,
    Schedule,
    Task,
    Training,
    Validation,
    Window,
)

__all__ = ["Column", "ColumnType", "Gate", "Label", "PipelineSpec", "SpecError", "line_of", "parse_spec"]

RESERVED_COLUMNS = frozenset({"features", "probability", "value"})
"""Names that the graph's outputs have; names that begin with two underscores are Ratchet's own, too."""
DATA_VERSION = 4
"""Raised when cells are read, checked or counted in another way than before, so that partitions are cleaned anew."""
LABEL_TYPES: Mapping[Task, frozenset[ColumnType]] = {
    "binary": frozenset({"integer", "number", "boolean"}),
    "multiclass": frozenset({"category", "text", "integer", "boolean"}),
    "regression": frozenset({"number", "integer"}),
}
OBJECTIVES: Mapping[Task, tuple[Objective, ...]] = {
    "binary": ("binary",),
    "multiclass": ("multiclass",),
    "regression": tuple(name for name in get_args(Objective) if name not in {"binary", "multiclass"}),
}
"""The losses of each task, its usual one first. All of them are exported exactly."""
WITHOUT_MONOTONE: frozenset[Objective] = frozenset({"regression_l1", "quantile", "mape"})
"""Losses whose leaves LightGBM computes anew once a tree is grown, so that it cannot keep their order."""
COLUMN_TYPES: frozenset[ColumnType] = frozenset({"number", "integer", "boolean", "category", "timestamp", "text"})
SLICE_TYPES: frozenset[ColumnType] = frozenset({"category", "text", "boolean", "integer"})
NOT_OF_THE_MODEL = frozenset({"description", "quiet", "gate", "promotion", "schedule", "slices"})


class PipelineSpec(Part):
    """One pipeline: from raw columns to the gate."""

    name: str
    """Lower-case letters, digits and hyphens; the prefix of the pipeline's blobs and its name in URLs."""
    description: str = ""
    task: Task = "binary"
    """binary: one of two classes; multiclass: one of several; regression: a number."""
    columns: Mapping[str, Column] = Field(min_length=1)
    """Every raw column that the pipeline reads. Other columns of a file are ignored."""
    label: Label
    time: str | None = None
    """The timestamp column that orders rows: the newest are the holdout. Data without one needs another holdout."""
    filter: str | None = None
    """A condition in Polars SQL over the raw columns; rows for which it is not true are left out."""
    weight: str | None = None
    """A number column: how much a row counts in training. A row without one, or with one below zero, is quarantined."""
    features: Annotated[
        tuple[Feature, ...], BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
    ] = ()
    """What the model sees: columns, or what is computed of them. By default every number, integer, boolean and category
    column that neither the label, the weight nor the holdout's group uses."""
    categories: Categories = Categories()
    window: Window = Window()
    holdout: Holdout = Holdout()
    validation: Validation = Validation()
    training: Training = Training()
    export: Literal["exact", "portable"] = "exact"
    """exact: one float64 TreeEnsemble (onnxruntime 1.32 and later); portable: onnxmltools, ai.onnx.ml 4, float32."""
    quality: Quality = Quality()
    slices: Names = ()
    """Category, boolean, integer and text columns: both models are judged for each of their values, too."""
    gate: Gate = Gate()
    promotion: Promotion = Promotion()
    """When a challenger goes live: `automatic`, `approval`, or in a window (see its fields)."""
    quiet: Quiet = Quiet()
    requests: Requests = Requests()
    schedule: Schedule | None = None
    """Retraining by the clock, beside what uploads bring about."""

    @field_validator("name")
    @classmethod
    def _slug(cls, value: str) -> str:
        if not SLUG.fullmatch(value):
            raise ValueError("use lower-case letters, digits and hyphens, at most 63, no hyphen at either end")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for name in self.columns:
            if name in RESERVED_COLUMNS or name.startswith("__"):
                raise ValueError(f"columns.{name}: the name is reserved; rename the column")
        self._check_time()
        self._check_label()
        if self.weight is not None:
            self._require("weight", self.weight, NUMBERS)
            if self.weight in _identifiers(self.label):
                raise ValueError(f"weight: {self.weight} makes the label; what a row counts may not depend on that")
        if self.holdout.column is not None:
            self._require("holdout.column", self.holdout.column, COLUMN_TYPES)
        for name in self.slices:
            self._require("slices", name, SLICE_TYPES)
        if not self.features:
            object.__setattr__(self, "features", self._default_features())
        self._check_features()
        self._check_training()
        self._check_gate()
        return self

    def _check_time(self) -> None:
        if self.time is not None:
            self._require("time", self.time, {"timestamp"})
            window, stops = self.window.days, self.validation.days
            if window is not None and stops is not None and stops >= window:
                raise ValueError(f"validation.days: {stops:g} of the window's {window:g} days leave none to train on")
            return
        if self.holdout.by == "time":
            raise ValueError("time: missing; name the timestamp column, or choose another holdout (holdout.by)")
        needing = {
            "window.days": self.window.days,
            "validation.days": self.validation.days,
            "training.half_life_days": self.training.half_life_days,
        }
        for field, value in needing.items():
            if value is not None:
                raise ValueError(f"{field}: needs the pipeline's `time` column")

    def _check_label(self) -> None:
        if self.label.column is not None:
            self._require("label.column", self.label.column, LABEL_TYPES[self.task])
        if (self.label.classes is not None) != (self.task == "multiclass"):
            raise ValueError("label.classes: names the classes of a multiclass task, which needs them")
        if self.task != "binary" and self.label.model_fields_set & {"negative", "positive"}:
            raise ValueError("label: negative and positive name the classes of a binary task")

    def _default_features(self) -> tuple[Feature, ...]:
        used = {*_identifiers(self.label), self.time, self.weight, self.holdout.column}
        names = [name for name, column in self.columns.items() if name not in used and column.type in VALUES]
        if not names:
            raise ValueError("features: no column is left for the model to see")
        return tuple(Feature(column=name) for name in names)

    def _check_features(self) -> None:
        hidden = set(_identifiers(self.label))
        for index, feature in enumerate(self.features):
            field = f"features.{index}"
            for name in feature.sources:
                self._require(field, name, _sources_of(feature))
                if name in hidden:
                    raise ValueError(f"{field}: {name} makes the label; the model may not see it")
            kind = self.columns[feature.sources[0]].type
            if kind == "timestamp" and feature.parts is None and feature.age_at is None:
                raise ValueError(f"{field}: {feature.column} is a timestamp column; say which parts, or age_at a date")
            if feature.clip is not None and kind in {"boolean", "category"}:
                raise ValueError(f"{field}: clip is for numbers; {feature.column} is a {kind} column")
        names = [column.name for column in self.feature_columns]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise ValueError(f"features: {name} is there twice; give one of them another name")

    def _check_training(self) -> None:
        training, fit = self.training, OBJECTIVES[self.task]
        if training.objective is not None and training.objective not in fit:
            raise ValueError(
                f"training.objective: {training.objective} is none of a {self.task} task: {', '.join(fit)}"
            )
        if isinstance(training.class_weights, Mapping) and (
            unknown := [name for name in training.class_weights if name not in self.classes]
        ):
            raise ValueError(f"training.class_weights.{unknown[0]}: is none of the classes {', '.join(self.classes)}")
        if training.class_weights is not None and self.task == "regression":
            raise ValueError("training.class_weights: a regression has no classes")
        if training.monotone and self.objective in WITHOUT_MONOTONE:
            raise ValueError(f"training.monotone: LightGBM has none for the objective {self.objective}; leave one out")
        known = {column.name: column.kind for column in self.feature_columns}
        for name in training.monotone:
            if name not in known:
                raise ValueError(f"training.monotone.{name}: is none of the features: {', '.join(known)}")
            if known[name] == "category":
                raise ValueError(
                    f"training.monotone.{name}: is a category; its codes have no order that means anything"
                )

    def _check_gate(self) -> None:
        fit = METRICS_OF[self.task]
        if self.gate.metric is not None:
            self._metric_fits("gate.metric", self.gate.metric, fit)
        for bound, rises in (("minimum", True), ("maximum", False)):
            for name in getattr(self.gate, bound):
                self._metric_fits(f"gate.{bound}.{name}", name, fit)
                if (name in HIGHER_IS_BETTER) != rises:
                    better, other = ("higher", "minimum") if name in HIGHER_IS_BETTER else ("lower", "maximum")
                    raise ValueError(f"gate.{bound}.{name}: {name} is better when it is {better}; use gate.{other}")
        if self.task != "binary" and "minimum_auc" in self.gate.model_fields_set:
            raise ValueError("gate.minimum_auc: is for a binary task; use gate.minimum or gate.maximum")

    def _metric_fits(self, field: str, name: Metric, fit: Iterable[Metric]) -> None:
        if name not in fit:
            raise ValueError(f"{field}: {name} is no metric of a {self.task} task: {', '.join(fit)}")
        if name == "pinball" and self.objective != "quantile":
            raise ValueError(f"{field}: pinball is measured where training.objective is quantile")

    def _require(self, field: str, name: str, types: Iterable[str]) -> None:
        if name not in self.columns:
            raise ValueError(f"{field}: {name} is not among the columns")
        if self.columns[name].type not in types:
            kinds = " or ".join(sorted(types))
            raise ValueError(f"{field}: {name} is a {self.columns[name].type} column; it takes a {kinds} column")

    @property
    def feature_columns(self) -> tuple[FeatureColumn, ...]:
        """The matrix's columns, in order."""
        return feature_columns(self.features, self.columns, self.categories)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The raw columns that the features read, in the order of their first use: what a request carries."""
        return tuple(dict.fromkeys(name for feature in self.features for name in feature.sources))

    @property
    def carried(self) -> tuple[str, ...]:
        """Raw columns beside the inputs that clean partitions keep: texts, and what slices are made by."""
        texts = [name for name, column in self.columns.items() if column.type == "text"]
        return tuple(name for name in dict.fromkeys((*texts, *self.slices)) if name not in self.inputs)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes' names in the order of their codes; none in a regression."""
        if self.task == "binary":
            return (self.label.negative, self.label.positive)
        return self.label.classes or ()

    @property
    def objective(self) -> Objective:
        """The loss that is trained for."""
        return self.training.objective or OBJECTIVES[self.task][0]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that can change a model (not the description): the dataset id depends on it."""
        return _digest({"version": DATA_VERSION, **self.model_dump(mode="json", exclude=set(NOT_OF_THE_MODEL))})

    @property
    def data_fingerprint(self) -> str:
        """SHA-256 of what a clean partition depends on: it keys the cache of clean partitions and profiles.

        Features that are computed of the same columns in another way leave clean partitions as they are.
        """
        fields = {"task", "columns", "label", "time", "filter", "weight", "quality"}
        kept = {"inputs": self.inputs, "carried": self.carried, "group": self.holdout.column}
        return _digest({"version": DATA_VERSION, **self.model_dump(mode="json", include=fields), **kept})


def _sources_of(feature: Feature) -> frozenset[str]:
    """The types of columns that a feature can be made of."""
    if feature.column is None:
        return NUMBERS
    if feature.parts is not None or feature.age_at is not None:
        return frozenset({"timestamp"})
    if feature.minimum_count is not None or feature.maximum is not None:
        return frozenset({"category"})
    return VALUES | {"timestamp"}


@lru_cache(maxsize=64)
def parse_spec(text: str, *, source: str) -> PipelineSpec:
    """The spec in `text` (YAML). `source` is the file's name, for messages. Raises SpecError.

    Kept for the last texts: every step of a run reads the same one, a spec never changes, and parsing takes longer than
    some steps.
    """
    try:
        return _parsed(text, source)
    except RecursionError as exc:
        raise SpecError(source, 1, "", "is nested too deeply, or holds a value within itself") from exc


def _parsed(text: str, source: str) -> PipelineSpec:
    try:
        root = yaml.compose(text, Loader=Loader)
        data = yaml.load(text, Loader=Loader)  # noqa: S506 (it is a SafeLoader)
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise SpecError(source, line, "", f"not YAML: {bounded(exc.problem)}") from exc
    except (yaml.YAMLError, ValueError) as exc:
        # ValueError: an explicit tag (!!int) on a scalar that is none.
        raise SpecError(source, 1, "", f"not YAML: {bounded(exc)}") from exc
    if not isinstance(root, yaml.MappingNode):
        raise SpecError(source, 1, "", "a pipeline is a mapping of fields (name, columns, label, time, ...)")
    refuse_duplicates(root, source)
    try:
        return PipelineSpec.model_validate(data)
    except ValidationError as exc:
        raise _first_mistake(exc, root, source) from exc


def line_of(text: str, field: str) -> int:
    """The line of a dotted field in a pipeline's file that has been parsed, from 1."""
    root = yaml.compose(text, Loader=Loader)
    return line_at(root, field.split(".")) if root is not None else 1


def _first_mistake(exc: ValidationError, root: yaml.MappingNode, source: str) -> SpecError:
    # Of two mistakes on a line, a field that is missing may well be the other one, misspelt.
    error = min(exc.errors(), key=lambda error: (line_at(root, error["loc"]), error["type"] == "missing"))
    # Where there is a choice of types, pydantic also tells which of them it tried (`literal['balanced']`).
    location: tuple[int | str, ...] = tuple(part for part in error["loc"] if "[" not in str(part))
    problem = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        problem = "missing"
    elif error["type"] == "extra_forbidden":
        problem = "no such field"
    elif not location and ": " in problem:
        # The checks across fields say themselves which field they are about.
        field, _, rest = problem.partition(": ")
        if line_at(root, tuple(field.split("."))) > 1 or field in PipelineSpec.model_fields:
            location, problem = tuple(field.split(".")), rest
    elif error["type"] not in {"value_error"}:
        problem = f"{problem[0].lower()}{problem[1:]} (got {bounded(error['input'], 60)})"
    return SpecError(source, line_at(root, location), ".".join(map(str, location)), problem)


def _identifiers(label: Label) -> list[str]:
    """Names that the label reads: the column, or every bare or quoted identifier of the expression."""
    if label.column is not None:
        return [label.column]
    without_texts = re.sub(r"'[^']*'", " ", label.expression or "")
    quoted = [name for pair in re.findall(r'"([^"]*)"|`([^`]*)`', without_texts) for name in pair if name]
    return [*quoted, *re.findall(r"[^\W\d]\w*", without_texts)]


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
