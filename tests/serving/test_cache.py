"""The hot swap: what serves, what is refused, and what happens when storage goes away."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.manifest import GoldenRows
from serving.cache import REFUSED_PAUSE_SECONDS, ActiveModel, ModelCache
from serving.disk import KEPT_MODELS
from serving.errors import NoModelYet
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE, expected, golden, graph, publish


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _here(work: Callable[[], None]) -> None:
    work()


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(blobs: MemoryBlobs, clock: Clock, tmp_path: Path) -> ModelCache:
    """A cache that checks in the calling thread, so that a test sees the check's effect."""
    return ModelCache(blobs, tmp_path, 1.0, clock=clock, start=_here)


def _later(cache: ModelCache, clock: Clock, seconds: float = 2.0) -> ActiveModel:
    """The model that answers once a check has been due and made."""
    clock.now += seconds
    cache.active(PIPELINE)
    return cache.active(PIPELINE)


def _late(model: ActiveModel, distance: float = 100.0) -> float:
    record = {"distance": distance, "carrier": "AA", "at": 0.0}
    return float(model.session.run(model.reader.from_records([record]))[0, 1])


def test_without_a_champion_there_is_no_model_yet(cache: ModelCache) -> None:
    with pytest.raises(NoModelYet, match="nothing was promoted so far") as caught:
        cache.active(PIPELINE)
    assert caught.value.retry_after_seconds > 0


def test_the_first_champion_is_served_as_soon_as_it_is_there(
    blobs: MemoryBlobs, cache: ModelCache, clock: Clock
) -> None:
    with pytest.raises(NoModelYet):
        cache.active(PIPELINE)
    publish(blobs, 1)
    clock.now += 2
    model = cache.active(PIPELINE)
    assert model.manifest.version == 1
    assert model.headers == {"x-ratchet-model-version": "1", "x-ratchet-run": "run-1"}
    assert _late(model) == expected(1, 100.0)


def test_a_new_champion_replaces_the_old_one(blobs: MemoryBlobs, cache: ModelCache, clock: Clock) -> None:
    publish(blobs, 1)
    old = cache.active(PIPELINE)
    publish(blobs, 2)
    assert cache.active(PIPELINE) is old, "the pointer is not looked at before its time"
    assert _later(cache, clock).manifest.version == 2
    assert _late(old) == expected(1, 100.0), "a request in flight finishes on the old session"


def test_an_unchanged_pointer_loads_nothing(blobs: MemoryBlobs, cache: ModelCache, clock: Clock) -> None:
    publish(blobs, 1)
    model = cache.active(PIPELINE)
    reads = len(blobs.reads)
    assert _later(cache, clock) is model
    assert len(blobs.reads) == reads


BAD_VERSIONS = {
    "bytes of another model": ({"model": graph(7)}, "not those that were registered"),
    "a cut-off file": ({"model": graph(2)[:100]}, "not those that were registered"),
    "other golden answers": (
        {"golden": GoldenRows(golden(graph(2)).inputs, golden(graph(3)).probabilities)},
        "answers its golden rows differently",
    ),
    "no ONNX": (
        {"model": b"nonsense", "model_sha256": hashlib.sha256(b"nonsense").hexdigest()},
        "cannot be loaded",
    ),
}


@pytest.mark.parametrize("case", BAD_VERSIONS)
def test_a_bad_model_is_refused_and_the_champion_stays(
    case: str, blobs: MemoryBlobs, cache: ModelCache, clock: Clock
) -> None:
    changes, reason = BAD_VERSIONS[case]
    publish(blobs, 1)
    cache.active(PIPELINE)
    publish(blobs, 2, **changes)  # type: ignore[arg-type]
    assert _later(cache, clock).manifest.version == 1
    assert reason in cache.status(PIPELINE)["last_error"]
    publish(blobs, 3)
    assert _later(cache, clock).manifest.version == 3
    assert cache.status(PIPELINE)["last_error"] is None


