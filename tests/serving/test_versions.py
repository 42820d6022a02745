"""Versions asked for by their number: loaded with the same proof, kept in small number, never a burden on storage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapters.blobs import Blob
from adapters.pointer import pointer_path, version_path
from serving.cache import ActiveModel, CacheLimits, ModelCache
from serving.errors import ModelRefused, UnknownModel, VersionUnavailable
from serving.limits import Deadline
from serving.service import InferenceService
from serving.versions import AWAY_SECONDS, MISSING_SECONDS, MOST_FAILURES, REFUSED_SECONDS
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE, expected, graph, publish
from tests.serving.test_cache import Clock, _here, _late

LIVE, KEPT = 9, 2


class Counting(MemoryBlobs):
    """Storage that counts the look-ups of manifests, also those that find none."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = 0

    def get(self, path: str, *, if_match: str | None = None) -> Blob:
        self.looked += path.endswith("model.json")
        return super().get(path, if_match=if_match)


@pytest.fixture
def blobs() -> Counting:
    """Versions 1 to 4 and the champion."""
    blobs = Counting()
    for version in (1, 2, 3, 4, LIVE):
        publish(blobs, version)
    return blobs


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(blobs: Counting, clock: Clock, tmp_path: Path) -> ModelCache:
    cache = ModelCache(blobs, tmp_path, 1.0, limits=CacheLimits(versions=KEPT), clock=clock, start=_here)
    cache.active(PIPELINE)
    blobs.looked = 0
    return cache


def _ask(cache: ModelCache, version: int | str) -> ActiveModel:
    return cache.version(PIPELINE, str(version))


def test_a_version_is_loaded_when_it_is_asked_for(cache: ModelCache) -> None:
    model = _ask(cache, 1)
    assert model.headers == {"x-ratchet-model-version": "1", "x-ratchet-run": "run-1"}
    assert _late(model) == expected(1, 100.0)
    assert cache.active(PIPELINE).manifest.version == LIVE


def test_the_live_version_by_its_number_is_the_live_one(cache: ModelCache, blobs: Counting) -> None:
    assert _ask(cache, LIVE) is cache.active(PIPELINE)
    assert blobs.looked == 0


def test_the_last_few_are_kept(cache: ModelCache, blobs: Counting) -> None:
    first, _ = _ask(cache, 1), _ask(cache, 2)
    assert _ask(cache, 1) is first
    assert blobs.looked == 2
    _ask(cache, 3)
    assert _ask(cache, 1) is first, "used later than 2, which had to go"
    _ask(cache, 2)
    assert blobs.looked == 4


def test_a_version_that_was_loaded_once_is_on_disk(cache: ModelCache, blobs: Counting) -> None:
    for version in (1, 2, 3, 1):
        _ask(cache, version)
    assert blobs.reads.count(version_path(PIPELINE, 1, "model.onnx")) == 1


def test_a_version_that_does_not_exist_is_looked_for_once(cache: ModelCache, blobs: Counting, clock: Clock) -> None:
    for _ in range(50):
        with pytest.raises(UnknownModel, match="flights has no version 7"):
            _ask(cache, 7)
    assert blobs.looked == 1
    publish(blobs, 7)
    clock.now += MISSING_SECONDS + 1
    assert _ask(cache, 7).manifest.version == 7, "it may be registered later"


def test_asking_for_one_number_after_another_does_not_hammer_storage(
    cache: ModelCache, blobs: Counting, clock: Clock
) -> None:
    _ask(cache, 1)
    blobs.looked = 0
    errors: list[Exception] = []
    for version in range(100, 5_000):
        with pytest.raises((UnknownModel, VersionUnavailable)) as caught:
            _ask(cache, version)
        errors.append(caught.value)
    assert blobs.looked == MOST_FAILURES
    assert isinstance(errors[-1], VersionUnavailable), "it may exist: nobody looked"
    assert _ask(cache, 1).manifest.version == 1, "what is loaded answers"
    clock.now += MISSING_SECONDS + 1
    assert _ask(cache, 2).manifest.version == 2


@pytest.mark.parametrize("version", ["", "01", "-1", "1.0", "v1", "٣", "../9", "1/../9", "1\n", "9" * 30, " 1"])
def test_what_is_no_number_reaches_no_storage(cache: ModelCache, blobs: Counting, version: str) -> None:
    blobs.away = True
    with pytest.raises(UnknownModel, match="is not the number of a version"):
        _ask(cache, version)
    assert blobs.looked == 0


def test_a_version_has_to_prove_itself(cache: ModelCache, blobs: Counting, clock: Clock) -> None:
    model = version_path(PIPELINE, 2, "model.onnx")
    blobs.put(model, graph(3))
    for _ in range(5):
        with pytest.raises(ModelRefused, match="not those that were registered"):
            _ask(cache, 2)
    assert blobs.looked == 1
    blobs.put(model, graph(2))
    clock.now += REFUSED_SECONDS + 1
    assert _late(_ask(cache, 2)) == expected(2, 100.0)


