"""The label of each row, by task: why a row has none, and the number that stands for it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from models.cells import Problem, TypedColumn
from models.expressions import evaluate_over, label_expression
from models.spec import PipelineSpec

LABEL = "__label"
LARGEST = float(np.finfo(np.float32).max)
"""LightGBM keeps labels as float32."""


def read_labels(typed: Mapping[str, TypedColumn], spec: PipelineSpec, *, name: str) -> tuple[pl.Series, list[Problem]]:
    """`__label` [N] of the file `name`, null where a row has none, and the reasons why.

    binary: UInt8, 0 or 1. multiclass: UInt16, the place of the class in `label.classes`. regression: Float64, finite.
    Raises PartitionRejected when the label's expression fails on the file.
    """
    expression = label_expression(spec)
    values = evaluate_over(typed, expression, name=name, what="label's expression", code="label_failed")
    label, none, strange, problem = {"binary": _binary, "multiclass": _multiclass, "regression": _number}[spec.task](
        values, spec
    )
    problems = [problem]
    explained = pl.zeros(label.len(), pl.Boolean, eager=True)
    for root in dict.fromkeys(expression.meta.root_names()):
        column = typed[root]
        problems.append(Problem(f"{root}: missing", none & column.missing, f"{root}: missing, so there is no label"))
        explained = explained | column.missing | column.wrong
    problems.append(Problem("label: no value", none & ~explained, "label: its expression gives no value for this row"))
    return label.set(none | strange, None).alias(LABEL), problems


type _Read = tuple[pl.Series, pl.Series, pl.Series, Problem]
"""The label, which rows have none, which have a strange one, and what to say of those."""


def _binary(values: pl.Series, _: PipelineSpec) -> _Read:
    label = values.cast(pl.Float64)
    none = _none(label)
    strange = ~none & ~label.is_in([0.0, 1.0])
    problem = Problem("label: neither 0 nor 1", strange, "label: ", values.cast(pl.String), " is neither 0 nor 1")
    return label.set(none | strange, None).cast(pl.UInt8), none, strange, problem


def _multiclass(values: pl.Series, spec: PipelineSpec) -> _Read:
    texts = class_texts(values)
    codes = {text: code for code, text in enumerate(spec.classes)}
    label = texts.replace_strict(codes, default=None, return_dtype=pl.UInt16)
    none = texts.is_null()
    strange = label.is_null() & ~none
    problem = Problem("label: no such class", strange, 'label: "', texts, '" is none of the classes')
    return label, none, strange, problem


def _number(values: pl.Series, _: PipelineSpec) -> _Read:
    label = values.cast(pl.Float64)
    none = _none(label)
    strange = ~none & (label.abs() > LARGEST).fill_null(value=False)
    problem = Problem("label: out of range", strange, "label: ", values.cast(pl.String), " is too large")
    return label, none, strange, problem


def class_texts(values: pl.Series) -> pl.Series:
    """String [N]: values as class names. Whole numbers have no point (typed integers are floats), truths are small."""
    if values.dtype.is_float():
        whole = values == values.floor()
        missing = values.is_nan().fill_null(value=True)
        return values.cast(pl.String).zip_with(~whole.fill_null(value=False), _whole(values)).set(missing, None)
    if values.dtype == pl.String:
        return values.set(values == "", None)
    return values.cast(pl.String)


def _whole(values: pl.Series) -> pl.Series:
    return values.cast(pl.Int64, strict=False).cast(pl.String)


def _none(label: pl.Series) -> pl.Series:
    return label.is_null() | label.is_nan().fill_null(value=True)
