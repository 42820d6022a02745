"""An uploaded file to a clean partition: typed feature columns, label and time; the rest with a reason per row.

A row is either clean or rejected, never lost. A file that cannot be used as a whole is a PartitionRejected.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import polars as pl

from models.cells import MICROSECONDS, Problem, TypedColumn, as_text, read_column
from models.errors import bounded
from models.reading import REASON, ROW, PartitionRejected, read_rows
from models.spec import ColumnType, PipelineSpec, SpecError

MIN_ROWS_TO_COMPARE = 3
"""Fewer rows do not show what a column's values look like."""
LABEL = "__label"
TIME = "__time"

_TYPES: Mapping[ColumnType, pl.DataType] = {
    "number": pl.Float64(),
    "integer": pl.Float64(),
    "boolean": pl.Boolean(),
    "category": pl.String(),
    "timestamp": pl.Datetime("us"),
    "text": pl.String(),
}
"""What a label expression sees of a column."""


@dataclass(frozen=True, slots=True)
class CleanPartition:
    """What became of a file's rows.

    `frame`: the spec's features in order (number, integer, boolean: Float64 with null for missing; category: String
    with '' for missing), then `__label` (UInt8, 0 or 1) and `__time` (Float64, seconds since 1970 UTC).
    `rejected`: `__row` (UInt32, the row's number in the file from 1), `__reason` (String), then the row as it was read.
    `reasons`: how many rows each kind of reason applies to, most frequent first; a row may have several.
    """

    frame: pl.DataFrame
    rejected: pl.DataFrame
    rows_read: int
    reasons: Mapping[str, int] = field(default_factory=dict)


def clean_partition(data: bytes, *, name: str, spec: PipelineSpec, latest: datetime | None = None) -> CleanPartition:
    """The clean and the rejected rows of the file `name` (.csv, .csv.gz, .parquet or .jsonl) with content `data`.

    Rows later than `latest` are rejected: one that lies in the future would be the newest for ever, and so the only one
    to judge by.
    Raises PartitionRejected when the file cannot be used as a whole, SpecError when the label's expression can be
    evaluated over no file at all.
    """
    check_label(spec)
    raw, fields = read_rows(data, name=name, columns=list(spec.columns))
    typed = {column: read_column(raw[column], column, rule) for column, rule in spec.columns.items()}
    label, problems = _label(typed, name, spec)
    problems += [problem for column in typed.values() for problem in column.problems]
    no_time = typed[spec.time].missing
    problems.append(Problem(f"{spec.time}: missing", no_time, f"{spec.time}: missing, so the row has no time"))
    if latest is not None:
        problems.append(_future(raw[spec.time], typed[spec.time], spec.time, latest))
    problems += _ragged(raw, fields)
    problems += _cut_off(raw, data, name, spec)
    partition = _partition(raw, typed, label, [problem for problem in problems if problem.rows.any()], spec)
    share = partition.rejected.height / partition.rows_read
    if share > spec.quality.maximum_bad_rows:
        raise _too_many(name, partition, spec)
    return partition


def check_label(spec: PipelineSpec, *, source: str | None = None, line: int = 0) -> None:
    """Tries the label's expression on no rows. Raises SpecError at `source`:`line` when it cannot be evaluated."""
    if spec.label.expression is None:
        return
    source = source or f"{spec.name}.yaml"
    empty = pl.DataFrame(schema={name: _TYPES[column.type] for name, column in spec.columns.items()})
    try:
        result = empty.select(label=_expression(spec))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        problem = f"cannot be evaluated over the columns: {bounded(exc, 200)}"
        raise SpecError(source, line, "label.expression", problem) from exc
    dtype = result.schema["label"]
    if dtype != pl.Boolean and not dtype.is_numeric():
        raise SpecError(source, line, "label.expression", f"gives {dtype}; it has to give true or false")
    if result.height or _looks_at_other_rows(spec):
        raise SpecError(source, line, "label.expression", "looks at several rows; a row's label has to be its own")


