"""How close a regression's numbers come."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.plots import style
from models.plots.evidence import Evidence

BINS = 10
CELLS = 60
TRIMMED = 0.5
"""Percent of the rows at either end that may be outside of the picture: a single outlier would make it all white."""


def predicted_against_actual(evidence: Evidence) -> bytes | None:
    """Where the rows lie: the nearer to the diagonal, the better. None without rows."""
    if not len(evidence.labels):
        return None
    said, seen = evidence.challenger[:, 0], evidence.labels.astype(np.float64)
    errors = np.abs(said - seen)
    title = f"Half of the rows are predicted to within {np.median(errors):.3g}, nine of ten to within "
    figure, panel = style.new_figure(
        f"{title}{np.quantile(errors, 0.9):.3g}", f"{len(seen):,} rows that did not teach it"
    )
    low, high = np.percentile(np.concatenate([said, seen]), [TRIMMED, 100 - TRIMMED])
    high = high if high > low else low + 1.0
    counts, _, _ = np.histogram2d(said, seen, bins=style.cells(len(said), CELLS), range=[[low, high], [low, high]])
    image = panel.imshow(
        np.ma.masked_equal(counts.T, 0), origin="lower", extent=(low, high, low, high), aspect="auto", cmap=style.COUNTS
    )
    panel.plot([low, high], [low, high], color=style.INK, linewidth=1, linestyle=":")
    bar = figure.colorbar(image, ax=panel)
    bar.set_label("Rows", fontsize=style.TEXT_SIZE, color=style.INK)
    style.label_axes(panel, "Predicted (in the label's unit)", "Actual (in the label's unit)")
    return style.png(figure)


def calibration(evidence: Evidence) -> bytes | None:
    """Mean said against mean seen, in bins with equally many rows. None without rows."""
    if not len(evidence.labels):
        return None
    seen = evidence.labels.astype(np.float64)
    points: dict[str, Any] = {}
    for name, answers in evidence.models():
        bins = [part for part in np.array_split(np.argsort(answers[:, 0], kind="stable"), BINS) if len(part)]
        points[name] = [[values[part].mean() for part in bins] for values in (answers[:, 0], seen)]
    gap = float(np.mean(np.abs(np.subtract(*points["challenger"]))))
    title = f"The challenger's predictions are {gap:.3g} off on average, where alike ones are taken together"
    figure, panel = style.new_figure(title, f"{len(seen):,} rows that did not teach it, in {BINS} equal groups")
    ends = [min(map(min, points["challenger"])), max(map(max, points["challenger"]))]
    panel.plot(ends, ends, color=style.FAINT, linewidth=1, linestyle=":", label="exactly as said")
    for name, (said, found) in points.items():
        panel.plot(said, found, linewidth=1.8, markersize=6, label=name, **style.MODEL_STYLES[name])
    style.label_axes(panel, "Mean predicted (in the label's unit)", "Mean actual (in the label's unit)")
    style.legend(panel, loc="upper left")
    return style.png(figure)
