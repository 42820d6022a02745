"""The parts of a pipeline's file, each validated by itself. What they have to do with each other is in models.spec."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from models.errors import bounded
from models.manifest import MissingColumns, UnknownColumns
from models.parameters import canonical, check_objective, check_values

ColumnType = Literal["number", "integer", "boolean", "category", "timestamp", "text"]
Task = Literal["binary", "multiclass", "regression"]
TimestampPart = Literal["hour", "weekday", "month", "day_of_year"]
Objective = Literal[
    "binary",
    "multiclass",
    "regression",
    "regression_l1",
    "huber",
    "fair",
    "quantile",
    "mape",
    "poisson",
    "gamma",
    "tweedie",
]
Metric = Literal[
    "auc",
    "average_precision",
    "log_loss",
    "brier",
    "calibration_error",
    "accuracy",
    "macro_f1",
    "mae",
    "rmse",
    "pinball",
]
NUMBERS = frozenset({"number", "integer"})
VALUES = frozenset({"number", "integer", "boolean", "category"})
"""Types of columns that a model can see as they are."""


class Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _class_names(value: Any) -> Any:
    """YAML reads `[1, 2, true]` as numbers and truths; as classes they are names."""
    return tuple(map(_class_name, value)) if isinstance(value, list) else value


def _class_name(item: Any) -> Any:
    if isinstance(item, bool):
        return str(item).lower()
    return str(item) if isinstance(item, int) else item


def _by_class(value: Any) -> Any:
    return {_class_name(name): weight for name, weight in value.items()} if isinstance(value, dict) else value


type Bound = Annotated[tuple[float | None, float | None], BeforeValidator(_tuple)]
type Pair = Annotated[tuple[str, str], BeforeValidator(_tuple)]
type Names = Annotated[tuple[str, ...], BeforeValidator(_tuple)]
type ClassNames = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_class_names)]


class Column(Part):
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
        if (self.minimum is not None or self.maximum is not None) and self.type not in NUMBERS:
            raise ValueError(f"minimum and maximum are for number and integer columns, not for {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        if self.allowed is not None and self.type != "category":
            raise ValueError(f"allowed is for category columns, not for {self.type}")
        return self


class Label(Part):
    """What is to be predicted: a column, or an expression over the columns."""

    column: str | None = None
    """binary: zeros and ones, or true and false. multiclass: the class's name. regression: the number."""
    expression: str | None = None
    """The same as Polars SQL over the raw columns, for example `arr_delay > 15`."""
    negative: str = "no"
    """binary: what a prediction calls the class of zeros."""
    positive: str = "yes"
    """binary: what a prediction calls the class of ones; its probability is what `probability` means."""
    classes: ClassNames | None = None
    """multiclass: the classes' names, in the order of the probabilities. Rows of any other class are quarantined."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.column is None) == (self.expression is None):
            raise ValueError("give either column or expression")
        if self.negative == self.positive:
            raise ValueError("negative and positive need different names")
        if self.classes is not None and (len(self.classes) == 1 or len(set(self.classes)) < len(self.classes)):
            raise ValueError("classes are at least two different names")
        return self


class Feature(Part):
    """A column of the matrix that the model sees. `features: [distance]` is short for `[{column: distance}]`."""

    column: str | None = None
    """A raw column: a number or boolean as it is, a category by its frequency rank, a timestamp by parts or age_at."""
    ratio: Pair | None = None
    """Two number columns: the first divided by the second; missing where the second is zero."""
    difference: Pair | None = None
    """Two number columns: the first minus the second."""
    name: str | None = None
    """What it is called where features are listed. By default it is made from the columns."""
    clip: Bound | None = None
    """Smallest and largest value (null: none); what lies beyond is set to them. Missing stays missing."""
    parts: Annotated[tuple[TimestampPart, ...], BeforeValidator(_tuple)] | None = None
    """Parts of a timestamp in UTC: hour, weekday (0 is Monday), month, day_of_year; a feature each."""
    age_at: str | None = None
    """A date (2026-01-31): days from the timestamp to its beginning in UTC."""
    minimum_count: int | None = Field(default=None, ge=1)
    """As in `categories`, for this category alone."""
    maximum: int | None = Field(default=None, ge=1, le=100_000)
    """As in `categories`, for this category alone."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(source is not None for source in (self.column, self.ratio, self.difference)) != 1:
            raise ValueError("give one of column, ratio and difference")
        if self.column is None and (self.parts or self.age_at or self.minimum_count or self.maximum):
            raise ValueError("parts, age_at, minimum_count and maximum belong to a column")
        if self.parts is not None and (not self.parts or len(set(self.parts)) < len(self.parts)):
            raise ValueError("parts are different parts of a timestamp, at least one")
        if self.parts is not None and self.name is not None:
            raise ValueError("parts make several features, which are called column.part; leave name out")
        if self.clip is not None and (
            self.clip == (None, None) or (None not in self.clip and self.clip[0] >= self.clip[1])  # type: ignore[operator]
        ):
            raise ValueError("clip is [smallest, largest], one of which may be null")
        return self

    @field_validator("age_at")
    @classmethod
    def _date(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                date.fromisoformat(value)
            except ValueError as exc:
                raise ValueError(f"age_at is a date like 2026-01-31, not {bounded(value, 40)!r}") from exc
        return value

    @property
    def sources(self) -> tuple[str, ...]:
        """The raw columns that it reads."""
        return (self.column,) if self.column is not None else (self.ratio or self.difference or ())


class Categories(Part):
    """How categories become codes: by frequency rank, with codes of their own for missing and unknown."""

    minimum_count: int = Field(default=20, ge=1)
    """A category seen less often counts as unknown."""
    maximum: int = Field(default=500, ge=1, le=100_000)
    """Most categories kept for a column."""


class Window(Part):
    """How far back the data goes that a model is made from. Everything, unless one of these is given."""

    partitions: int | None = Field(default=None, ge=1)
    """The last so many files, by their newest rows."""
    days: float | None = Field(default=None, gt=0)
    """Training rows at most this old, counted from the holdout's beginning (or from the newest row)."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.partitions is not None and self.days is not None:
            raise ValueError("give partitions or days, not both")
        return self


class Holdout(Part):
    """Rows that are judged on and never trained on: the newest window of time, or a share of the rows or groups."""

    by: Literal["time", "hash", "group"] = "time"
    """time: the newest days. hash: rows at random, the same ones each time. group: all rows of some groups."""
    days: float = Field(default=7, gt=0)
    """time: how long the newest window is."""
    fraction: float = Field(default=0.2, gt=0, le=0.5)
    """hash and group: the share of the rows or groups."""
    column: str | None = None
    """group: the column that names the group, for example a customer."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.column is not None) != (self.by == "group"):
            raise ValueError("column belongs to `by: group`, and `by: group` needs a column")
        wrong = "fraction" if self.by == "time" else "days"
        if wrong in self.model_fields_set:
            raise ValueError(f"{wrong} says nothing about a holdout by {self.by}")
        return self


class Validation(Part):
    """Rows that only decide when to stop: neither trained on nor judged on."""

    fraction: float = Field(default=0.1, gt=0, lt=0.5)
    """The share of the training rows, at random and always the same ones (whole groups if the holdout is by group)."""
    days: float | None = Field(default=None, gt=0)
    """Instead: the newest days before the holdout, for data that drifts."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.days is not None and "fraction" in self.model_fields_set:
            raise ValueError("give fraction or days, not both")
        return self


class Training(Part):
    """How LightGBM is run."""

    seed: int = Field(default=7, ge=0)
    objective: Objective | None = None
    """The loss. By default binary, multiclass or regression (squares), as the task is."""
    boosting: Literal["gbdt", "dart", "rf"] = "gbdt"
    """dart uses every round; rf needs bagging_fraction and bagging_freq among the parameters."""
    rounds: int = Field(default=300, ge=1, le=10_000)
    early_stopping: int = Field(default=30, ge=1)
    """Rounds without progress on the validation rows after which training stops."""
    minimum_rows: int = Field(default=500, ge=10)
    """Fewer training rows than this make no model."""
    half_life_days: float | None = Field(default=None, gt=0)
    """A training row counts half as much for every so many days that it is older than the newest one."""
    class_weights: Annotated[Literal["balanced"] | Mapping[str, float] | None, BeforeValidator(_by_class)] = None
    """How much a row counts by its class; balanced: every class as much as any other."""
    monotone: Mapping[str, Literal["increasing", "decreasing"]] = Field(default_factory=dict)
    """Features that the prediction may only rise or only fall with."""
    parameters: Mapping[str, bool | int | float | str] = Field(default_factory=dict)
    """LightGBM's parameters, by any of their names, except for what cannot be exported exactly."""

    @field_validator("objective", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if isinstance(value, str):
            check_objective(value)
        return value

    @field_validator("parameters")
    @classmethod
    def _exportable(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        check_values(canonical(value))
        return value

    @field_validator("class_weights")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and not all(weight > 0 for weight in value.values()):
            raise ValueError("a class's weight is above zero")
        return value


class Quality(Part):
    """When a file as a whole is rejected."""

    maximum_bad_rows: float = Field(default=0.05, ge=0, le=1)
    """Largest share of quarantined rows that a file may have."""


class Gate(Part):
    """What a challenger has to show before it may replace the champion."""

    metric: Metric | None = None
    """What decides. By default auc (binary), log_loss (multiclass), and of a regression what it is trained for."""
    minimum_auc: float | None = Field(default=None, ge=0, le=1)
    """binary: the AUC on the unseen rows has to be at least this; short for `minimum: {auc: ...}`. Without a
    bound for the deciding metric, a model has to beat the same answer for every row, with the given confidence where
    there is no champion to beat."""
    minimum: Mapping[Metric, float] = Field(default_factory=dict)
    """Metrics that have to be at least so high."""
    maximum: Mapping[Metric, float] = Field(default_factory=dict)
    """Metrics (losses and errors) that may be at most so high."""
    improvement: float = Field(default=0.0)
    """The metric's gain over the champion must exceed this with the given confidence."""
    confidence: float = Field(default=0.9, ge=0.5, lt=1)
    """One-sided confidence of the gain (paired bootstrap)."""
    minimum_rows: int = Field(default=200, ge=1)
    """Fewer unseen rows than this decide nothing: the champion stays."""
    slice_loss: float | None = Field(default=None, ge=0)
    """In no slice with enough rows may the metric be worse than the champion's by more than this."""
    slice_minimum_rows: int = Field(default=200, ge=1)
    """Slices with fewer unseen rows are reported, but decide nothing."""
    maximum_latency_ms: float = Field(default=5.0, gt=0)
    """Largest p99 of one row through the graph, in milliseconds."""
    maximum_size_mb: float = Field(default=50.0, gt=0)
    """Largest size of the graph, in megabytes."""


class Schedule(Part):
    """Retraining by the clock, beside what uploads bring about."""

    hours: float = Field(ge=0.25, le=8_784)
    """A run is forced when the latest one ended so long ago, also without new data."""


class Quiet(Part):
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


class Requests(Part):
    """What a prediction request may have too much and leave out. A model's version keeps what held when it was made."""

    unknown_columns: UnknownColumns = "error"
    """A column that the model does not take: an error, or ignored."""
    missing_columns: MissingColumns = "missing"
    """A column that the request does not have: a missing value, as a null is, or an error."""
