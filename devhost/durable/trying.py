"""Work that must not be given up: tried again after a failure inside the host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("devhost.durable")

RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 5.0


async def until_it_works(work: Callable[[], Awaitable[None]], what: str) -> None:
    """Tries again after a bug in the host or a full disk: the store still has what was to be done.

    The log gets the first failure with its traceback, one that is like the one before not at all, and the end of it.
    """
    told, pause = "", RETRY_SECONDS
    while True:
        try:
            await work()
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
            if failure != told:
                log.exception("%s failed in the host; it is tried again", what)
            told = failure
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_RETRY_SECONDS)
        else:
            if told:
                log.info("%s has worked now", what)
            return
