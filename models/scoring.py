"""Answers of a served graph, and how long one row takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

BATCH_ROWS = 65_536
LATENCY_RUNS, LATENCY_WARM_UP = 200, 20

type Feed = Mapping[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds for one row through the graph."""

    p50: float
    p99: float


def score(model: bytes, feeds: Feed, *, threads: int = 1) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The graph's answers, float64 [N, K] (probabilities of the classes; in a regression the values [N, 1])."""
    session = open_session(model, threads=threads)
    rows = len(next(iter(feeds.values())))
    (width,) = session.get_outputs()[0].shape[1:]
    result = np.empty((rows, width), np.float64)
    for start in range(0, rows, BATCH_ROWS):
        batch = {name: values[start : start + BATCH_ROWS] for name, values in feeds.items()}
        result[start : start + BATCH_ROWS] = session.run(None, batch)[0]
    return result


def measure_latency(model: bytes, one_row: Feed, timer: Callable[[], float]) -> Latency:
    """One row through the graph, many times. `timer` gives seconds, like time.perf_counter."""
    session = open_session(model, threads=1)
    taken = []
    for run in range(LATENCY_WARM_UP + LATENCY_RUNS):
        begin = timer()
        session.run(None, one_row)
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
