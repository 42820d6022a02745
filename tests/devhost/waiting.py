"""Waits for what must come true, and looks at processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

LIMIT_SECONDS = 15.0
PAUSE_SECONDS = 0.01


async def until(condition: Callable[[], bool], limit: float = LIMIT_SECONDS) -> None:
    """Returns once the condition holds; fails after `limit` seconds."""

    async def holds() -> bool:
        return condition()

    await eventually(holds, limit)


async def eventually(
    condition: Callable[[], Awaitable[bool]], limit: float = LIMIT_SECONDS, pause: float = PAUSE_SECONDS
) -> None:
    """`until` for a condition that has to be asked for, every `pause` seconds."""
    deadline = time.monotonic() + limit
    while not await condition():
        assert time.monotonic() < deadline, f"not so within {limit} s"
        await asyncio.sleep(pause)


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended. One that has, and waits to be collected by another, is gone."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")
