"""The triggers' services, in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.settings import read_settings
from tests.activities.world import World
from triggers import services

STORAGE = "AccountName=ours;AccountKey=YQ=="


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A pipeline in memory, which is also what the triggers see."""
    made = World(tmp_path)
    for name in ("blobs", "ledger", "specs"):
        port = getattr(made.to, name)
        monkeypatch.setattr(services, name, lambda port=port: port)
    monkeypatch.setattr(services, "dependencies", lambda: made.to)
    monkeypatch.setattr(services, "outbox", lambda: made.outbox)
    monkeypatch.setattr(services, "settings", lambda: read_settings({"AzureWebJobsStorage": STORAGE}))
    return made
