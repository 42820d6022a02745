"""An uploaded file to a clean partition: typed feature columns, label and time; the rest with a reason per row.

A row is either clean or rejected, never lost. A file that cannot be used as a whole is a PartitionRejected.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import polars as pl

from models.cells import MICROSECONDS, Problem, TypedColumn, as_text, read_column
from models.expressions import check_expressions, evaluate_over
from models.folds import group_folds
from models.labels import LABEL, class_texts, read_labels
from models.reading import REASON, ROW, PartitionRejected, read_rows
from models.spec import PipelineSpec

__all__ = ["LABEL", "CleanPartition", "clean_partition", "from_parquet", "to_parquet"]

MIN_ROWS_TO_COMPARE = 3
"""Fewer rows do not show what a column's values look like."""
TIME = "__time"
WEIGHT = "__weight"
GROUP = "__group"
_LARGEST_WEIGHT = 1e30
"""LightGBM sums weights in float32 and float64; beyond this they are a mistake."""


@dataclass(frozen=True, slots=True)
class CleanPartition:
    """What became of a file's rows.

    `frame`: the spec's inputs in order, then what else it carries (number, integer, boolean: Float64 with null for
    missing; timestamp: the same in seconds since 1970 UTC; category, text: String with '' for missing), then `__label`
    (as in models.labels), `__time` (Float64, seconds since 1970 UTC, 0 without one), and, if the spec has them,
    `__weight` (Float64) and `__group` (Float64 in [0, 1), the same for all rows of a group).
    `rejected`: `__row` (UInt32, the row's number in the file from 1), `__reason` (String), then the row as it was read.
    `reasons`: how many rows each kind of reason applies to, most frequent first; a row may have several.
    `left_out`: rows for which the spec's filter is not true; they are in neither frame.
    """

    frame: pl.DataFrame
    rejected: pl.DataFrame
    rows_read: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    left_out: int = 0


def clean_partition(data: bytes, *, name: str, spec: PipelineSpec, latest: datetime | None = None) -> CleanPartition:
    """The clean and the rejected rows of the file `name` (.csv, .csv.gz, .parquet or .jsonl) with content `data`.

    Rows later than `latest` are rejected: one that lies in the future would be the newest for ever, and so the only one
    to judge by.
    Raises PartitionRejected when the file cannot be used as a whole, SpecError when an expression of the spec can
    be evaluated over no file at all.
    """
    check_expressions(spec)
    raw, fields = read_rows(data, name=name, columns=list(spec.columns))
    typed = {column: read_column(raw[column], column, rule) for column, rule in spec.columns.items()}
    label, problems = read_labels(typed, spec, name=name)
    problems += [problem for column in typed.values() for problem in column.problems]
    problems += [
        *_times(typed, raw, spec, latest),
        *_weights(typed, raw, spec),
        *_groups(typed, spec),
        *_ragged(raw, fields),
        *_cut_off(raw, data, name, spec),
    ]
    out = _left_out(typed, name, spec)
    partition = _partition(raw, typed, label, [_within(problem, ~out) for problem in problems], out, spec)
    share = partition.rejected.height / partition.rows_read
    if share > spec.quality.maximum_bad_rows:
        raise _too_many(name, partition, spec)
    return partition


