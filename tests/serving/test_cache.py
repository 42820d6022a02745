"""The hot swap: what serves, what is refused, and what happens when storage goes away."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adapters.blobs import Blob, StorageUnavailable
from adapters.pointer import pointer_path, version_path
from models.manifest import GoldenRows, InputColumn
from serving import cache as cache_module
from serving import loading
from serving.cache import (
    JITTER,
    LONGEST_PAUSE_SECONDS,
    LONGEST_REFUSED_PAUSE_SECONDS,
    REFUSED_PAUSE_SECONDS,
    ActiveModel,
    CacheLimits,
    ModelCache,
)
from serving.errors import NoModelYet
from serving.session import Session
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE, SIGNATURE, expected, golden, graph, publish

MODEL_2 = f"models/{PIPELINE}/versions/2/model.onnx"


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
    "a hash that is a path": ({"model_sha256": "../../../live"}, "'../../../live' is no SHA-256"),
    "a model in another container": (
        {"model_path": "training/flights/model.onnx"},
        "with the model at 'training/flights/model.onnx'",
    ),
    "the manifest of another pipeline": ({"pipeline": "trains"}, "its model.json is of version 2 of trains"),
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
    "no golden rows": (
        {"golden": GoldenRows(dict.fromkeys(("distance", "carrier", "at"), ()), ())},
        "no golden rows",
    ),
    "golden rows without an input": (
        {"golden": GoldenRows({"distance": (1.0,)}, ((0.5, 0.5),))},
        "no golden values for the input 'carrier'",
    ),
    "a positive class that is none": ({"signature": dataclasses.replace(SIGNATURE, positive="yes")}, "'yes'"),
    "more classes than probabilities": (
        {"signature": dataclasses.replace(SIGNATURE, classes=("early", "on time", "late"))},
        "for 3 classes",
    ),
    "an input that the graph lacks": (
        {
            "signature": dataclasses.replace(SIGNATURE, inputs=(*SIGNATURE.inputs, InputColumn("speed", "number"))),
            "golden": dataclasses.replace(
                golden(graph(2)), inputs={**golden(graph(2)).inputs, "speed": (1.0, 2.0, 3.0)}
            ),
        },
        "does not run on its golden rows",
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
    assert "version 2" in cache.status(PIPELINE)["last_error"]
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


def test_a_golden_answer_that_differs_in_the_sign_of_zero_is_another(blobs: MemoryBlobs, cache: ModelCache) -> None:
    """P(late) of version 0 at distance 0 is 0.0: equal to -0.0, but not the same bits."""
    right = golden(graph(0))
    rows = tuple(tuple(-0.0 if value == 0.0 else value for value in row) for row in right.probabilities)
    assert rows == right.probabilities
    publish(blobs, 0, golden=dataclasses.replace(right, probabilities=rows))
    with pytest.raises(NoModelYet, match="golden rows differently"):
        cache.active(PIPELINE)


def test_a_refusal_keeps_its_reason_when_storage_was_away_meanwhile(
    blobs: MemoryBlobs, cache: ModelCache, clock: Clock
) -> None:
    publish(blobs, 1)
    cache.active(PIPELINE)
    publish(blobs, 2, model=graph(7))
    _later(cache, clock)
    refused = cache.status(PIPELINE)["last_error"]
    blobs.away = True
    _later(cache, clock)
    assert cache.status(PIPELINE)["last_error"] == "storage cannot be reached"
    blobs.away = False
    _later(cache, clock)
    assert cache.status(PIPELINE)["last_error"] == refused


def test_a_mended_model_under_a_new_version_is_not_held_up(blobs: MemoryBlobs, cache: ModelCache, clock: Clock) -> None:
    """The pause is for the version that was refused; another promotion is another chance, even of the same bytes."""
    publish(blobs, 1)
    cache.active(PIPELINE)
    same = {"model_sha256": hashlib.sha256(graph(2)).hexdigest(), "golden": golden(graph(2))}
    publish(blobs, 2, model=graph(7))
    assert _later(cache, clock).manifest.version == 1
    publish(blobs, 3, model=graph(2), **same)
    assert _later(cache, clock).manifest.version == 3


def test_two_bad_models_in_turn_keep_the_champion(blobs: MemoryBlobs, cache: ModelCache, clock: Clock) -> None:
    """The second one's refusal does not hide the first one's reason, and each is looked at when it is named."""
    publish(blobs, 1)
    cache.active(PIPELINE)
    for failures, (version, model, problem) in enumerate(
        [(2, graph(7), "version 2"), (3, b"cut off", "version 3"), (2, graph(8), "version 2")], start=1
    ):
        publish(blobs, version, model=model)
        assert _later(cache, clock).manifest.version == 1
        status = cache.status(PIPELINE)
        assert problem in status["last_error"]
        assert (status["failures"], status["version"]) == (failures, 1)
    publish(blobs, 1)
    assert _later(cache, clock).manifest.version == 1
    assert cache.status(PIPELINE)["last_error"] is None, "the pointer is back at what serves"
    assert cache.status(PIPELINE)["swaps"] == 1


def test_a_version_with_the_bytes_of_the_last_one_is_still_a_new_version(
    blobs: MemoryBlobs, cache: ModelCache, clock: Clock
) -> None:
    publish(blobs, 1)
    cache.active(PIPELINE)
    same = {"model_sha256": hashlib.sha256(graph(1)).hexdigest(), "golden": golden(graph(1))}
    publish(blobs, 2, model=graph(1), **same)
    assert _later(cache, clock).headers == {"x-ratchet-model-version": "2", "x-ratchet-run": "run-2"}


@pytest.mark.parametrize("missing", ["model.onnx", "model.json"])
def test_a_pointer_to_files_that_are_not_there_is_reported(
    missing: str, blobs: MemoryBlobs, cache: ModelCache, clock: Clock
) -> None:
    publish(blobs, 1)
    cache.active(PIPELINE)
    publish(blobs, 2)
    blobs.delete(f"models/{PIPELINE}/versions/2/{missing}")
    assert _later(cache, clock).manifest.version == 1
    assert f"versions/2/{missing}" in cache.status(PIPELINE)["last_error"]
    reads = len(blobs.reads)
    _later(cache, clock)
    assert len(blobs.reads) == reads, "left alone for a while"


def test_a_pointer_that_is_gone_is_reported_and_the_champion_stays(
    blobs: MemoryBlobs, cache: ModelCache, clock: Clock
) -> None:
    publish(blobs, 1)
    cache.active(PIPELINE)
    blobs.delete(pointer_path(PIPELINE))
    assert _later(cache, clock).manifest.version == 1
    assert "pointer is gone" in cache.status(PIPELINE)["last_error"]


NO_DOCUMENTS = [b'{"schema": 99}', b"[]", b"null", b"", b"\xff", b'{"schema": 1}', b'{"schema": 1, "champion": 5}']


@pytest.mark.parametrize("document", NO_DOCUMENTS)
def test_a_pointer_that_cannot_be_read_changes_nothing(
    document: bytes, blobs: MemoryBlobs, cache: ModelCache, clock: Clock
) -> None:
    publish(blobs, 1)
    cache.active(PIPELINE)
    blobs.put(pointer_path(PIPELINE), document)
    assert _later(cache, clock).manifest.version == 1
    assert "pointer cannot be read" in cache.status(PIPELINE)["last_error"]


def test_a_pointer_that_cannot_be_read_is_read_and_counted_once(
    counting: tuple[Counting, ModelCache], clock: Clock
) -> None:
    blobs, cache = counting
    cache.active(PIPELINE)
    blobs.put(pointer_path(PIPELINE), b"[]")
    blobs.fetched = 0
    for _ in range(5):
        _later(cache, clock)
        assert "pointer cannot be read" in cache.status(PIPELINE)["last_error"]
    assert blobs.fetched == 1, "it is known that it has not changed"
    assert cache.status(PIPELINE)["failures"] == 1
    publish(blobs, 2)
    assert _later(cache, clock).manifest.version == 2
    assert cache.status(PIPELINE)["last_error"] is None
    _later(cache, clock)
    assert cache.status(PIPELINE)["last_error"] is None


@pytest.mark.parametrize("document", NO_DOCUMENTS)
def test_a_manifest_that_cannot_be_read_changes_nothing(
    document: bytes, blobs: MemoryBlobs, cache: ModelCache, clock: Clock
) -> None:
    publish(blobs, 1)
    cache.active(PIPELINE)
    publish(blobs, 2)
    blobs.put(f"models/{PIPELINE}/versions/2/model.json", document)
    assert _later(cache, clock).manifest.version == 1
    assert "model.json cannot be read" in cache.status(PIPELINE)["last_error"]


class Failing(MemoryBlobs):
    """Storage whose reads of chosen paths fail in a chosen way."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: dict[str, Exception] = {}

    def get(self, path: str, *, if_match: str | None = None) -> Blob:
        if path in self.failures:
            raise self.failures[path]
        return super().get(path, if_match=if_match)


