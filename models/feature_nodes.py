"""ONNX nodes for each kind of feature, raw column [N] to DOUBLE [N].

Only operators that IEEE 754 defines to the last bit (difference, quotient, floor, comparison, choice) and look-ups, so
that what a row becomes does not depend on its batch. onnxruntime's Exp, Log or Sin would differ there, and its Clip and
Max are not documented to keep NaN.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.feature_columns import FeatureColumn
from models.texts import MISSING_TEXTS

MISSING_CODE = 0.0
UNKNOWN_CODE = 1.0
FIRST_CODE = 2.0
"""The most frequent category's code; the next ones follow. Codes are floats because trees read one float matrix (all
codes are far below 2**24, so they are exact), and frequency ranks because trees then split off the frequent first."""

DAY, HOUR = 86_400.0, 3_600.0
EPOCH_TO_MARCH_0000 = 719_468.0
"""Days from 0000-03-01 to 1970-01-01: years that begin in March have their leap day at the end."""


class Nodes:
    """Collects the nodes of a feature graph. `categories` has the rows by value of each category column."""

    def __init__(self, categories: Mapping[str, Mapping[str, int]]) -> None:
        self._categories = categories
        self._made: dict[tuple[str, ...], str] = {}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def column(self, column: FeatureColumn) -> str:
        """The name of the tensor that holds the feature."""
        first = column.sources[0]
        match column.kind:
            case "category":
                return self._encoded(first, column)
            case "ratio":
                return self._clipped(self._ratio(first, column.sources[1]), column)
            case "difference":
                return self._clipped(self._op("Sub", first, column.sources[1]), column)
            case "age":
                days = self._op("Div", self._op("Sub", self._number(column.age_at), first), self._number(DAY))
                return self._clipped(days, column)
            case "part":
                return self._part(first, column.part or "")
            case "value":
                return self._clipped(first, column)

    def _op(self, operator: str, *inputs: str, output: str = "") -> str:
        """One node; the same operator over the same inputs is made once."""
        key = (operator, *inputs)
        if key not in self._made:
            self._made[key] = output or f"__{operator.lower()}_{len(self.nodes)}"
            self.nodes.append(helper.make_node(operator, list(inputs), [self._made[key]]))
        return self._made[key]

    def _number(self, value: float) -> str:
        key = ("constant", repr(value))
        if key not in self._made:
            self._made[key] = f"__number_{len(self.constants)}"
            self.constants.append(numpy_helper.from_array(np.array(value, np.float64), self._made[key]))
        return self._made[key]

    def _clipped(self, source: str, column: FeatureColumn) -> str:
        for operator, bound in zip(("Less", "Greater"), column.clip, strict=True):
            if bound is not None:
                # A comparison with NaN is false, so that missing stays missing.
                beyond = self._op(operator, source, self._number(bound))
                source = self._op("Where", beyond, self._number(bound), source)
        return source

    def _ratio(self, above: str, below: str) -> str:
        nothing = self._op("Equal", below, self._number(0.0))
        return self._op("Where", nothing, self._number(np.nan), self._op("Div", above, below))

    def _encoded(self, name: str, column: FeatureColumn) -> str:
        ranked = _ranked(self._categories[name], column)
        output = f"__code_{len(self.nodes)}"
        self.nodes.append(_encoder(name, output, ranked))
        return output

    def _part(self, seconds: str, part: str) -> str:
        days = self._floored(seconds, DAY)
        if part == "hour":
            return self._floored(self._op("Sub", seconds, self._op("Mul", days, self._number(DAY))), HOUR)
        if part == "weekday":
            # 1970-01-01 was a Thursday.
            return self._remainder(self._op("Add", days, self._number(3.0)), 7.0)
        return self._civil(days, part)

    def _civil(self, days: str, part: str) -> str:
        """Month or day of the year (Hinnant, chrono-Compatible Low-Level Date Algorithms, civil_from_days)."""
        since = self._op("Add", days, self._number(EPOCH_TO_MARCH_0000))
        day_of_era = self._remainder(since, 146_097.0)
        corrected = self._op("Sub", day_of_era, self._floored(day_of_era, 1_460.0))
        corrected = self._op("Add", corrected, self._floored(day_of_era, 36_524.0))
        corrected = self._op("Sub", corrected, self._floored(day_of_era, 146_096.0))
        year = self._floored(corrected, 365.0)
        before = self._op("Mul", year, self._number(365.0))
        before = self._op("Add", before, self._floored(year, 4.0))
        before = self._op("Sub", before, self._floored(year, 100.0))
        day = self._op("Sub", day_of_era, before)
        if part == "month":
            scaled = self._op("Add", self._op("Mul", day, self._number(5.0)), self._number(2.0))
            since_march = self._floored(scaled, 153.0)
            wrapped = self._op("Mul", self._floored(since_march, 10.0), self._number(12.0))
            return self._op("Sub", self._op("Add", since_march, self._number(3.0)), wrapped)
        # Days 0 to 305 are March to December; January and February follow.
        late = self._op("Add", self._op("Add", day, self._leap_day(year)), self._number(60.0))
        early = self._op("Sub", day, self._number(305.0))
        return self._op("Where", self._op("Less", day, self._number(306.0)), late, early)

    def _leap_day(self, year_of_era: str) -> str:
        """1 when the year of the era (0 to 399) has a 29 February, else 0."""
        fourth = self._is_multiple(year_of_era, 4.0)
        hundredth, all_four = self._is_multiple(year_of_era, 100.0), self._is_multiple(year_of_era, 400.0)
        return self._op("Add", self._op("Sub", fourth, hundredth), all_four)

    def _is_multiple(self, whole: str, of: float) -> str:
        before = self._op("Sub", whole, self._number(1.0))
        return self._op("Sub", self._floored(whole, of), self._floored(before, of))

    def _floored(self, source: str, by: float) -> str:
        return self._op("Floor", self._op("Div", source, self._number(by)))

    def _remainder(self, source: str, by: float) -> str:
        return self._op("Sub", source, self._op("Mul", self._floored(source, by), self._number(by)))


def _ranked(counts: Mapping[str, int], column: FeatureColumn) -> list[str]:
    kept = [value for value, rows in counts.items() if value not in MISSING_TEXTS and rows >= column.minimum_count]
    return sorted(kept, key=lambda value: (-counts[value], value))[: column.maximum]


def _encoder(name: str, output: str, ranked: list[str]) -> onnx.NodeProto:
    codes = [MISSING_CODE] * len(MISSING_TEXTS) + [FIRST_CODE + rank for rank in range(len(ranked))]
    texts = [text.encode() for text in (*MISSING_TEXTS, *ranked)]
    keys = helper.make_tensor("keys", TensorProto.STRING, [len(codes)], texts)
    values = helper.make_tensor("values", TensorProto.DOUBLE, [len(codes)], codes)
    default = helper.make_tensor("default", TensorProto.DOUBLE, [1], [UNKNOWN_CODE])
    return helper.make_node(
        "LabelEncoder",
        [name],
        [output],
        domain="ai.onnx.ml",
        keys_tensor=keys,
        values_tensor=values,
        default_tensor=default,
    )