def to_parquet(frame: pl.DataFrame) -> bytes:
    """The frame as Parquet; equal frames give equal bytes."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", compression_level=3, statistics=False)
    return buffer.getvalue()


def from_parquet(data: bytes) -> pl.DataFrame:
    """The frame that `to_parquet` wrote."""
    return pl.read_parquet(io.BytesIO(data))


def _left_out(typed: Mapping[str, TypedColumn], name: str, spec: PipelineSpec) -> pl.Series:
    """Boolean [N]: rows that the filter leaves out. One that it cannot judge, for a wrong cell, is not among them."""
    rows = next(iter(typed.values())).values.len()
    if spec.filter is None:
        return pl.zeros(rows, pl.Boolean, eager=True)
    expression = pl.sql_expr(spec.filter)
    kept = evaluate_over(typed, expression, name=name, what="filter", code="filter_failed")
    out = ~kept.fill_null(value=False)
    for root in expression.meta.root_names():
        out = out & ~(kept.is_null() & typed[root].wrong)
    return out


def _within(problem: Problem, rows: pl.Series) -> Problem:
    return replace(problem, rows=problem.rows & rows)


def _weights(typed: Mapping[str, TypedColumn], raw: pl.DataFrame, spec: PipelineSpec) -> list[Problem]:
    if spec.weight is None:
        return []
    name, column = spec.weight, typed[spec.weight]
    outside = ((column.values < 0) | (column.values > _LARGEST_WEIGHT)).fill_null(value=False)
    return [
        Problem(f"{name}: missing", column.missing, f"{name}: missing, so the row has no weight"),
        Problem(f"{name}: no weight", outside, f"{name}: ", as_text(raw[name]), " is no weight"),
    ]


def _groups(typed: Mapping[str, TypedColumn], spec: PipelineSpec) -> list[Problem]:
    name = spec.holdout.column
    if name is None:
        return []
    return [Problem(f"{name}: missing", typed[name].missing, f"{name}: missing, so the row belongs to no group")]


def _times(
    typed: Mapping[str, TypedColumn], raw: pl.DataFrame, spec: PipelineSpec, latest: datetime | None
) -> list[Problem]:
    name = spec.time
    if name is None:
        return []
    missing = Problem(f"{name}: missing", typed[name].missing, f"{name}: missing, so the row has no time")
    return [missing] if latest is None else [missing, _future(raw[name], typed[name], name, latest)]


def _future(raw: pl.Series, column: TypedColumn, name: str, latest: datetime) -> Problem:
    late = (column.values > latest.astimezone(UTC).replace(tzinfo=None)).fill_null(value=False)
    return Problem(f"{name}: in the future", late, f"{name}: ", as_text(raw), " is in the future")


def _ragged(raw: pl.DataFrame, fields: pl.Series | None) -> list[Problem]:
    if fields is None:
        return []
    after = f" fields, but the header has {raw.width}"
    return [Problem("line: wrong number of fields", fields.is_not_null(), "line: ", fields.cast(pl.String), after)]


def _cut_off(raw: pl.DataFrame, data: bytes, name: str, spec: PipelineSpec) -> list[Problem]:
    """A CSV's last row, when its line has no end and its last cell seems to be the beginning of one.

    A boolean, category or text that no other row has and that others begin with ("f" among "false"), a timestamp that
    is shorter than all others. A number that lost its last digits looks like any other: that cannot be told.
    """
    column = raw.columns[-1]
    if column not in spec.columns or raw.height < MIN_ROWS_TO_COMPARE or not name.lower().endswith(".csv"):
        return []
    last, others = raw[column][-1], raw[column][:-1].drop_nulls()
    if data.endswith((b"\n", b"\r")) or not last or others.is_empty():
        return []
    kind = spec.columns[column].type
    begun = others.str.starts_with(last) & (others != last)
    if kind == "timestamp":
        cut = len(last) < int(others.str.len_chars().min() or 0)  # type: ignore[arg-type]
    else:
        cut = kind in {"boolean", "category", "text"} and last not in others and bool(begun.any())
    if not cut:
        return []
    rows = pl.zeros(raw.height, pl.Boolean, eager=True)
    rows[-1] = True
    return [Problem("line: cut off", rows, "line: it has no end, and ", as_text(raw[column]), " looks cut off")]


def _partition(
    raw: pl.DataFrame,
    typed: Mapping[str, TypedColumn],
    label: pl.Series,
    every: Sequence[Problem],
    out: pl.Series,
    spec: PipelineSpec,
) -> CleanPartition:
    problems = [problem for problem in every if problem.rows.any()]
    bad = pl.zeros(raw.height, pl.Boolean, eager=True)
    for problem in problems:
        bad = bad | problem.rows
    kept = [_kept(typed[name].values, name) for name in (*spec.inputs, *spec.carried)]
    # Without a time all rows are equally old.
    time = pl.zeros(raw.height, pl.Float64, eager=True) if spec.time is None else _kept(typed[spec.time].values, TIME)
    frame = pl.DataFrame([*kept, label, time.alias(TIME), *_extras(typed, spec)]).filter(~bad & ~out)
    reasons = _reasons(problems, bad)
    rows = pl.int_range(1, raw.height + 1, dtype=pl.UInt32, eager=True).alias(ROW).filter(bad)
    # A quarantine file that was mended and uploaded again carries these two; the new ones are meant.
    rejected = raw.drop(ROW, REASON, strict=False).filter(bad).select(rows, reasons, pl.all())
    counts: dict[str, int] = {}
    for problem in problems:
        counts[problem.key] = counts.get(problem.key, 0) + int(problem.rows.sum())
    ordered = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return CleanPartition(frame, rejected, raw.height, ordered, int(out.sum()))


def _kept(values: pl.Series, name: str) -> pl.Series:
    """As clean partitions have it: numbers as they are, times in seconds, texts without null."""
    if values.dtype == pl.String:
        return values.fill_null("").alias(name)
    if isinstance(values.dtype, pl.Datetime):
        return (values.cast(pl.Int64).cast(pl.Float64) / MICROSECONDS).alias(name)
    return values.cast(pl.Float64).alias(name)


def _extras(typed: Mapping[str, TypedColumn], spec: PipelineSpec) -> list[pl.Series]:
    extras = []
    if spec.weight is not None:
        extras.append(typed[spec.weight].values.cast(pl.Float64).alias(WEIGHT))
    if spec.holdout.column is not None:
        extras.append(group_folds(class_texts(typed[spec.holdout.column].values)).alias(GROUP))
    return extras


def _reasons(problems: Sequence[Problem], bad: pl.Series) -> pl.Series:
    """String, one for each bad row: all its reasons."""
    if not problems:
        return pl.Series(REASON, [], pl.String)
    texts = [problem.texts(bad).alias(str(index)) for index, problem in enumerate(problems)]
    joined = pl.concat_str(pl.all(), separator="; ", ignore_nulls=True)
    return pl.DataFrame(texts).select(joined.alias(REASON)).to_series()


def _too_many(name: str, partition: CleanPartition, spec: PipelineSpec) -> PartitionRejected:
    bad, rows = partition.rejected.height, partition.rows_read
    frequent = "; ".join(f"{reason} ({count} rows)" for reason, count in list(partition.reasons.items())[:3])
    return PartitionRejected(
        name,
        "too_many_bad_rows",
        f"has {bad} bad rows of {rows} ({bad / rows:.1%}; the pipeline allows {spec.quality.maximum_bad_rows:.1%}): "
        f"{frequent}",
        columns=sorted({reason.partition(":")[0] for reason in partition.reasons} & set(spec.columns)),
        partition=partition,
    )
