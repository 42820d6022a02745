"""What the first call for a service begins."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.functions.warmup import WarmUpContext

from adapters.settings import SettingsError
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE, publish
from tests.serving.test_cache import _until
from triggers import services, warming

WAIT_SECONDS = 15.0


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[MemoryBlobs]:
    """Storage with a champion, and the settings of an app that serves it."""
    blobs = MemoryBlobs()
    publish(blobs, 1)
    (tmp_path / f"{PIPELINE}.yaml").touch()
    monkeypatch.setenv("AzureWebJobsStorage", "UseDevelopmentStorage=true")
    monkeypatch.setenv("RATCHET_PIPELINES_DIR", str(tmp_path))
    monkeypatch.setenv("RATCHET_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(services, "blobs", lambda: blobs)
    cached = (services.settings, services.specs, services.inference)
    for function in cached:
        function.cache_clear()
    interval = sys.getswitchinterval()
    yield blobs
    sys.setswitchinterval(interval)
    _started()
    for function in cached:
        function.cache_clear()


def test_a_process_loads_its_champions_at_the_first_call_whatever_it_is_for(stored: MemoryBlobs) -> None:
    """Azure calls the warmup when it scales out, not when it replaces a process."""
    assert services.inference().server_metadata().status == 200
    _until(lambda: services.inference().status(PIPELINE)["version"] == 1)


def test_the_warmup_ends_with_every_champion_loaded(stored: MemoryBlobs) -> None:
    (warmup,) = warming.blueprint._function_builders  # as azure-functions keeps what was decorated
    warmup._function.get_user_function()(WarmUpContext())
    assert services.inference().status(PIPELINE)["version"] == 1


@pytest.mark.parametrize("chosen", ["all", "serve"])
def test_a_process_that_manages_models_is_ready_to_move_one(
    stored: MemoryBlobs, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    monkeypatch.setenv("RATCHET_ROLE", chosen)
    imported: list[str] = []
    monkeypatch.setattr(services, "import_module", imported.append)
    services.inference()
    _started()
    assert imported == ([] if chosen == "serve" else list(services.FOR_A_MOVE))


def test_a_full_collection_passes_over_what_the_start_has_loaded(stored: MemoryBlobs) -> None:
    gc.unfreeze()
    services.inference()
    _started()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_no_thread_keeps_requests_waiting_for_long(stored: MemoryBlobs) -> None:
    services.inference()
    assert sys.getswitchinterval() == pytest.approx(services.SWITCH_SECONDS)


def test_a_start_that_fails_leaves_the_collector_as_it_was(
    stored: MemoryBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AzureWebJobsStorage")
    with pytest.raises(SettingsError):
        services.inference()
    assert gc.isenabled()


def _started() -> None:
    """Waits until nothing is loaded any more."""
    for thread in threading.enumerate():
        if thread.name == "ratchet-start":
            thread.join(WAIT_SECONDS)