def test_a_refused_model_is_left_alone_for_a_while(blobs: MemoryBlobs, cache: ModelCache, clock: Clock) -> None:
    publish(blobs, 1)
    cache.active(PIPELINE)
    publish(blobs, 2, model=graph(7))
    _later(cache, clock)
    reads = len(blobs.reads)
    _later(cache, clock)
    assert len(blobs.reads) == reads, "not downloaded again"
    blobs.put(f"models/{PIPELINE}/versions/2/model.onnx", graph(2))
    assert _later(cache, clock, REFUSED_PAUSE_SECONDS + 1).manifest.version == 2


def test_a_pointer_that_cannot_be_read_changes_nothing(blobs: MemoryBlobs, cache: ModelCache, clock: Clock) -> None:
    publish(blobs, 1)
    cache.active(PIPELINE)
    blobs.put(f"models/{PIPELINE}/live.json", b'{"schema": 99}')
    assert _later(cache, clock).manifest.version == 1
    assert "schema 99" in cache.status(PIPELINE)["last_error"]


def test_serving_goes_on_while_storage_is_away(blobs: MemoryBlobs, cache: ModelCache, clock: Clock) -> None:
    publish(blobs, 1)
    cache.active(PIPELINE)
    blobs.away = True
    assert _later(cache, clock).manifest.version == 1
    assert "cannot be reached" in cache.status(PIPELINE)["last_error"]


def test_a_restart_while_storage_is_away_serves_the_last_champion(blobs: MemoryBlobs, tmp_path: Path) -> None:
    publish(blobs, 1)
    ModelCache(blobs, tmp_path, 1.0).active(PIPELINE)
    blobs.away = True
    again = ModelCache(blobs, tmp_path, 1.0)
    assert _late(again.active(PIPELINE)) == expected(1, 100.0)


def test_a_restart_does_not_download_the_model_again(blobs: MemoryBlobs, tmp_path: Path) -> None:
    publish(blobs, 1)
    ModelCache(blobs, tmp_path, 1.0).active(PIPELINE)
    blobs.reads.clear()
    ModelCache(blobs, tmp_path, 1.0).active(PIPELINE)
    assert [path for path in blobs.reads if path.endswith(".onnx")] == []


def test_a_damaged_file_in_the_disk_cache_is_not_served(blobs: MemoryBlobs, tmp_path: Path) -> None:
    publish(blobs, 1)
    ModelCache(blobs, tmp_path, 1.0).active(PIPELINE)
    (path,) = tmp_path.rglob("*.onnx")
    path.write_bytes(graph(9))
    assert _late(ModelCache(blobs, tmp_path, 1.0).active(PIPELINE)) == expected(1, 100.0)
    path.write_bytes(graph(9))
    blobs.away = True
    with pytest.raises(NoModelYet):
        ModelCache(blobs, tmp_path, 1.0).active(PIPELINE)


def test_the_disk_cache_stays_small(blobs: MemoryBlobs, cache: ModelCache, clock: Clock, tmp_path: Path) -> None:
    for version in range(1, KEPT_MODELS + 4):
        publish(blobs, version)
        clock.now += 2
        cache.refresh(PIPELINE)
    assert len(list(tmp_path.rglob("*.onnx"))) == KEPT_MODELS


def test_a_disk_that_cannot_be_written_costs_the_cache_only(blobs: MemoryBlobs, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    publish(blobs, 1)
    assert ModelCache(blobs, blocked, 1.0).active(PIPELINE).manifest.version == 1


def test_no_request_sees_half_a_swap(blobs: MemoryBlobs, tmp_path: Path) -> None:
    """Many threads ask while versions change: each answer belongs to the version that its model names."""
    publish(blobs, 1)
    cache = ModelCache(blobs, tmp_path, 0.0)
    seen: set[int] = set()
    wrong: list[tuple[int, float]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            model = cache.active(PIPELINE)
            version, probability = model.manifest.version, _late(model, 10.0)
            seen.add(version)
            if not np.isclose(probability, expected(version, 10.0), rtol=0, atol=1e-12):
                wrong.append((version, probability))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for version in range(2, 12):
        publish(blobs, version)
        cache.refresh(PIPELINE)
    stop.set()
    for thread in threads:
        thread.join(timeout=30)
    assert not wrong
    assert cache.active(PIPELINE).manifest.version == 11
    assert len(seen) > 1
