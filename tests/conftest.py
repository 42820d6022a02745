"""For all tests."""

from __future__ import annotations

from hypothesis import settings

# Tests assert behaviour, not times: on a busy machine any example may take long.
settings.register_profile("ratchet", deadline=None)
settings.load_profile("ratchet")
