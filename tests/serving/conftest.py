"""A service with one pipeline, `flights`, in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.service import InferenceService
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def service(blobs: MemoryBlobs, tmp_path: Path) -> InferenceService:
    return InferenceService(blobs, tmp_path, 0.0, lambda: (PIPELINE,))