def test_a_version_without_its_model_is_refused(cache: ModelCache, blobs: Counting) -> None:
    blobs.delete(version_path(PIPELINE, 2, "model.onnx"))
    with pytest.raises(ModelRefused, match="and no model: there is no blob"):
        _ask(cache, 2)


def test_while_storage_is_away_it_says_so_and_is_not_asked_each_time(
    cache: ModelCache, blobs: Counting, clock: Clock
) -> None:
    kept = _ask(cache, 1)
    blobs.away = True
    for _ in range(5):
        with pytest.raises(VersionUnavailable, match="version 2 of flights: storage cannot be reached"):
            _ask(cache, 2)
    assert blobs.looked == 2
    assert _ask(cache, 1) is kept
    blobs.away = False
    clock.now += AWAY_SECONDS + 1
    assert _ask(cache, 2).manifest.version == 2


def test_a_rejected_version_answers_and_is_marked(cache: ModelCache, blobs: Counting) -> None:
    pointer = blobs.get(pointer_path(PIPELINE)).data
    publish(blobs, 5, rejected=True)
    blobs.put(pointer_path(PIPELINE), pointer)
    assert _ask(cache, 5).headers["x-ratchet-model-rejected"] == "true"
    assert "x-ratchet-model-rejected" not in _ask(cache, 4).headers


def test_before_the_first_promotion_versions_can_be_asked(blobs: Counting, clock: Clock, tmp_path: Path) -> None:
    blobs.delete(pointer_path(PIPELINE))
    assert ModelCache(blobs, tmp_path, 1.0, clock=clock, start=_here).version(PIPELINE, "3").manifest.version == 3


def test_who_asks_at_the_same_time_shares_one_load(cache: ModelCache, blobs: Counting) -> None:
    barrier = threading.Barrier(8)

    def ask(_: int) -> ActiveModel:
        barrier.wait(30)
        return _ask(cache, 3)

    with ThreadPoolExecutor(8) as pool:
        models = list(pool.map(ask, range(8)))
    assert all(model is models[0] for model in models)
    assert blobs.looked == 1


class Hanging(Counting):
    """Storage that answers a look-up of a manifest only once the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def get(self, path: str, *, if_match: str | None = None) -> Blob:
        if path.endswith("model.json"):
            assert self.gate.wait(30)
        return super().get(path, if_match=if_match)


def test_nobody_waits_for_a_version_beyond_the_deadline(tmp_path: Path) -> None:
    """Storage that hangs says so only after many seconds. The load goes on, and then the version is there."""
    blobs = Hanging()
    publish(blobs, 3)
    blobs.delete(pointer_path(PIPELINE))
    cache = ModelCache(blobs, tmp_path, 60.0)
    for _ in range(2):
        with pytest.raises(VersionUnavailable, match="still being loaded"):
            cache.version(PIPELINE, "3", Deadline(time.monotonic, 0.05))
    assert not blobs.gate.is_set()
    blobs.gate.set()
    assert cache.version(PIPELINE, "3").manifest.version == 3
    assert blobs.looked == 1, "the load that was begun"


def test_what_waits_to_be_loaded_is_bounded(tmp_path: Path) -> None:
    blobs = Hanging()
    cache = ModelCache(blobs, tmp_path, 60.0)
    reasons = []
    for version in range(MOST_FAILURES + 10):
        with pytest.raises(VersionUnavailable) as caught:
            cache.version(PIPELINE, str(version), Deadline(time.monotonic, 0.0))
        reasons.append(str(caught.value))
    assert ["still being loaded" in reason for reason in reasons] == [True] * MOST_FAILURES + [False] * 10
    blobs.gate.set()


def test_a_process_without_a_thread_to_spare_loads_it_all_the_same(
    blobs: Counting, clock: Clock, tmp_path: Path
) -> None:
    def start(work: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    cache = ModelCache(blobs, tmp_path, 1.0, clock=clock, start=start)
    assert cache.version(PIPELINE, "3").manifest.version == 3


def test_over_http_a_version_is_found_or_not(blobs: Counting, tmp_path: Path) -> None:
    service = InferenceService(blobs, tmp_path, 60.0, lambda: (PIPELINE,))
    body = b'{"inputs": [{"name": "distance", "datatype": "FP64", "shape": [1], "data": [100.0]}]}'
    answer = service.infer(PIPELINE, body, "2")
    assert (answer.status, answer.headers["x-ratchet-model-version"]) == (200, "2")
    assert service.infer(PIPELINE, body, "77").status == 404
    blobs.away = True
    away = service.infer(PIPELINE, body, "3")
    assert (away.status, "retry-after" in away.headers) == (503, True)
