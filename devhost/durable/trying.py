"""Work that must not be given up: tried again after a failure inside the host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("devhost.durable")

RETRY_SECONDS = 0.5


async def until_it_works(work: Callable[[], Awaitable[None]], what: str) -> None:
    """Tries again after a bug in the host or a full disk: the store still has what was to be done."""
    while True:
        try:
            return await work()
        except Exception:
            log.exception("%s failed in the host; it is tried again", what)
            await asyncio.sleep(RETRY_SECONDS)