def to_parquet(frame: pl.DataFrame) -> bytes:
    """The frame as Parquet; equal frames give equal bytes."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", compression_level=3, statistics=False)
    return buffer.getvalue()


def from_parquet(data: bytes) -> pl.DataFrame:
    """The frame that `to_parquet` wrote."""
    return pl.read_parquet(io.BytesIO(data))


def _expression(spec: PipelineSpec) -> pl.Expr:
    return pl.col(spec.label.column) if spec.label.column is not None else pl.sql_expr(spec.label.expression or "")


def _looks_at_other_rows(spec: PipelineSpec) -> bool:
    """Whether made-up rows get other labels together than alone, as with an average or a row number.

    Such a label would depend on which rows were uploaded in one file. (Polars' own answer, `is_row_separable`, is not
    about broadcast aggregates.)
    """
    numbers: list[object] = [0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, None]
    made_up: Mapping[pl.DataType, list[object]] = {
        pl.Float64(): numbers,
        pl.Boolean(): [True, False, None, True, False, None, True, False],
        pl.String(): ["", "a", "b", "c", "d", "e", "f", None],
        pl.Datetime("us"): [None, *range(0, 7 * 10**15, 10**15)],
    }
    types = {name: _TYPES[column.type] for name, column in spec.columns.items()}
    rows = pl.DataFrame({name: pl.Series(made_up[dtype]).cast(dtype) for name, dtype in types.items()})
    label = _expression(spec).alias("label")
    try:
        together = rows.select(label).to_series().to_list()
        alone = [rows[index].select(label).item() for index in range(rows.height)]
    except pl.exceptions.PolarsError:
        return False  # It cannot take these values (a text that is to be a date), which says nothing of other rows.
    return together != alone


def _label(typed: Mapping[str, TypedColumn], name: str, spec: PipelineSpec) -> tuple[pl.Series, list[Problem]]:
    """UInt8 [N] with null where a row has no label, and why it has none."""
    expression = _expression(spec)
    columns = pl.DataFrame({name: column.values for name, column in typed.items()})
    try:
        values = columns.select(label=expression).to_series()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        problem = f"has rows for which the label's expression cannot be evaluated: {bounded(exc, 200)}"
        raise PartitionRejected(name, "label_failed", problem) from exc
    label = values.cast(pl.Float64)
    none = label.is_null() | label.is_nan().fill_null(value=True)
    strange = ~none & ~label.is_in([0.0, 1.0])
    shown = values.cast(pl.String)
    problems = [Problem("label: neither 0 nor 1", strange, "label: ", shown, " is neither 0 nor 1")]
    explained = pl.zeros(label.len(), pl.Boolean, eager=True)
    for root in dict.fromkeys(expression.meta.root_names()):
        column = typed[root]
        problems.append(Problem(f"{root}: missing", none & column.missing, f"{root}: missing, so there is no label"))
        explained = explained | column.missing | column.wrong
    problems.append(Problem("label: no value", none & ~explained, "label: its expression gives no value for this row"))
    return label.set(none | strange, None).cast(pl.UInt8).alias(LABEL), problems


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
    problems: Sequence[Problem],
    spec: PipelineSpec,
) -> CleanPartition:
    bad = pl.zeros(raw.height, pl.Boolean, eager=True)
    for problem in problems:
        bad = bad | problem.rows
    features = [_feature(typed[name].values, name, spec) for name in spec.features]
    time = typed[spec.time].values.cast(pl.Int64).cast(pl.Float64) / MICROSECONDS
    frame = pl.DataFrame([*features, label, time.alias(TIME)]).filter(~bad)
    reasons = _reasons(problems, bad)
    rows = pl.int_range(1, raw.height + 1, dtype=pl.UInt32, eager=True).alias(ROW).filter(bad)
    # A quarantine file that was mended and uploaded again carries these two; the new ones are meant.
    rejected = raw.drop(ROW, REASON, strict=False).filter(bad).select(rows, reasons, pl.all())
    counts: dict[str, int] = {}
    for problem in problems:
        counts[problem.key] = counts.get(problem.key, 0) + int(problem.rows.sum())
    ordered = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return CleanPartition(frame, rejected, raw.height, ordered)


def _feature(values: pl.Series, name: str, spec: PipelineSpec) -> pl.Series:
    if spec.columns[name].type == "category":
        return values.fill_null("").alias(name)
    return values.cast(pl.Float64).alias(name)


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