def test_storage_that_goes_away_half_way_is_tried_again_at_the_next_check(clock: Clock, tmp_path: Path) -> None:
    blobs = Failing()
    cache = ModelCache(blobs, tmp_path, 1.0, clock=clock, start=_here)
    publish(blobs, 1)
    cache.active(PIPELINE)
    publish(blobs, 2)
    blobs.failures[MODEL_2] = StorageUnavailable(MODEL_2, "storage cannot be reached")
    assert _later(cache, clock).manifest.version == 1
    blobs.failures.clear()
    assert _later(cache, clock).manifest.version == 2


def test_an_error_of_another_kind_is_reported_and_does_not_end_the_looking(clock: Clock, tmp_path: Path) -> None:
    blobs = Failing()
    cache = ModelCache(blobs, tmp_path, 1.0, clock=clock, start=_here)
    publish(blobs, 1)
    cache.active(PIPELINE)
    publish(blobs, 2)
    blobs.failures[MODEL_2] = MemoryError("no room")
    assert _later(cache, clock).manifest.version == 1
    assert cache.status(PIPELINE)["last_error"] == "MemoryError: no room"
    blobs.failures.clear()
    assert _later(cache, clock, REFUSED_PAUSE_SECONDS + 1).manifest.version == 2


def test_a_process_without_a_thread_to_spare_goes_on_serving(blobs: MemoryBlobs, clock: Clock, tmp_path: Path) -> None:
    full = True

    def start(work: Callable[[], None]) -> None:
        if full:
            raise RuntimeError("can't start new thread")
        work()

    cache = ModelCache(blobs, tmp_path, 1.0, clock=clock, start=start)
    publish(blobs, 1)
    cache.active(PIPELINE)
    publish(blobs, 2)
    assert _later(cache, clock).manifest.version == 1
    assert "can't start new thread" in cache.status(PIPELINE)["last_error"]
    full = False
    assert _later(cache, clock).manifest.version == 2


