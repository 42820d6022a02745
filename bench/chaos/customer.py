"""Asks for predictions all the time, and remembers every answer that a customer should not have got."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from bench.chaos.arena import Arena

PAUSE_SECONDS = 0.1
ROW = json.dumps({"price": 10.0, "town": "Ghent"}).encode()
TIMEOUT_SECONDS = 30.0


@dataclass(slots=True)
class Met:
    """Good answers, requests made again, and errors by kind."""

    answers: int = 0
    repeated: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Met) -> Met:
        return Met(self.answers + other.answers, self.repeated + other.repeated, self.errors + other.errors)


class Customer:
    """Asks about pipelines in turn, in a thread of its own. A context manager.

    An answer counts from the first good one of its pipeline on: before that there is no model. While the host is down
    on purpose nobody can answer, which is no error of serving's. A request that was in the hands of a worker when that
    was killed is made again, as every client of a service with more than one process has to; it is counted apart.
    """

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._asked: list[str] = []
        self._served: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="customer", daemon=True)
        self._lock = threading.Lock()
        self._met: defaultdict[str, Met] = defaultdict(Met)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def ask_about(self, pipeline: str) -> None:
        """From now on about this one, too."""
        with self._lock:
            self._asked.append(pipeline)

    def leave(self, pipeline: str) -> Met:
        """What it has met with this pipeline, which it asks about no more."""
        with self._lock:
            self._asked.remove(pipeline)
            return self._met.pop(pipeline, Met())

    def take(self, pipeline: str) -> Met:
        """What it has met with this pipeline since the last call."""
        with self._lock:
            return self._met.pop(pipeline, Met())

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            for pipeline in list(self._asked):
                self._ask(pipeline)

    def _ask(self, pipeline: str) -> None:
        was_down = self._arena.down.is_set()
        while True:
            strikes = self._arena.strikes
            problem = self._problem(pipeline)
            struck = strikes % 2 or self._arena.strikes > strikes
            if not (problem and struck and pipeline in self._served):
                break
            while self._arena.strikes % 2:
                self._stop.wait(PAUSE_SECONDS)
            with self._lock:
                self._met[pipeline].repeated += 1
        with self._lock:
            if not problem:
                self._served.add(pipeline)
                self._met[pipeline].answers += 1
            elif pipeline in self._served and not was_down and not self._arena.down.is_set():
                self._met[pipeline].errors[problem] += 1

    def _problem(self, pipeline: str) -> str:
        url = f"{self._arena.app_url}/api/pipelines/{pipeline}/predict"
        try:
            with urllib.request.urlopen(url, data=ROW, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
                json.load(answer)
        except urllib.error.HTTPError as exc:
            with exc, contextlib.suppress(OSError, http.client.HTTPException):
                return f"{exc.code}: {exc.read()[:200].decode(errors='replace')}"
            return str(exc.code)
        except (OSError, http.client.HTTPException, ValueError) as exc:
            return f"{type(exc).__name__}: {exc}"
        return ""
