"""Which process answers."""

from __future__ import annotations

import os
from functools import cache


@cache
def worker_headers() -> dict[str, str]:
    """Names the worker process that answered, so that a swap can be seen in every one of them."""
    return {"x-ratchet-worker": str(os.getpid())}
