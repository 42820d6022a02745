"""Scores, and what they are worth: scikit-learn's metrics, and how long a row takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime

from models.manifest import PROBABILITY

BATCH_ROWS = 65_536
LATENCY_RUNS, LATENCY_WARM_UP = 200, 20


@dataclass(frozen=True, slots=True)
class Metrics:
    """Quality over rows. The figures are None where the rows do not say: no rows, or (AUC, AP) only one class."""

    rows: int
    positives: int
    auc: float | None
    average_precision: float | None
    log_loss: float | None
    brier: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds for one row through the graph."""

    p50: float
    p99: float


def evaluate(labels: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> Metrics:
    """Metrics of P(positive) `scores`, float64 [N], against `labels`, 0 or 1 [N]."""
    from sklearn import metrics

    rows, positives = len(labels), int(labels.sum())
    if rows == 0:
        return Metrics(0, 0, None, None, None, None)
    both = 0 < positives < rows
    return Metrics(
        rows=rows,
        positives=positives,
        auc=float(metrics.roc_auc_score(labels, scores)) if both else None,
        average_precision=float(metrics.average_precision_score(labels, scores)) if both else None,
        log_loss=float(metrics.log_loss(labels, scores, labels=[0, 1])),
        brier=float(metrics.brier_score_loss(labels, scores, pos_label=1)),
    )


def score(
    model: bytes, feeds: Mapping[str, np.ndarray[Any, Any]], *, threads: int = 1
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """P(positive), float64 [N], from a served graph, in batches."""
    session = open_session(model, threads=threads)
    rows = len(next(iter(feeds.values())))
    result = np.empty(rows, np.float64)
    for start in range(0, rows, BATCH_ROWS):
        batch = {name: values[start : start + BATCH_ROWS] for name, values in feeds.items()}
        result[start : start + BATCH_ROWS] = session.run([PROBABILITY], batch)[0][:, 1]
    return result


def measure_latency(model: bytes, one_row: Mapping[str, np.ndarray[Any, Any]], timer: Callable[[], float]) -> Latency:
    """One row through the graph, many times. `timer` gives seconds, like time.perf_counter."""
    session = open_session(model, threads=1)
    taken = []
    for run in range(LATENCY_WARM_UP + LATENCY_RUNS):
        begin = timer()
        session.run([PROBABILITY], one_row)
        if run >= LATENCY_WARM_UP:
            taken.append(timer() - begin)
    p50, p99 = np.percentile(taken, [50, 99]) * 1000
    return Latency(float(p50), float(p99))


def open_session(model: bytes, *, threads: int) -> onnxruntime.InferenceSession:
    """An onnxruntime session on `threads` threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
