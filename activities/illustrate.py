"""Draw what the run has found, beside its version in the registry.

A step of its own, after the promotion: drawing takes seconds, and the model need not wait for its pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from activities.contracts import Done, RunRef
from activities.dependencies import Dependencies
from activities.evaluate import read_scores
from activities.workspace import Workspace
from models.manifest import Signature

if TYPE_CHECKING:
    from models.plots.evidence import Evidence


def illustrate(run: RunRef, to: Dependencies) -> Done:
    """Adds `plots/*.png`, unless the version shows another run's judgement. A repeat writes the same files."""
    workspace = to.workspace(run.pipeline, run.run)
    version = workspace.read("version.json")["version"]
    to.registry().illustrate(run.pipeline, version, run.run, lambda: _pictures(workspace))
    return Done(sentence=f"version {version}")


def _pictures(workspace: Workspace) -> Mapping[str, bytes]:
    from models.plots.draw import draw

    return {f"plots/{name}.png": data for name, data in draw(_evidence(workspace)).items()}


def _evidence(workspace: Workspace) -> Evidence:
    """What the pictures measure slices and models by is what the gate decides by."""
    import numpy as np

    from models.evaluation import yardstick
    from models.plots.evidence import Evidence, Slice, metric_label

    training, evaluation = workspace.read("training.json"), workspace.read("evaluation.json")
    signature = Signature.from_dict(workspace.read("export.json")["signature"])
    scores, gain = read_scores(workspace), workspace.read("decision.json")["gain"]
    metric = yardstick(workspace.spec()).metric

    def answers(model: str) -> np.ndarray[Any, Any]:
        return scores[model] if len(scores["labels"]) else np.empty((0, signature.width))

    label = metric_label(training.get("metric", "log_loss"))
    return Evidence(
        classes=signature.classes,
        labels=scores["labels"],
        challenger=answers("challenger"),
        champion=answers("champion") if evaluation["champion"] else None,
        metric=metric,
        metrics=evaluation["challenger"],
        champion_metrics=evaluation["champion"] or {},
        curves={f"training {label}": training["training_curve"], f"validation {label}": training["curve"]},
        best_iteration=training["best_iteration"],
        importance=training["importance"],
        gain=(gain["value"], gain["lower"], gain["confidence"]) if gain else None,
        slices=[
            Slice(
                f"{part['column']}: {part['value'] or 'missing'}",
                part["challenger"]["rows"],
                part["challenger"].get(metric),
                (part["champion"] or {}).get(metric),
            )
            for part in evaluation.get("slices") or []
        ],
    )
