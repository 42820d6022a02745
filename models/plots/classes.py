"""How well classes are told apart, and whether the probabilities mean what they say. Several classes: one-vs-rest."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.plots import style
from models.plots.evidence import Evidence, Floats

MAX_CLASSES = 5
BINS = 10
BAR_BINS = 40

type Look = dict[str, Any]


def roc(evidence: Evidence) -> bytes | None:
    """True against false positives. None when the rows are all of one class."""
    from sklearn.metrics import auc, roc_curve

    lines: list[tuple[str, Look, float, Floats, Floats]] = []
    for name, look, truth, scores in _lines(evidence):
        false, true, _ = roc_curve(truth, scores)
        across, up = style.thinned(false, true)
        lines.append((name, look, float(auc(false, true)), across, up))
    if not lines:
        return None
    figure, panel = style.new_figure(_roc_title(evidence, [line[2] for line in lines]), _rows(evidence))
    panel.plot([0, 1], [0, 1], color=style.FAINT, linewidth=1, linestyle=":", label="chance (AUC 0.5)")
    for name, look, area, false, true in lines:
        panel.plot(false, true, linewidth=2, label=f"{name} (AUC {area:.4f})", **look)
    style.unit_square(panel)
    style.percent_axes(panel)
    what = f"“{style.short(evidence.classes[1])}”" if _two(evidence) else "the class"
    style.label_axes(panel, f"False alarms: other rows taken for {what}", f"Hits: rows of {what} found")
    style.legend(panel, loc="lower right")
    return style.png(figure)


def precision_recall(evidence: Evidence) -> bytes | None:
    """How many alarms are right, by how many of the class are found. None when the rows are all of one class."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    lines = []
    for name, look, truth, scores in _lines(evidence):
        precision, recall, _ = precision_recall_curve(truth, scores)
        # The last point stands for no alarm at all, of which none is wrong.
        precision, recall = style.thinned(precision[:-1], recall[:-1])
        lines.append((name, look, float(average_precision_score(truth, scores)), recall, precision, truth.mean()))
    if not lines:
        return None
    figure, panel = style.new_figure(_precision_title(evidence, lines[0]), _rows(evidence))
    if _two(evidence):
        share = lines[0][5]
        panel.axhline(share, color=style.FAINT, linewidth=1, linestyle=":", label=f"chance ({share:.1%} of the rows)")
    for name, look, area, recall, precision, _ in lines:
        panel.plot(recall, precision, linewidth=2, label=f"{name} (average precision {area:.4f})", **look)
    style.unit_square(panel)
    style.percent_axes(panel)
    what = f"“{style.short(evidence.classes[1])}”" if _two(evidence) else "the class"
    style.label_axes(panel, f"Recall: rows of {what} found", "Precision: alarms that are right")
    style.legend(panel, loc="best")
    return style.png(figure)


def calibration(evidence: Evidence) -> bytes | None:
    """Said against seen, in bins with equally many rows, over the spread of what is said. None without rows."""
    if not len(evidence.labels):
        return None
    points = {name: _binned(*_said_and_seen(evidence, answers)) for name, answers in evidence.models()}
    gaps = {name: float(np.average(np.abs(said - seen), weights=rows)) for name, (said, seen, rows) in points.items()}
    title = f"What the challenger says and what happens differ by {gaps['challenger'] * 100:.1f} percentage points"
    title += f" on average (champion: {gaps['champion'] * 100:.1f})" if "champion" in gaps else " on average"
    panels: dict[str, Any] = {"nrows": 2, "sharex": True, "gridspec_kw": {"height_ratios": [3, 1]}}
    figure, (panel, bars) = style.new_figure(title, _rows(evidence), height=6.2, **panels)
    top = min(1.0, 1.1 * max(float(max(said.max(), seen.max())) for said, seen, _ in points.values()))
    panel.plot([0, top], [0, top], color=style.FAINT, linewidth=1, linestyle=":", label="exactly as said")
    edges = np.linspace(0, top, BAR_BINS + 1)
    for name, (said, seen, _) in points.items():
        look = style.MODEL_STYLES[name]
        panel.plot(said, seen, linewidth=1.8, markersize=6, label=name, **look)
        spread = np.histogram(_said_and_seen(evidence, dict(evidence.models())[name])[0], edges)[0]
        bars.stairs(
            spread / len(evidence.labels), edges, color=look["color"], linestyle=look["linestyle"], linewidth=1.5
        )
    panel.set_xlim(-0.02 * top, 1.02 * top)
    panel.set_ylim(-0.02 * top, 1.02 * top)
    style.percent_axes(panel)
    style.percent_axes(bars)
    across, up = _calibration_words(evidence)
    style.label_axes(panel, "", up)
    style.label_axes(bars, across, "Share of rows")
    style.legend(panel, loc="upper left")
    return style.png(figure)


