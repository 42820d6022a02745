"""What the pictures show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

type Floats = np.ndarray[Any, np.dtype[np.float64]]

LABELS: Mapping[str, str] = {
    "auc": "AUC",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "macro_f1": "macro F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "binary_logloss": "log loss",
    "multi_logloss": "log loss",
}
HIGHER_IS_BETTER = frozenset({"auc", "average_precision", "accuracy", "macro_f1"})


def metric_label(name: str) -> str:
    """A metric's name as people write it."""
    return LABELS.get(name, name.replace("_", " "))


@dataclass(frozen=True, slots=True)
class Slice:
    """One value of a column: its rows, and the metric of both models on them; None where they do not say."""

    name: str
    rows: int
    challenger: float | None
    champion: float | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a challenger, and of the champion on the same rows.

    `labels` [N] are the codes of the classes, or the numbers of a regression, where `classes` is empty. The answers are
    float64 [N, K]: probabilities of the classes, or the numbers [N, 1]; `champion` is None when there is none to
    compare with. `metric` is the one that decides, by which `slices` are measured. `curves` are the learning curves,
    named like `training log loss`, with a value after each round; `gain` is (value, lower bound, confidence) of the
    decision.
    """

    classes: tuple[str, ...]
    labels: np.ndarray[Any, Any]
    challenger: Floats
    champion: Floats | None
    metric: str
    metrics: Mapping[str, float | None]
    champion_metrics: Mapping[str, float | None]
    curves: Mapping[str, Sequence[float]]
    best_iteration: int
    importance: Mapping[str, float]
    gain: tuple[float, float, float] | None = None
    slices: Sequence[Slice] = field(default_factory=tuple)

    def models(self) -> list[tuple[str, Floats]]:
        """(name, answers) of the challenger, and of the champion where there is one."""
        rivals = [("champion", self.champion)] if self.champion is not None else []
        return [("challenger", self.challenger), *rivals]

    def shown_classes(self, most: int) -> list[tuple[int, str]]:
        """(code, name) of the classes to draw a line for: of two the second, else those with the most rows."""
        if len(self.classes) <= 2:  # noqa: PLR2004 (two classes)
            return list(enumerate(self.classes))[1:]
        counts = np.bincount(self.labels.astype(np.intp), minlength=len(self.classes))
        return [(int(code), self.classes[code]) for code in np.argsort(-counts, kind="stable")[:most]]
