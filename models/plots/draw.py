"""All pictures of a challenger."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from models.plots import classes, comparison, numbers, training
from models.plots.evidence import Evidence

type Drawing = Callable[[Evidence], bytes | None]

ALWAYS: Mapping[str, Drawing] = {
    "learning_curve": training.learning_curve,
    "feature_importance": training.feature_importance,
    "score_by_slice": comparison.score_by_slice,
    "champion_against_challenger": comparison.champion_against_challenger,
}
OF_CLASSES: Mapping[str, Drawing] = {
    "roc": classes.roc,
    "precision_recall": classes.precision_recall,
    "calibration": classes.calibration,
}
OF_NUMBERS: Mapping[str, Drawing] = {
    "predicted_against_actual": numbers.predicted_against_actual,
    "calibration": numbers.calibration,
}


def draw(evidence: Evidence) -> dict[str, bytes]:
    """PNG files by name. What the evidence cannot show (slices of a pipeline that has none, a champion) is left out."""
    drawings = {**ALWAYS, **(OF_CLASSES if evidence.classes else OF_NUMBERS)}
    pictures = {name: drawing(evidence) for name, drawing in drawings.items()}
    return {name: picture for name, picture in pictures.items() if picture is not None}