def _lines(evidence: Evidence) -> list[tuple[str, Look, np.ndarray[Any, Any], Floats]]:
    """(name, look, whether each row is of the class, its score): two classes have a line for each model, more have one
    for each class of the challenger."""
    found = []
    if _two(evidence):
        truth = evidence.labels == 1
        for name, answers in evidence.models():
            look = {key: style.MODEL_STYLES[name][key] for key in ("color", "linestyle")}
            found.append((name, look, truth, answers[:, 1]))
    else:
        for (code, name), (color, dashes) in zip(evidence.shown_classes(MAX_CLASSES), style.CLASS_STYLES, strict=False):
            look = {"color": color, "linestyle": dashes}
            found.append((style.short(name), look, evidence.labels == code, evidence.challenger[:, code]))
    return [line for line in found if line[2].any() and not line[2].all()]


def _said_and_seen(evidence: Evidence, answers: Floats) -> tuple[Floats, Floats]:
    """The probability of the positive class and whether it is it; of several classes, of the one that was chosen."""
    if _two(evidence):
        return answers[:, 1], (evidence.labels == 1).astype(np.float64)
    chosen = answers.argmax(axis=1)
    return answers.max(axis=1), (evidence.labels == chosen).astype(np.float64)


def _binned(said: Floats, seen: Floats) -> tuple[Floats, Floats, np.ndarray[Any, Any]]:
    """Mean of both and the number of rows, in bins with equally many rows, from the lowest to the highest said."""
    order = np.argsort(said, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part)]
    rows = np.array([len(part) for part in bins])
    return np.array([said[part].mean() for part in bins]), np.array([seen[part].mean() for part in bins]), rows


def _roc_title(evidence: Evidence, areas: list[float]) -> str:
    if not _two(evidence):
        return f"Each class against the rest: AUC from {min(areas):.3f} to {max(areas):.3f}"
    negative, positive = (style.short(name) for name in evidence.classes)
    title = f"A row of “{positive}” scores above one of “{negative}” {areas[0] * 100:.1f} times out of 100"
    return title if len(areas) == 1 else f"{title} (champion: {areas[1] * 100:.1f})"


def _precision_title(evidence: Evidence, line: tuple[Any, ...]) -> str:
    _, _, _, recall, precision, share = line
    half = float(np.interp(0.5, recall[::-1], precision[::-1]))
    if not _two(evidence):
        return f"Half of the rows of “{line[0]}” are found with {half:.0%} of the alarms right"
    positive = style.short(evidence.classes[1])
    return f"To find half of “{positive}”, {half:.0%} of the alarms are right; without a model it would be {share:.0%}"


def _calibration_words(evidence: Evidence) -> tuple[str, str]:
    if _two(evidence):
        positive = style.short(evidence.classes[1])
        return f"Probability of “{positive}” as the model says it", f"Rows that are “{positive}”"
    return "Probability of the chosen class as the model says it", "Rows of the chosen class"


def _rows(evidence: Evidence) -> str:
    unseen = "that neither model has seen" if evidence.champion is not None else "that did not teach the model"
    return f"{len(evidence.labels):,} rows {unseen}"


def _two(evidence: Evidence) -> bool:
    return len(evidence.classes) == 2  # noqa: PLR2004 (two classes)
