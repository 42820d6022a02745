"""Work beside the requests: looking at pointers, loading models."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

type Start = Callable[[Callable[[], None]], None]
"""Begins some work that nobody waits for. Raises RuntimeError when the process has no thread to spare."""


class Background:
    """One thread that does all work it is given, in turn; the first work starts it.

    A thread for each load would build each model in another arena of the allocator, and the process would grow with
    its swaps.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._starting = threading.Lock()
        self._started = False

    def __call__(self, work: Callable[[], None]) -> None:
        """Raises RuntimeError when the process has no thread to spare."""
        with self._starting:
            if not self._started:
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
                self._started = True
        self._work.put(work)

    def _run(self) -> None:
        while True:
            self._work.get()()
