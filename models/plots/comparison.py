"""Champion against challenger, overall and slice by slice."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from models.plots import style
from models.plots.evidence import HIGHER_IS_BETTER, Evidence, Slice, metric_label

MAX_SLICES = 24
ROW_INCHES = 0.29
CELLS = 60
SHORT_NAME = 16


def score_by_slice(evidence: Evidence) -> bytes | None:
    """The deciding metric for each slice that has one, both models. None without slices."""
    measured = [part for part in evidence.slices if part.challenger is not None]
    if not measured:
        return None
    shown = sorted(measured, key=lambda part: -part.rows)[:MAX_SLICES]
    hidden = len(evidence.slices) - len(shown)
    subtitle = f"All {len(evidence.slices)} slices are in slices.csv" if hidden > 0 else ""
    figure, panel = style.new_figure(
        _slice_title(evidence, shown), subtitle, height=1.7 + ROW_INCHES * max(len(shown), 6)
    )
    for row, part in enumerate(shown):
        if part.champion is not None:
            panel.plot([part.champion, part.challenger], [row, row], color=style.FAINT, linewidth=2, zorder=1)
    for name in ("champion", "challenger"):
        points = [(getattr(part, name), row) for row, part in enumerate(shown) if getattr(part, name) is not None]
        if points:
            look = {key: style.MODEL_STYLES[name][key] for key in ("color", "marker")}
            panel.plot(*zip(*points, strict=True), linestyle="", markersize=8, label=name, zorder=2, **look)
    overall = evidence.metrics.get(evidence.metric)
    if overall is not None:
        panel.axvline(overall, color=style.FAINT, linewidth=1, linestyle=":", label="challenger, all rows")
    style.name_rows(panel, [f"{part.name} ({part.rows:,})" for part in shown])
    panel.grid(visible=True, axis="y", color=style.GRID, linewidth=0.5)
    better = "higher" if evidence.metric in HIGHER_IS_BETTER else "lower"
    style.label_axes(panel, f"{metric_label(evidence.metric)} ({better} is better)", "Slice (rows)")
    style.legend(panel, loc="best")
    return style.png(figure)


def champion_against_challenger(evidence: Evidence) -> bytes | None:
    """What both say of the same rows, and what that is worth. None without a champion, or without rows."""
    if evidence.champion is None or not len(evidence.labels):
        return None
    panels: dict[str, Any] = {"ncols": 2, "gridspec_kw": {"width_ratios": [1, 1]}}
    figure, (left, right) = style.new_figure(
        _verdict(evidence), f"{len(evidence.labels):,} rows that neither has seen", **panels
    )
    # Of two classes the second; of several the first stands for all.
    column = 1 if len(evidence.classes) == 2 else 0  # noqa: PLR2004 (two classes)
    name = style.short(evidence.classes[column], SHORT_NAME) if evidence.classes else ""
    what = f"Probability of “{name}”" if name else "Prediction"
    ours, theirs = evidence.challenger[:, column], evidence.champion[:, column]
    low, high = float(min(ours.min(), theirs.min())), float(max(ours.max(), theirs.max()))
    high = high if high > low else low + 1.0
    counts, _, _ = np.histogram2d(theirs, ours, bins=style.cells(len(ours), CELLS), range=[[low, high], [low, high]])
    left.imshow(
        np.ma.masked_equal(np.log1p(counts.T), 0),
        origin="lower",
        extent=(low, high, low, high),
        cmap=style.COUNTS,
        aspect="auto",
    )
    left.plot([low, high], [low, high], color=style.INK, linewidth=1, linestyle=":")
    left.grid(visible=False)
    style.label_axes(left, f"{what}, champion", f"{what}, challenger")
    if evidence.classes:
        style.percent_axes(left)
    left.set_title(
        "Each row by both models (darker: more rows)", fontsize=style.SMALL_SIZE + 0.5, color=style.FAINT, loc="left"
    )
    _measures(right, evidence)
    return style.png(figure)


def _measures(panel: Any, evidence: Evidence) -> None:
    """Each metric's change, as a share of the champion's figure: to the right is better."""
    rows = []
    for name, ours in evidence.metrics.items():
        theirs = evidence.champion_metrics.get(name)
        if name in {"rows", "positives"} or ours is None or not theirs:
            continue
        change = (ours - theirs) / abs(theirs)
        rows.append((name, ours, theirs, change if name in HIGHER_IS_BETTER else -change))
    for row, (_, ours, theirs, change) in enumerate(rows):
        look = style.MODEL_STYLES["challenger" if change >= 0 else "champion"]
        panel.barh(row, change, color=look["color"], height=0.45)
        panel.text(
            0.02,
            row - 0.36,
            f"{theirs:.4g} → {ours:.4g}",
            transform=panel.get_yaxis_transform(),
            va="center",
            fontsize=style.SMALL_SIZE,
            color=style.FAINT,
        )
    panel.axvline(0, color=style.INK, linewidth=1)
    style.name_rows(panel, [metric_label(name) for name, *_ in rows])
    panel.set_ylim(len(rows) - 0.5, -0.75)
    furthest = 1.25 * max((abs(change) for *_, change in rows), default=0.01) or 0.01
    panel.set_xlim(-furthest, furthest)
    style.percent_axes(panel, up=False)
    panel.xaxis.set_major_locator(MaxNLocator(4))
    style.label_axes(panel, "Change (right is better)", "")
    panel.set_title("Champion's figure → challenger's", fontsize=style.SMALL_SIZE + 0.5, color=style.FAINT, loc="left")


def _verdict(evidence: Evidence) -> str:
    ours, theirs = evidence.metrics.get(evidence.metric), evidence.champion_metrics.get(evidence.metric)
    label = metric_label(evidence.metric)
    if ours is None or theirs is None:
        return f"The rows do not say which model has the better {label}"
    better = (ours > theirs) == (evidence.metric in HIGHER_IS_BETTER) and ours != theirs
    title = (
        f"The challenger's {label} is {abs(ours - theirs):.4g} {'better' if better else 'worse'} than the champion's"
    )
    if ours == theirs:
        title = f"Both models have the same {label}"
    if evidence.gain is None:
        return title
    _, lower, confidence = evidence.gain
    return f"{title}; with {confidence:.0%} confidence the gain is at least {lower:+.4f}"


def _slice_title(evidence: Evidence, shown: list[Slice]) -> str:
    higher = evidence.metric in HIGHER_IS_BETTER
    label = metric_label(evidence.metric)
    compared = [part for part in shown if part.champion is not None]
    if not compared:
        ranked = sorted(shown, key=lambda part: part.challenger or 0.0, reverse=not higher)
        return f"The {label} is worst for {style.short(ranked[0].name)} ({ranked[0].challenger:.4g})"
    won = sum(1 for part in compared if _better(part, higher=higher))
    return f"The challenger has the better {label} in {won} of {len(compared)} slices"


def _better(part: Slice, *, higher: bool) -> bool:
    if part.challenger is None or part.champion is None:
        return False
    return part.challenger > part.champion if higher else part.challenger < part.champion
