"""Is the served graph the model that was trained? Compared on every row of the holdout and on rows made to hurt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import onnx

from models.evaluation import open_session
from models.export import INFINITE, ExportKind
from models.features import FEATURES
from models.manifest import PROBABILITY

TOLERANCES: Mapping[ExportKind, float] = {"exact": 1e-12, "portable": 1e-6}
"""Largest difference in a probability. float64 sums in another order differ by 1e-15, float32 sums by some 1e-7; a row
that takes another branch differs by 1e-3 and more."""
ADVERSARIAL_ROWS = 5_000
SEED = 20130101

type Feed = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class ParityReport:
    """`worst` is the largest difference between the booster's and the graph's P(positive) over all rows."""

    rows: int
    adversarial_rows: int
    worst: float
    tolerance: float
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_parity(
    model: bytes, booster_text: str, features_graph: bytes, batches: Iterable[Feed], *, kind: ExportKind
) -> ParityReport:
    """Compares on every row of `batches` (raw columns), and on adversarial rows made from the first of them."""
    booster = lgb.Booster(model_str=booster_text)
    served, features = open_session(model, threads=1), open_session(features_graph, threads=1)
    rows, adversarial_rows, worst = 0, 0, 0.0

    def compare(feed: Feed) -> int:
        nonlocal worst
        expected = booster.predict(features.run([FEATURES], feed)[0])
        difference = np.abs(served.run([PROBABILITY], feed)[0][:, 1] - expected)
        # A NaN anywhere must not pass for agreement.
        worst = max(worst, float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0)))
        return len(expected)

    for number, feed in enumerate(batches):
        rows += compare(feed)
        if number == 0 and len(next(iter(feed.values()))):
            adversarial_rows = compare(adversarial(feed, booster, features_graph))
    tolerance = TOLERANCES[kind]
    # Nothing compared proves nothing.
    return ParityReport(rows, adversarial_rows, min(worst, INFINITE), tolerance, passed=rows > 0 and worst <= tolerance)


def adversarial(feed: Feed, booster: lgb.Booster, features_graph: bytes) -> dict[str, np.ndarray[Any, Any]]:
    """Rows where a wrong graph shows, each column drawn by itself (seeded).

    Values on the model's thresholds and a hair beside them, missing values, extremes, unknown and missing categories.
    """
    rng = np.random.default_rng(SEED)
    thresholds = _thresholds(booster)
    columns = [value.name for value in onnx.load_model_from_string(features_graph).graph.input]
    result: dict[str, np.ndarray[Any, Any]] = {}
    for index, name in enumerate(columns):
        seen = feed[name]
        if seen.dtype == object:
            pool = np.array([*sorted(set(seen.tolist())), "", "never seen before"], dtype=object)
        else:
            pool = np.concatenate([_around(thresholds.get(index, [])), seen[:200], [np.nan, 0.0, -0.0, 1e30, -1e30]])
        result[name] = pool[rng.integers(0, len(pool), ADVERSARIAL_ROWS)]
    return result


def _around(thresholds: list[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Each threshold, the float32 nearest to it, and that one's neighbours. The graph reads numbers as float32."""
    nearest = np.array(sorted(thresholds), np.float32)
    infinity = np.float32(np.inf)
    beside = [nearest, np.nextafter(nearest, infinity), np.nextafter(nearest, -infinity)]
    return np.concatenate([np.array(sorted(thresholds)), *(values.astype(np.float64) for values in beside)])


def _thresholds(booster: lgb.Booster) -> dict[int, list[float]]:
    """Finite thresholds by feature."""
    thresholds: dict[int, set[float]] = {}
    stack = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    while stack:
        node = stack.pop()
        if "split_feature" in node:
            if abs(node["threshold"]) < INFINITE:
                thresholds.setdefault(node["split_feature"], set()).add(float(node["threshold"]))
            stack += [node["left_child"], node["right_child"]]
    return {feature: sorted(values) for feature, values in thresholds.items()}
