"""What a process knows of one pipeline: what serves, when storage was asked, what went wrong."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from adapters.pointer import LiveVersion
from serving.loading import ActiveModel

log = logging.getLogger("ratchet.serving")


class Refusal(NamedTuple):
    """A champion that was refused so many `times`, why, and when (on the cache's clock) it may be tried again."""

    champion: LiveVersion
    reason: str
    until: float
    times: int


@dataclass(slots=True)
class Slot:
    """One pipeline. `active` is replaced, never changed; only who holds `lock` (a check) writes it.

    `stopgap` is the model that this machine served last: it answers while nothing is known of the champion.
    `pointer_etag` is of the pointer that needs no second look, `pointer_problem` why it cannot be read ('': it can).
    """

    pipeline: str
    active: ActiveModel | None = None
    stopgap: ActiveModel | None = None
    since: str = ""
    pointer_etag: str | None = None
    pointer_problem: str = ""
    next_check: float = 0.0
    checked_at: float | None = None
    refusal: Refusal | None = None
    asked_disk: bool = False
    last_check: str = ""
    last_error: str = ""
    swaps: int = 0
    failures: int = 0
    failures_in_a_row: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def model(self) -> ActiveModel | None:
        """What answers requests now."""
        return self.active or self.stopgap

    def swap(self, model: ActiveModel) -> None:
        """From here on `model` answers. Requests that hold the one before finish on it, and so free it."""
        self.active, self.since = model, now()
        self.stopgap = None
        self.swaps += 1
        log.info("%s: version %d is live in this process", self.pipeline, model.manifest.version)

    def bridge(self, model: ActiveModel) -> None:
        """`model` answers until something is known of the champion."""
        self.stopgap, self.since = model, now()
        if self.active is not None:  # it came meanwhile
            self.stopgap = None

    def answered(self, problem: str = "") -> None:
        """Storage has answered; `problem` is what is wrong all the same, and known."""
        self.failures_in_a_row = 0
        self.report(problem)

    def refused(self, problem: str) -> None:
        """Storage has answered, with what cannot serve."""
        self.failures += 1
        self.answered(problem)

    def failed(self, problem: str) -> None:
        """Storage has not answered, or the check did not come to its end."""
        self.failures += 1
        self.failures_in_a_row += 1
        self.report(problem)

    def report(self, problem: str) -> None:
        """Tells the log and the health details, once for each change."""
        if problem and problem != self.last_error:
            log.warning("%s: %s", self.pipeline, problem)
        self.last_error = problem

    def status(self, clock: float) -> dict[str, Any]:
        """For health details; `clock` is now, on the clock of `checked_at`."""
        model, checked_at = self.model, self.checked_at
        return {
            "pipeline": self.pipeline,
            "version": model.manifest.version if model else None,
            "run": model.manifest.run if model else None,
            "since": self.since or None,
            "last_check": self.last_check or None,
            "age_seconds": None if checked_at is None else round(clock - checked_at, 3),
            "last_error": self.last_error or None,
            "swaps": self.swaps,
            "failures": self.failures,
            "failures_in_a_row": self.failures_in_a_row,
        }


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
