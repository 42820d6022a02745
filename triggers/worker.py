"""Which worker process answered, so that a swap can be seen in every one of them."""

from __future__ import annotations

import os


def worker_headers() -> dict[str, str]:
    """The header that names this process."""
    return {"x-ratchet-worker": str(os.getpid())}
