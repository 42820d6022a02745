"""Work that nobody waits for."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

MOST_WAITING = 1000
log = logging.getLogger("ratchet.background")


class Background:
    """Does what it is handed, one after another, on a thread of its own that begins with the first and ends with the
    process. It is for what can be left undone: while too much waits, more is not taken.
    """

    def __init__(self, name: str, *, most: int = MOST_WAITING) -> None:
        self._name, self._waiting = name, queue.Queue[Callable[[], None]](most)
        self._starting, self._thread = threading.Lock(), threading.Thread(target=self._run, name=name, daemon=True)

    def __call__(self, work: Callable[[], None]) -> None:
        with self._starting:
            if not self._thread.is_alive():
                self._thread.start()
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