def test_a_pointer_to_a_manifest_elsewhere_is_refused(blobs: MemoryBlobs, cache: ModelCache, clock: Clock) -> None:
    """Models come from their own place in the models container only, whatever the pointer says."""
    publish(blobs, 1)
    cache.active(PIPELINE)
    publish(blobs, 2)
    there = version_path(PIPELINE, 2, "model.json")
    blobs.put("training/flights/model.json", blobs.get(there).data)
    pointer = blobs.get(pointer_path(PIPELINE)).data.replace(there.encode(), b"training/flights/model.json")
    blobs.put(pointer_path(PIPELINE), pointer)
    assert _later(cache, clock).manifest.version == 1
    assert "from their own place in the models container only" in cache.status(PIPELINE)["last_error"]


def test_a_pointer_that_names_what_serves_in_another_place_is_told(
    blobs: MemoryBlobs, cache: ModelCache, clock: Clock
) -> None:
    """A process that starts with such a pointer would refuse it, so those that run say so too."""
    publish(blobs, 1)
    cache.active(PIPELINE)
    pointer = blobs.get(pointer_path(PIPELINE)).data.replace(b"/flights/versions", b"/trains/versions")
    blobs.put(pointer_path(PIPELINE), pointer)
    assert _later(cache, clock).manifest.version == 1
    assert "from their own place in the models container only" in cache.status(PIPELINE)["last_error"]


def test_failures_are_counted(blobs: MemoryBlobs, cache: ModelCache, clock: Clock) -> None:
    def counters() -> tuple[int, int, int]:
        status = cache.status(PIPELINE)
        return status["swaps"], status["failures"], status["failures_in_a_row"]

    publish(blobs, 1)
    cache.active(PIPELINE)
    assert counters() == (1, 0, 0)
    blobs.away = True
    for failures in (1, 2, 3):
        _later(cache, clock, 20.0)
        assert counters() == (1, failures, failures)
    blobs.away = False
    publish(blobs, 2, model=graph(7))
    _later(cache, clock, 20.0)
    assert counters() == (1, 4, 0), "storage has answered, with a model that was refused"
    _later(cache, clock)
    assert counters() == (1, 4, 0), "a refusal that is known is none anew"
    publish(blobs, 3)
    _later(cache, clock)
    assert counters() == (2, 4, 0)


