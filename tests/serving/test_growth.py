"""Requests leave nothing behind: no cache, list or set of the process grows with what strangers send."""

from __future__ import annotations

import gc
import random
import tracemalloc
from pathlib import Path
from typing import Any

from serving.service import InferenceService
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE, publish
from tests.serving.requests import ROW, binary, body

ROUNDS = 300
ALLOWED_BYTES = 40_000
"""What tracemalloc's own noise and Python's free lists may make of 300 rounds; one kept request each would be more."""


def _round(service: InferenceService, rng: random.Random) -> None:
    """One request of every kind, each with names and values that were never seen before."""
    word = f"{rng.getrandbits(64):x}" * 20
    record: dict[str, Any] = {**ROW, "carrier": word}
    names = [PIPELINE, word]
    for name in names:
        service.predict(name, body(record))
        service.predict(name, body({**record, word: word}))
        service.infer(name, body({"inputs": [{"name": word, "datatype": word, "shape": [1], "data": [word]}]}), word)
        sent, headers = binary([("carrier", "BYTES", 1, word.encode())], id=word)
        service.infer(name, sent, headers={**headers, "accept-encoding": word, "content-encoding": word})
        service.invocations(name, body({"dataframe_records": [record]}), {"content-type": f"text/{word}"})
        service.invocations(name, f"{word}\n{word}".encode(), {"content-type": "text/csv"})
        service.metadata(name, "7" + str(rng.getrandbits(64)))
        service.model_ready(name, word)
        service.mlflow_version(name)
        service.ping(name)
    service.repository_index(body({word: word}))
    service.ready()


def test_a_stream_of_strange_requests_leaves_nothing_behind(blobs: MemoryBlobs, tmp_path: Path) -> None:
    publish(blobs, 1)
    service = InferenceService(blobs, tmp_path, 1e6, lambda: (PIPELINE,))
    rng = random.Random(1)
    for _ in range(ROUNDS // 3):
        _round(service, rng)
    blobs.reads.clear()
    tracemalloc.start()
    try:
        _round(service, rng)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(ROUNDS):
            _round(service, rng)
            blobs.reads.clear()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < ALLOWED_BYTES
