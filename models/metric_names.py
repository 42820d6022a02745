"""Which metrics there are, for which task, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.spec_parts import Metric, Objective, Task

METRICS_OF: Mapping[Task, tuple[Metric, ...]] = {
    "binary": ("auc", "average_precision", "log_loss", "brier", "calibration_error", "accuracy"),
    "multiclass": ("log_loss", "accuracy", "macro_f1"),
    "regression": ("rmse", "mae", "pinball"),
}
"""What can be measured of a task, its usual yardstick first (of a multiclass task too: its log loss)."""
HIGHER_IS_BETTER: frozenset[Metric] = frozenset({"auc", "average_precision", "accuracy", "macro_f1"})
SHOWN: Mapping[Metric, str] = {
    "auc": "AUC",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "pinball": "pinball loss",
}
"""As sentences for people call them."""
_OF_OBJECTIVE: Mapping[Objective, Metric] = {"regression_l1": "mae", "mape": "mae", "quantile": "pinball"}


def usual_metric(task: Task, objective: Objective) -> Metric:
    """What a model is judged by when the pipeline does not say."""
    return _OF_OBJECTIVE.get(objective, METRICS_OF[task][0])