class Counting(MemoryBlobs):
    """Storage that counts how often it is asked for the pointer, and how often it gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = self.fetched = 0

    def get_if_changed(self, path: str, *, etag: str | None) -> Blob | None:
        self.asked += 1
        blob = super().get_if_changed(path, etag=etag)
        self.fetched += blob is not None
        return blob


@pytest.fixture
def counting(clock: Clock, tmp_path: Path) -> tuple[Counting, ModelCache]:
    blobs = Counting()
    publish(blobs, 1)
    return blobs, ModelCache(blobs, tmp_path, 1.0, clock=clock, start=_here)


def _requests(cache: ModelCache, clock: Clock, seconds: float) -> None:
    """One request every hundredth of a second, for so long."""
    for _ in range(round(seconds * 100)):
        clock.now += 0.01
        cache.active(PIPELINE)


def test_the_pointer_is_asked_for_at_most_once_per_ttl(counting: tuple[Counting, ModelCache], clock: Clock) -> None:
    blobs, cache = counting
    cache.active(PIPELINE)
    blobs.asked = 0
    _requests(cache, clock, 100.0)
    assert 100 / (1 + JITTER) - 1 <= blobs.asked <= 100


def test_storage_that_is_away_is_asked_ever_less_but_every_ten_seconds(
    counting: tuple[Counting, ModelCache], clock: Clock
) -> None:
    blobs, cache = counting
    cache.active(PIPELINE)
    blobs.away, blobs.asked = True, 0
    _requests(cache, clock, 100.0)
    assert 100 / (LONGEST_PAUSE_SECONDS * (1 + JITTER)) <= blobs.asked <= 100 / LONGEST_PAUSE_SECONDS + 5
    blobs.away, blobs.asked = False, 0
    _requests(cache, clock, 30.0)
    assert blobs.asked >= 15, "once it answers, it is asked as before"


def test_a_model_that_is_refused_again_and_again_is_tried_ever_less(
    blobs: MemoryBlobs, cache: ModelCache, clock: Clock
) -> None:
    publish(blobs, 1)
    cache.active(PIPELINE)
    publish(blobs, 2, model=graph(7))
    blobs.reads.clear()
    for _ in range(4 * 3600):
        _later(cache, clock, 1.3)
    tries = blobs.reads.count(MODEL_2)
    assert 8 <= tries <= 8 + 5 * 3600 / LONGEST_REFUSED_PAUSE_SECONDS
    publish(blobs, 3)
    assert _later(cache, clock).manifest.version == 3, "the pointer is looked at all the while"


def _background(work: Callable[[], None]) -> None:
    threading.Thread(target=work).start()


def test_after_a_long_silence_a_request_waits_for_one_check(blobs: MemoryBlobs, clock: Clock, tmp_path: Path) -> None:
    publish(blobs, 1)
    cache = ModelCache(blobs, tmp_path, 1.0, limits=CacheLimits(max_age_seconds=10.0), clock=clock, start=_background)
    cache.active(PIPELINE)
    publish(blobs, 2)
    clock.now += 10.1
    assert cache.active(PIPELINE).manifest.version == 2


def test_that_wait_has_an_end(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "STALE_WAIT_SECONDS", 0.05)
    blobs = Gated()
    publish(blobs, 1)
    cache = ModelCache(blobs, tmp_path, 1.0, clock=clock, start=_background)
    cache.active(PIPELINE)
    publish(blobs, 2)
    clock.now += 60
    assert cache.active(PIPELINE).manifest.version == 1, "the new one is being loaded for longer than anybody waits"
    blobs.gate.set()


def test_nobody_waits_for_storage_that_is_known_to_be_away(blobs: MemoryBlobs, clock: Clock, tmp_path: Path) -> None:
    """The first request after a silence finds out; the others are answered at once, however old the model is."""
    held: list[Callable[[], None]] = []
    holding = False

    def start(work: Callable[[], None]) -> None:
        (held.append if holding else _background)(work)

    cache = ModelCache(blobs, tmp_path, 1.0, clock=clock, start=start)
    publish(blobs, 1)
    cache.active(PIPELINE)
    blobs.away = True
    clock.now += 60
    cache.active(PIPELINE)
    assert cache.status(PIPELINE)["failures_in_a_row"] == 1
    clock.now += 60
    holding = True
    assert cache.active(PIPELINE).manifest.version == 1
    assert len(held) == 1, "the check is still to be made, and nobody waited for it"
    held.pop()()


def test_storage_that_does_not_answer_at_the_start_does_not_hold_up_the_last_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network that swallows packets takes many seconds to say so. The champion follows as soon as it is there."""
    monkeypatch.setattr(cache_module, "PATIENCE_SECONDS", 0.05)
    blobs = Gated()
    blobs.gate.set()
    publish(blobs, 1)
    ModelCache(blobs, tmp_path, 1.0).active(PIPELINE)
    publish(blobs, 2)
    blobs.gate.clear()
    again = ModelCache(blobs, tmp_path, 0.0, start=_background)
    assert _late(again.active(PIPELINE)) == expected(1, 100.0)
    assert again.status(PIPELINE)["last_error"] == "storage has not answered yet"
    blobs.gate.set()
    _until(lambda: again.active(PIPELINE).manifest.version == 2)
    _until(lambda: again.status(PIPELINE)["last_error"] is None)


