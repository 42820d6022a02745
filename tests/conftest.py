"""For all tests: two processes share them, file by file."""

from __future__ import annotations

import pytest
from hypothesis import settings

# Tests assert behaviour, not times: on a busy machine any example may take long.
settings.register_profile("ratchet", deadline=None)
settings.load_profile("ratchet")

STACK = "tests/integration/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a file's tests share is made once, and the whole stack once for all that use it."""
    for item in items:
        file = item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(STACK if file.startswith(STACK) else file))
