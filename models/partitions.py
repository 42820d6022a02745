"""An uploaded file to clean partitions: typed feature columns, label and time; the rest with a reason per row.

A row is either clean or rejected, never lost. A file that cannot be used as a whole is a PartitionRejected. A file
comes piece after piece, so that a huge one takes no more memory than a small one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from models.cells import MICROSECONDS, Problem, TypedColumn, as_text, read_columns
from models.cut_off import cut_off
from models.expressions import check_expressions, evaluate_over
from models.folds import group_folds
from models.labels import LABEL, class_texts, read_labels
from models.reading import REASON, ROW, Batch, read_batches
from models.rejection import PartitionRejected
from models.spec import PipelineSpec

__all__ = ["LABEL", "CleanPartition", "Tally", "clean_partition", "clean_pieces"]

TIME = "__time"
WEIGHT = "__weight"
GROUP = "__group"
SAMPLE_ROWS = 5
"""Rejected rows that a report shows."""
_LARGEST_WEIGHT = 1e30
"""LightGBM sums weights in float32 and float64; beyond this they are a mistake."""


@dataclass(frozen=True, slots=True)
class CleanPartition:
    """What became of a file's rows, or of some consecutive ones.

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


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of a file's rows, in numbers; `reasons` and `left_out` as in CleanPartition.

    `sample` has the first SAMPLE_ROWS of `rejected`; None before any piece was counted.
    """

    rows_read: int = 0
    clean: int = 0
    rejected: int = 0
    left_out: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    sample: pl.DataFrame | None = None

    def plus(self, piece: CleanPartition) -> Tally:
        """The same with the file's next rows."""
        counts = dict(self.reasons)
        for reason, rows in piece.reasons.items():
            counts[reason] = counts.get(reason, 0) + rows
        shown = [piece.rejected] if self.sample is None else [self.sample, piece.rejected]
        return Tally(
            self.rows_read + piece.rows_read,
            self.clean + piece.frame.height,
            self.rejected + piece.rejected.height,
            self.left_out + piece.left_out,
            _most_frequent_first(counts),
            pl.concat([rows.head(SAMPLE_ROWS) for rows in shown]).head(SAMPLE_ROWS),
        )


def clean_partition(data: bytes, *, name: str, spec: PipelineSpec, latest: datetime | None = None) -> CleanPartition:
    """The pieces of `clean_pieces` as one, of a file with the content `data` that fits into memory."""
    with tempfile.TemporaryDirectory(prefix="ratchet-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "upload"
        file.write_bytes(data)
        pieces = list(clean_pieces(file, name=name, spec=spec, latest=latest))
    tally = Tally()
    for piece in pieces:
        tally = tally.plus(piece)
    frame, rejected = pl.concat([piece.frame for piece in pieces]), pl.concat([piece.rejected for piece in pieces])
    return CleanPartition(frame, rejected, tally.rows_read, tally.reasons, tally.left_out)


def clean_pieces(
    file: Path, *, name: str, spec: PipelineSpec, latest: datetime | None = None
) -> Iterator[CleanPartition]:
    """The clean and the rejected rows of an upload, consecutive rows at a time, in the file's order.

    `name` (.csv, .csv.gz, .parquet or .jsonl) says what the file is. Rows later than `latest` are rejected: one that
    lies in the future would be the newest for ever, and so the only one to judge by.
    Raises PartitionRejected when the file cannot be used as a whole, which may show only after its last piece;
    SpecError when an expression of the spec can be evaluated over no file at all.
    """
    check_expressions(spec)
    tally, earlier = Tally(), 0
    batches = read_batches(file, name=name, columns=list(spec.columns))
    batch = next(batches)
    while True:
        following = next(batches, None)
        problems = cut_off(batch.rows, file, earlier, name, spec) if following is None else []
        piece = _piece(batch, problems, tally.rows_read, name=name, spec=spec, latest=latest)
        tally, earlier = tally.plus(piece), earlier + 1
        yield piece
        if following is None:
            break
        batch = following
    if tally.rejected / tally.rows_read > spec.quality.maximum_bad_rows:
        raise _too_many(name, tally, spec)


def _piece(
    batch: Batch,
    problems: list[Problem],
    before: int,
    *,
    name: str,
    spec: PipelineSpec,
    latest: datetime | None,
) -> CleanPartition:
    """The rows of one batch, `before` which the file has so many."""
    raw = batch.rows
    typed = read_columns(raw, spec.columns)
    label, every = read_labels(typed, spec, name=name)
    every += [problem for column in typed.values() for problem in column.problems]
    every += [
        *_times(typed, raw, spec, latest),
        *_weights(typed, raw, spec),
        *_groups(typed, spec),
        *_ragged(raw, batch.fields),
        *problems,
    ]
    out = _left_out(typed, name, spec)
    return _partition(raw, typed, label, [_within(problem, ~out) for problem in every], out, spec, before)


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


def _partition(
    raw: pl.DataFrame,
    typed: Mapping[str, TypedColumn],
    label: pl.Series,
    every: Sequence[Problem],
    out: pl.Series,
    spec: PipelineSpec,
    before: int,
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
    first = before + 1
    rows = pl.int_range(first, first + raw.height, dtype=pl.UInt32, eager=True).alias(ROW).filter(bad)
    # A quarantine file that was mended and uploaded again carries these two; the new ones are meant.
    rejected = raw.drop(ROW, REASON, strict=False).filter(bad).select(rows, reasons, pl.all())
    counts: dict[str, int] = {}
    for problem in problems:
        counts[problem.key] = counts.get(problem.key, 0) + int(problem.rows.sum())
    return CleanPartition(frame, rejected, raw.height, _most_frequent_first(counts), int(out.sum()))


def _most_frequent_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _kept(values: pl.Series, name: str) -> pl.Series:
    """As clean partitions have it: numbers as they are, times in seconds, texts without null."""
    if values.dtype == pl.String:
        return (values.fill_null("") if values.null_count() else values).alias(name)
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


def _too_many(name: str, tally: Tally, spec: PipelineSpec) -> PartitionRejected:
    bad, rows = tally.rejected, tally.rows_read
    frequent = "; ".join(f"{reason} ({count} rows)" for reason, count in list(tally.reasons.items())[:3])
    return PartitionRejected(
        name,
        "too_many_bad_rows",
        f"has {bad} bad rows of {rows} ({bad / rows:.1%}; the pipeline allows {spec.quality.maximum_bad_rows:.1%}): "
        f"{frequent}",
        columns=sorted({reason.partition(":")[0] for reason in tally.reasons} & set(spec.columns)),
        tally=tally,
    )