def test_the_champion_from_disk_is_confirmed_without_loading_it_again(
    blobs: MemoryBlobs, clock: Clock, tmp_path: Path
) -> None:
    publish(blobs, 1)
    ModelCache(blobs, tmp_path, 1.0).active(PIPELINE)
    blobs.away = True
    again = ModelCache(blobs, tmp_path, 1.0, clock=clock, start=_here)
    model = again.active(PIPELINE)
    blobs.away = False
    blobs.reads.clear()
    assert _later(again, clock, 20.0) is model
    assert blobs.reads == []
    assert again.status(PIPELINE)["last_error"] is None


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_the_old_session_is_freed_when_its_last_request_is_done(
    blobs: MemoryBlobs, cache: ModelCache, clock: Clock
) -> None:
    publish(blobs, 1)
    in_flight = cache.active(PIPELINE)
    session = weakref.ref(in_flight.session)
    publish(blobs, 2)
    _later(cache, clock)
    assert session() is not None
    assert _late(in_flight) == expected(1, 100.0)
    del in_flight
    assert session() is None, "freed at once, without a garbage collection"


def test_a_refused_model_is_freed_too(
    blobs: MemoryBlobs, cache: ModelCache, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Session]] = []

    class Watched(Session):
        def __init__(self, model: bytes) -> None:
            super().__init__(model)
            made.append(weakref.ref(self))

    monkeypatch.setattr(loading, "Session", Watched)
    publish(blobs, 1)
    cache.active(PIPELINE)
    publish(blobs, 2, golden=GoldenRows(golden(graph(2)).inputs, golden(graph(3)).probabilities))
    _later(cache, clock)
    assert [session() is None for session in made] == [False, True]


