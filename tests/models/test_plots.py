"""Pictures: there for all that can be shown, absent for what cannot, whatever the names and figures are."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.plots.draw import draw
from models.plots.evidence import Evidence, Slice

ROWS = 200
WHITE = 255


def evidence(classes: tuple[str, ...] = ("on time", "late"), *, compared: bool = True, **changed: Any) -> Evidence:
    rng = np.random.default_rng(3)
    width = len(classes) or 1
    challenger, other = rng.dirichlet(np.ones(width), ROWS), rng.dirichlet(np.ones(width), ROWS)
    if not classes:
        challenger, other = rng.normal(size=(ROWS, 1)), rng.normal(size=(ROWS, 1))
    labels = rng.integers(0, width, ROWS) if classes else rng.normal(size=ROWS)
    metric = "auc" if classes else "rmse"
    whole: dict[str, Any] = {
        "classes": classes,
        "labels": labels,
        "challenger": challenger,
        "champion": other if compared else None,
        "metric": metric,
        "metrics": {"rows": ROWS, metric: 0.75, "brier": 0.2},
        "champion_metrics": {"rows": ROWS, metric: 0.5, "brier": 0.0} if compared else {},
        "curves": {"training log loss": [0.6, 0.5, 0.4], "validation log loss": [0.6, 0.55, 0.57]},
        "best_iteration": 2,
        "importance": {f"column {number}": float(number) for number in range(30)},
        "gain": (0.25, 0.1, 0.9) if compared else None,
        "slices": [Slice("town: Ghent", 30, 0.7, 0.6), Slice("town: missing", 3, None, None)],
    }
    return Evidence(**{**whole, **changed})


OF_CLASSES = {"roc", "precision_recall", "calibration", "learning_curve", "feature_importance", "score_by_slice"}
OF_NUMBERS = {"predicted_against_actual", "calibration", "learning_curve", "feature_importance", "score_by_slice"}
COMPARED = {"champion_against_challenger"}


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (evidence(), OF_CLASSES | COMPARED),
        (evidence(compared=False), OF_CLASSES),
        (evidence(("a", "b", "c", "d", "e", "f", "g")), OF_CLASSES | COMPARED),
        (evidence(()), OF_NUMBERS | COMPARED),
        (evidence((), compared=False), OF_NUMBERS),
        (
            evidence(slices=(), importance={"a": 0.0}),
            (OF_CLASSES | COMPARED) - {"score_by_slice", "feature_importance"},
        ),
    ],
    ids=["two classes", "no champion", "seven classes", "numbers", "numbers, no champion", "no slices, no splits"],
)
def test_there_is_a_picture_of_all_that_can_be_shown(shown: Evidence, expected: set[str]) -> None:
    pictures = draw(shown)
    assert set(pictures) == expected
    for name, data in pictures.items():
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "PNG"
            assert picture.width == 880, name
            assert len(data) < 200_000, name
            # Nothing runs out of the picture: its outermost pixels are all white.
            grey = np.asarray(picture.convert("L"))
            edges = (grey[0], grey[-1], grey[:, 0], grey[:, -1])
            assert all((edge == WHITE).all() for edge in edges), name


def test_rows_that_say_nothing_leave_out_their_pictures() -> None:
    nothing = evidence(labels=np.empty(0), challenger=np.empty((0, 2)), champion=np.empty((0, 2)))
    assert set(draw(nothing)) == {"learning_curve", "feature_importance", "score_by_slice"}
    one_class = evidence(labels=np.ones(ROWS, np.uint8))
    assert set(draw(one_class)) == (OF_CLASSES | COMPARED) - {"roc", "precision_recall"}


def test_equal_answers_and_odd_names_are_drawn() -> None:
    same = np.full((ROWS, 2), 0.5)
    names = ("costs $5 to $10", "遅れ ^_{x} " * 9)
    shown = evidence(
        names,
        challenger=same,
        champion=same,
        importance={"$a_{b": 1.0, "é" * 80: 2.0},
        slices=[Slice("$x$: \\frac", 1, 0.5, 0.5)],
        metrics={"auc": 0.5},
        champion_metrics={"auc": 0.5},
    )
    pictures = draw(shown)
    assert set(pictures) == OF_CLASSES | COMPARED
    assert draw(shown) == pictures, "equal evidence gives equal bytes"
