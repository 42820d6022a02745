"""The triggers' services, in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.activities.world import World
from triggers import services


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A pipeline in memory, which is also what the triggers see."""
    made = World(tmp_path)
    for name in ("blobs", "ledger", "specs"):
        port = getattr(made.to, name)
        monkeypatch.setattr(services, name, lambda port=port: port)
    monkeypatch.setattr(services, "dependencies", lambda: made.to)
    monkeypatch.setattr(services, "outbox", lambda: made.outbox)
    return made
