"""Conditions and labels in Polars SQL over the raw columns: tried when a pipeline's file is read, run on its rows."""

from __future__ import annotations

from collections.abc import Mapping

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
_MADE_UP: Mapping[pl.DataType, list[object]] = {
    pl.Float64(): [0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, None],
    pl.Boolean(): [True, False, None, True, False, None, True, False],
    pl.String(): ["", "a", "b", "c", "d", "e", "f", None],
    pl.Datetime("us"): [None, *range(0, 7 * 10**15, 10**15)],
}


def label_expression(spec: PipelineSpec) -> pl.Expr:
    """The label as an expression over the typed columns."""
    return pl.col(spec.label.column) if spec.label.column is not None else pl.sql_expr(spec.label.expression or "")


def check_expressions(spec: PipelineSpec, *, source: str | None = None, text: str = "") -> None:
    """Tries the label's expression and the filter on no rows.

    Raises SpecError, at the line of `text` (the pipeline's file `source`), when one cannot be evaluated.
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
        return frame.select(result=expression).to_series()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        problem = f"has rows for which the {what} cannot be evaluated: {bounded(exc, 200)}"
        raise PartitionRejected(name, code, problem) from exc


def _problem(text: str, field: str, spec: PipelineSpec) -> str:
    """What is wrong with an expression, or ''."""
    empty = pl.DataFrame(schema={name: _TYPES[column.type] for name, column in spec.columns.items()})
    try:
        expression = pl.sql_expr(text)
        result = empty.select(result=expression)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as exc:
        return f"cannot be evaluated over the columns: {bounded(exc, 200)}"
    dtype = result.schema["result"]
    wanted = "true or false" if field == "filter" or spec.task == "binary" else _WANTED[spec.task]
    if not _fits(dtype, field, spec):
        return f"gives {dtype}; it has to give {wanted}"
    if result.height or _looks_at_other_rows(expression, spec):
        return f"looks at several rows; a row's {'filter' if field == 'filter' else 'label'} has to be its own"
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


def _looks_at_other_rows(expression: pl.Expr, spec: PipelineSpec) -> bool:
    """Whether made-up rows get other values together than alone, as with an average or a row number.

    Such a value would depend on which rows were uploaded in one file. (Polars' own answer, `is_row_separable`, is not
    about broadcast aggregates.)
    """
    types = {name: _TYPES[column.type] for name, column in spec.columns.items()}
    rows = pl.DataFrame({name: pl.Series(_MADE_UP[dtype]).cast(dtype) for name, dtype in types.items()})
    value = expression.alias("value")
    try:
        together = rows.select(value).to_series().to_list()
        alone = [rows[index].select(value).item() for index in range(rows.height)]
    except pl.exceptions.PolarsError:
        return False  # It cannot take these values (a text that is to be a date), which says nothing of other rows.
    # As texts, because NaN (of a zero divided by zero) is not equal to itself.
    return str(together) != str(alone)
