"""How the model came about: its learning curve, and what it looks at."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator

from models.plots import style
from models.plots.evidence import Evidence

MAX_FEATURES = 20
ROW_INCHES = 0.27


def learning_curve(evidence: Evidence) -> bytes | None:
    """The curves by round, with the round that was kept. None without curves."""
    validation = next((values for name, values in evidence.curves.items() if name.startswith("validation")), None)
    if not validation:
        return None
    best, rounds = evidence.best_iteration, len(validation)
    what = next(iter(evidence.curves)).partition(" ")[2]
    title = f"Validation {what} is best at round {best:,} of {rounds:,}: {validation[best - 1]:.4g}"
    title += ", and may still improve with more rounds" if best == rounds else ""
    figure, panel = style.new_figure(title)
    for name, values in evidence.curves.items():
        look = style.MODEL_STYLES[name.partition(" ")[0]]
        xs, ys = style.thinned(np.arange(1, len(values) + 1), np.array(values))
        panel.plot(
            xs,
            ys,
            linewidth=2,
            color=look["color"],
            linestyle=look["linestyle"],
            label=f"{name} rows".replace(f" {what}", ""),
        )
    panel.axvline(best, color=style.FAINT, linewidth=1, linestyle=":")
    panel.plot(
        [best],
        [validation[best - 1]],
        marker="o",
        markersize=7,
        color=style.INK,
        linestyle="",
        label=f"kept: round {best:,}",
    )
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    style.label_axes(panel, "Boosting round (trees so far)", f"{what[:1].upper()}{what[1:]}")
    style.legend(panel, loc="best")
    return style.png(figure)


def feature_importance(evidence: Evidence) -> bytes | None:
    """The features by their share of the gain of all splits. None when no tree has a split."""
    total = sum(evidence.importance.values())
    if not total > 0:
        return None
    ranked = sorted(evidence.importance.items(), key=lambda item: (-item[1], item[0]))
    shown = ranked[:MAX_FEATURES]
    first = [style.short(name) for name, _ in ranked[:3]]
    together = sum(gain for _, gain in ranked[:3]) / total
    what = f"{', '.join(first[:-1])} and {first[-1]} bring" if len(first) > 1 else f"{first[0]} brings"
    rest = f"{len(ranked) - len(shown)} more features share the rest" if len(ranked) > len(shown) else ""
    title = f"{what} {together:.0%} of what the splits gain"
    figure, panel = style.new_figure(title, rest, height=1.6 + ROW_INCHES * max(len(shown), 6))
    shares = [gain / total for _, gain in shown]
    panel.barh(range(len(shown)), shares, color=style.MODEL_STYLES["challenger"]["color"], height=0.7)
    for row, share in enumerate(shares):
        panel.text(share, row, f" {share:.1%}", va="center", fontsize=style.SMALL_SIZE, color=style.INK)
    style.name_rows(panel, [name for name, _ in shown])
    panel.set_xlim(0, 1.12 * max(shares))
    style.percent_axes(panel, up=False)
    style.label_axes(panel, "Share of the gain of all splits", "Feature")
    return style.png(figure)
