"""Conditions and labels in Polars SQL over the raw columns: tried when a pipeline's file is read, run on its rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import polars as pl

from models.cells import TypedColumn
from models.errors import bounded
from models.rejection import PartitionRejected, RejectionCode
from models.spec import ColumnType, PipelineSpec, SpecError, line_of

_TYPES: Mapping[ColumnType, pl.DataType] = {
    "number": pl.Float64(),
    "integer": pl.Float64(),
    "boolean": pl.Boolean(),
    "category": pl.String(),
    "timestamp": pl.Datetime("us"),
    "text": pl.String(),
}
"""What an expression sees of a column."""
_MADE_UP: Mapping[pl.DataType, tuple[list[object], ...]] = {
    pl.Float64(): ([0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, None],),
    pl.Boolean(): ([True, False, None, True, False, None, True, False],),
    pl.String(): (
        ["", "a", "b", "c", "d", "e", "f", None],
        ["0", "1", "3", "10", "30", "100", "300", None],
        [None, *(f"2026-0{month}-1{month}" for month in range(1, 8))],
    ),
    pl.Datetime("us"): ([None, *range(0, 7 * 10**15, 10**15)],),
}
"""Rows to try an expression on; texts of several kinds, because some can be cast and others cannot."""
_CLOCKS = re.compile(r"\b(current_(?:date|time|timestamp)|local(?:time|timestamp))\b|\b(now)\b\W?\s*\(", re.IGNORECASE)
"""What Polars SQL reads the clock by. In the parsed expression it is a time like any other."""
_NO_CODE = re.compile(r"""'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/|"[^"]*"(?!\s*\()|`[^`]*`(?!\s*\()""", re.DOTALL)
"""Texts, comments and quoted names of columns."""


def label_expression(spec: PipelineSpec) -> pl.Expr:
    """The label as an expression over the typed columns."""
    return pl.col(spec.label.column) if spec.label.column is not None else pl.sql_expr(spec.label.expression or "")


def check_expressions(spec: PipelineSpec, *, source: str | None = None, text: str = "") -> None:
    """Tries the label's expression and the filter.

    Raises SpecError, at the line of `text` (the pipeline's file `source`), when one cannot be evaluated, or gives a row
    anything that hangs on other rows or on the clock.
    """
    for field, expression in (("label.expression", spec.label.expression), ("filter", spec.filter)):
        if expression is not None:
            problem = _problem(expression, field, spec)
            if problem:
                line = line_of(text, field) if text else 0
                raise SpecError(source or f"{spec.name}.yaml", line, field, problem)


def evaluate_over(
    columns: Mapping[str, TypedColumn], expression: pl.Expr, *, name: str, what: str, code: RejectionCode
) -> pl.Series:
    """The expression's value for each row of the file `name`. Raises PartitionRejected for a file it fails on."""
    frame = pl.DataFrame({column: typed.values for column, typed in columns.items()})
    try:
        return evaluate(frame, expression)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        problem = f"has rows for which the {what} cannot be evaluated: {bounded(exc, 200)}"
        raise PartitionRejected(name, code, problem) from exc


def evaluate(frame: pl.DataFrame, expression: pl.Expr) -> pl.Series:
    """The expression's value for each row of `frame`. Raises what Polars raises."""
    # Polars rounds a quotient otherwise where a column, or a chunk of it, is one row: x / 3 there, else x * (1 / 3).
    rows = pl.concat([frame, frame.clear(1)]) if frame.height == 1 else frame
    return rows.rechunk().select(result=expression).to_series().head(frame.height)


def _problem(text: str, field: str, spec: PipelineSpec) -> str:
    """What is wrong with an expression, or ''."""
    empty = pl.DataFrame(schema=_schema(spec))
    try:
        expression = pl.sql_expr(text)
        result = empty.select(result=expression)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        return f"cannot be evaluated over the columns: {bounded(exc, 200)}"
    what = "filter" if field == "filter" else "label"
    if clock := _CLOCKS.search(_NO_CODE.sub(" ", text)):
        return f"asks what time it is ({clock[1] or clock[2]}); a row's {what} has to be the same whenever it is made"
    if expression.meta.has_multiple_outputs():
        return "names columns by a pattern; name them one by one"
    if any(_looks_at_other_rows(node, spec) for node in _nodes(expression, spec)):
        return f"looks at several rows; a row's {what} has to be its own"
    if not expression.meta.root_names():
        return "reads no column, so it is the same for every row"
    dtype = result.schema["result"]
    if not _fits(dtype, field, spec):
        wanted = "true or false" if field == "filter" or spec.task == "binary" else _WANTED[spec.task]
        return f"gives {dtype}; it has to give {wanted}"
    return ""


_WANTED = {"multiclass": "a class's name", "regression": "a number"}


def _fits(dtype: pl.DataType, field: str, spec: PipelineSpec) -> bool:
    if field == "filter":
        return dtype == pl.Boolean
    if spec.task == "binary":
        return dtype == pl.Boolean or dtype.is_numeric()
    if spec.task == "regression":
        return dtype.is_numeric()
    return dtype in {pl.String, pl.Boolean} or dtype.is_numeric()


def _schema(spec: PipelineSpec) -> dict[str, pl.DataType]:
    return {name: _TYPES[column.type] for name, column in spec.columns.items()}


def _nodes(expression: pl.Expr, spec: PipelineSpec) -> Iterator[pl.Expr]:
    """The expression and everything that it is made of."""
    schema, waiting = _schema(spec), [expression]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.meta.pop(schema=schema)


def _looks_at_other_rows(node: pl.Expr, spec: PipelineSpec) -> bool:
    """Whether one operation gives a row another value beside other rows than alone, as an average or a row number does.

    Such a value would depend on which rows were uploaded in one file, and on how a large file is cut.
    """
    if node.meta.is_literal():
        return False
    try:
        return not (node.meta.is_row_separable() and node.meta.is_known_length())
    except pl.exceptions.ColumnNotFoundError:
        # Polars only tells once it knows the columns' types, which it cannot be told here.
        return any(_differs_alone(node, rows) for rows in _made_up(spec))


def _made_up(spec: PipelineSpec) -> Iterator[pl.DataFrame]:
    for kind in range(max(map(len, _MADE_UP.values()))):
        columns = {name: (dtype, _MADE_UP[dtype]) for name, dtype in _schema(spec).items()}
        yield pl.DataFrame(
            {name: pl.Series(values[kind % len(values)]).cast(dtype) for name, (dtype, values) in columns.items()}
        )


def _differs_alone(node: pl.Expr, rows: pl.DataFrame) -> bool:
    """Whether the rows get other values together than alone; not where the operation cannot take them."""
    try:
        together = evaluate(rows, node).to_list()
        alone = [evaluate(rows[index], node).item() for index in range(rows.height)]
    except pl.exceptions.PolarsError:
        return False
    # As texts, because NaN (of a zero divided by zero) is not equal to itself.
    return str(together) != str(alone)
