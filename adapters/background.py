"""Work that nobody waits for: sending events, looking at pointers, loading models."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

type Start = Callable[[Callable[[], None]], None]
"""Begins some work that nobody waits for. Raises RuntimeError when the process has no thread to spare."""

log = logging.getLogger("ratchet.background")


class Background:
    """Does what it is handed, one after another, on a thread of its own, which begins with the first.

    With `most`, so much may wait; more is left out and logged. A thread for each model that is loaded would build it in
    another arena of the allocator, and the process would grow with its swaps.
    """

    def __init__(self, name: str, *, most: int = 0) -> None:
        self._name, self._waiting = name, queue.Queue[Callable[[], None]](most)
        self._starting, self._started = threading.Lock(), False

    def __call__(self, work: Callable[[], None]) -> None:
        """Raises RuntimeError when the process has no thread to spare."""
        with self._starting:
            if not self._started:
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
                self._started = True
        try:
            self._waiting.put_nowait(work)
        except queue.Full:
            log.warning("%s has too much to do, and leaves something out", self._name)

    def _run(self) -> None:
        while True:
            work = self._waiting.get()
            try:
                work()
            except Exception:
                log.exception("%s could not do something", self._name)
