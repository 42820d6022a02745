"""Counters, through OpenTelemetry: where telemetry is not switched on they cost nothing and go nowhere."""

from __future__ import annotations

from functools import cache
from typing import Any

DROPPED = "ratchet.events.dropped"
"""Events that were not for this app, by `reason`."""


def count_dropped_event(reason: str) -> None:
    """Counts an event that was dropped for this reason."""
    _counter().add(1, {"reason": reason})


@cache
def _counter() -> Any:
    from opentelemetry import metrics

    return metrics.get_meter("ratchet").create_counter(DROPPED, description="Events that were not for this app")
