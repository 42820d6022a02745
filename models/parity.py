"""Is the served graph the model that was trained? Compared on every row of the holdout and on rows made to hurt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import lightgbm as lgb
import numpy as np

from models.adversarial import raw_rows, threshold_rows
from models.ensemble import INFINITE, read_trees, used_features
from models.export import ExportKind
from models.feature_columns import FeatureColumn
from models.features import FEATURES
from models.graphs import after_features
from models.scoring import Feed, open_session

TOLERANCES: Mapping[ExportKind, float] = {"exact": 1e-12, "portable": 1e-6}
"""Largest difference in a probability. float64 sums in another order differ by 1e-15, float32 sums by some 1e-7; a row
that takes another branch differs by 1e-3 and more."""
VALUE_TOLERANCES: Mapping[ExportKind, float] = {"exact": 1e-12, "portable": 1e-5}
"""The same of a regression, relative to its largest prediction: no logistic function dampens the rounding of sums."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A row on which model and graph disagree: its inputs (None = missing), or its features, and both answers."""

    inputs: Mapping[str, float | str | None]
    expected: tuple[float, ...]
    actual: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ParityReport:
    """`worst` is the largest difference between the booster's and the graph's answers over all rows.

    `flips` counts rows for which the two name different classes. `breach` is the row that shows it, if they disagree.
    """

    rows: int
    adversarial_rows: int
    worst: float
    tolerance: float
    passed: bool
    flips: int = 0
    breach: Breach | None = None

    def sentence(self) -> str:
        """What was found, for people, with the row that shows it."""
        words = (
            f"graph and model differ by {self.worst:.1e} ({self.tolerance:.0e} is allowed), and name different classes "
            f"on {self.flips:,} of {self.rows + self.adversarial_rows:,} rows"
        )
        if self.breach is None:
            return words
        shown = ", ".join(f"{name}={value!r}" for name, value in self.breach.inputs.items())
        return f"{words}; the graph says {self.breach.actual}, the model {self.breach.expected} of the row {shown}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ParityReport:
        """What `to_dict` made."""
        return cls(**{**data, "breach": Breach(**data["breach"]) if data.get("breach") else None})


@dataclass(slots=True)
class _Comparison:
    """What was compared so far. `scale` is the largest prediction of a regression."""

    classes: bool
    worst: float = 0.0
    scale: float = 0.0
    flips: int = 0
    breach: Breach | None = None
    flipped: bool = field(default=False)

    def add(self, expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any], columns: Feed) -> int:
        """Compares answers, both [N, K], to rows of which `columns` are the inputs; how many there were."""
        if not len(expected):
            return 0
        difference = np.abs(np.subtract(actual, expected, where=actual != expected, out=np.zeros_like(expected)))
        # A NaN anywhere must not pass for agreement.
        largest = np.nan_to_num(difference, nan=np.inf).max(axis=1)
        if not self.classes:
            self.scale = max(self.scale, float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)))
        flipped = np.flatnonzero(expected.argmax(axis=1) != actual.argmax(axis=1)) if self.classes else np.empty(0, int)
        self.flips += len(flipped)
        shown = int(flipped[0]) if len(flipped) else int(largest.argmax())
        if (len(flipped) and not self.flipped) or (not self.flipped and largest[shown] > self.worst):
            self.breach = Breach(
                {name: _plain(values[shown]) for name, values in columns.items()},
                tuple(expected[shown].tolist()),
                tuple(actual[shown].tolist()),
            )
        self.flipped = self.flipped or bool(len(flipped))
        self.worst = max(self.worst, float(largest.max()))
        return len(expected)


def check_parity(
    model: bytes,
    booster_text: str,
    features_graph: bytes,
    batches: Iterable[Feed],
    *,
    columns: Sequence[FeatureColumn],
    kind: ExportKind,
) -> ParityReport:
    """Compares on every row of `batches` (raw columns), and on adversarial rows made from the first of them.

    `columns` are the matrix's, as the spec describes them.
    """
    booster = lgb.Booster(model_str=booster_text)
    served, features = open_session(model, threads=1), open_session(features_graph, threads=1)
    trees = read_trees(booster_text)
    classes = served.get_outputs()[0].name == "probability"
    compared = _Comparison(classes)
    rows = adversarial_rows = 0

    def compare(feed: Feed) -> int:
        expected = _answers(booster, features.run([FEATURES], feed)[0], classes=classes)
        return compared.add(expected, served.run(None, feed)[0], feed)

    for number, feed in enumerate(batches):
        rows += compare(feed)
        if number == 0 and len(next(iter(feed.values()))):
            adversarial_rows = compare(raw_rows(feed, trees, columns))
            matrix = threshold_rows(features.run([FEATURES], feed)[0], trees)
            tail = open_session(after_features(model), threads=1)
            actual = tail.run(None, {FEATURES: np.ascontiguousarray(matrix[:, used_features(trees)])})[0]
            named = {column.name: matrix[:, index] for index, column in enumerate(columns)}
            adversarial_rows += compared.add(_answers(booster, matrix, classes=classes), actual, named)
    tolerance = (TOLERANCES if classes else VALUE_TOLERANCES)[kind]
    worst = compared.worst / (compared.scale or 1.0)
    # Nothing compared proves nothing.
    passed = rows > 0 and worst <= tolerance and not compared.flips
    breach = None if passed else compared.breach
    return ParityReport(rows, adversarial_rows, min(worst, INFINITE), tolerance, passed, compared.flips, breach)


def _answers(booster: lgb.Booster, matrix: np.ndarray[Any, Any], *, classes: bool) -> np.ndarray[Any, Any]:
    """The booster's answers as the graph gives them, [N, K]."""
    if not len(matrix):
        return np.empty((0, 1))
    answers = np.asarray(booster.predict(matrix))
    if answers.ndim == 1:
        return np.stack([1.0 - answers, answers], axis=1) if classes else answers[:, None]
    return answers


def _plain(value: Any) -> float | str | None:
    if isinstance(value, str):
        return value
    number = float(value)
    return number if np.isfinite(number) else None if np.isnan(number) else float(np.copysign(INFINITE, number))