class Slow(MemoryBlobs):
    """Storage that is away, and takes its time to say so."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.asked = 0
        self._clock, self._seconds = clock, seconds

    def get_if_changed(self, path: str, *, etag: str | None) -> Blob | None:
        self.asked += 1
        self._clock.now += self._seconds
        raise StorageUnavailable(path, "storage cannot be reached")


def test_without_a_model_only_one_request_waits_for_storage_that_is_away(clock: Clock, tmp_path: Path) -> None:
    """Longer than the TTL: those who queued behind the first must not each wait as long again."""
    blobs = Slow(clock, seconds=15.0)
    cache = ModelCache(blobs, tmp_path, 1.0, clock=clock, start=_here)
    for _ in range(3):
        with pytest.raises(NoModelYet, match="cannot be reached"):
            cache.active(PIPELINE)
    assert blobs.asked == 1


def test_the_status_tells_since_when_and_how_old(blobs: MemoryBlobs, cache: ModelCache, clock: Clock) -> None:
    empty = cache.status(PIPELINE)
    assert (empty["version"], empty["since"], empty["age_seconds"]) == (None, None, None)
    publish(blobs, 1)
    cache.active(PIPELINE)
    blobs.away = True
    _later(cache, clock, 60.0)
    status = cache.status(PIPELINE)
    assert (status["version"], status["run"], status["age_seconds"]) == (1, "run-1", 60.0)
    assert status["since"] is not None
    assert status["last_check"] is not None


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


def test_a_restart_while_the_champion_is_refused_serves_the_last_good_one(
    blobs: MemoryBlobs, clock: Clock, tmp_path: Path
) -> None:
    publish(blobs, 1)
    ModelCache(blobs, tmp_path, 1.0).active(PIPELINE)
    publish(blobs, 2, model=graph(7))
    again = ModelCache(blobs, tmp_path, 1.0, clock=clock, start=_here)
    assert again.active(PIPELINE).manifest.version == 1
    assert "version 2" in again.status(PIPELINE)["last_error"]
    publish(blobs, 3)
    assert _later(again, clock).manifest.version == 3


def test_what_nobody_promoted_is_not_served_from_disk(blobs: MemoryBlobs, tmp_path: Path) -> None:
    """Storage that answers is believed: another environment may have used the directory."""
    publish(blobs, 1)
    ModelCache(blobs, tmp_path, 1.0).active(PIPELINE)
    with pytest.raises(NoModelYet, match="nothing was promoted"):
        ModelCache(MemoryBlobs(), tmp_path, 1.0).active(PIPELINE)


def test_what_was_remembered_of_another_pipeline_is_not_served(blobs: MemoryBlobs, tmp_path: Path) -> None:
    publish(blobs, 1)
    ModelCache(blobs, tmp_path, 1.0).active(PIPELINE)
    (path,) = (tmp_path / "champions").iterdir()
    path.write_bytes(path.read_bytes().replace(b'"flights"', b'"trains"'))
    blobs.away = True
    with pytest.raises(NoModelYet, match="of version 1 of trains"):
        ModelCache(blobs, tmp_path, 1.0).active(PIPELINE)


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


def test_a_disk_that_cannot_be_written_costs_the_cache_only(blobs: MemoryBlobs, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    publish(blobs, 1)
    assert ModelCache(blobs, blocked, 1.0).active(PIPELINE).manifest.version == 1


class Gated(MemoryBlobs):
    """Storage whose model downloads wait for a gate, so that a test can look around during a swap."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.gate = threading.Event(), threading.Event()

    def get(self, path: str, *, if_match: str | None = None) -> Blob:
        if path == MODEL_2:
            self.entered.set()
            assert self.gate.wait(30)
        return super().get(path, if_match=if_match)


def test_requests_do_not_wait_while_a_model_is_loaded(tmp_path: Path) -> None:
    blobs = Gated()
    done = threading.Event()

    def start(work: Callable[[], None]) -> None:
        def then_tell() -> None:
            work()
            done.set()

        threading.Thread(target=then_tell).start()

    cache = ModelCache(blobs, tmp_path, 0.0, start=start)
    publish(blobs, 1)
    cache.active(PIPELINE)
    publish(blobs, 2)
    in_flight = cache.active(PIPELINE)
    assert blobs.entered.wait(30), "the check runs beside the request"
    for _ in range(3):
        assert cache.active(PIPELINE) is in_flight
    done.clear()
    blobs.gate.set()
    assert done.wait(30)
    assert cache.active(PIPELINE).manifest.version == 2
    assert _late(in_flight) == expected(1, 100.0), "who started on the old session finishes on it"


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


def test_who_would_wait_is_known_without_waiting(clock: Clock, tmp_path: Path) -> None:
    """Requests for what is there are answered on the event loop, which must never wait."""
    blobs = MemoryBlobs()
    cache = ModelCache(blobs, tmp_path, 1.0, limits=CacheLimits(max_age_seconds=10.0), clock=clock, start=_here)
    publish(blobs, 1)
    assert cache.would_wait(PIPELINE), "nothing is loaded"
    cache.active(PIPELINE)
    assert not cache.would_wait(PIPELINE)
    assert not cache.would_wait(PIPELINE, "1")
    clock.now += 5
    assert not cache.would_wait(PIPELINE), "the check is made beside"
    assert [cache.would_wait(PIPELINE, version) for version in ("2", "x")] == [True, True]
    clock.now += 60
    assert cache.would_wait(PIPELINE), "after a silence"
    cache.active(PIPELINE)
    publish(blobs, 2)
    _later(cache, clock)
    assert cache.would_wait(PIPELINE, "1"), "not live any more, and not loaded"
    cache.version(PIPELINE, "1")
    assert not cache.would_wait(PIPELINE, "1")
