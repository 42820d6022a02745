"""Between an event and its deliveries: what a subscription wants becomes deliveries as the faults on request will it.

Faults act here, before anything is stored. What the store then holds is delivered like everything else: a duplicate is
two deliveries, a delay is one that falls due later, and `kill -9` loses neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from devhost.eventgrid.events import Event, event_type, subject
from devhost.eventgrid.faults import Faults
from devhost.eventgrid.store import Accepted


@dataclass(frozen=True, slots=True)
class Wanted:
    """An event that passed the filters of a subscription. `key` is what faults are decided from."""

    subscription: str
    event: Event
    key: str


def fated(wanted: Iterable[Wanted], faults: Faults) -> tuple[list[Accepted], list[Wanted]]:
    """The deliveries to accept, and what is dropped on request."""
    accepted: list[Accepted] = []
    dropped: list[Wanted] = []
    for one in wanted:
        fate = faults.fate(one.subscription, one.key)
        if fate.dropped:
            dropped.append(one)
        accepted += [Accepted(one.subscription, one.event, wait, fate.overtaken) for wait in fate.waits]
    return accepted, dropped


def report(dropped: Iterable[Wanted]) -> None:
    """Tells what was dropped, so that nobody looks for it elsewhere."""
    for one in dropped:
        event = one.event
        print(
            f"{one.subscription}: dropped on request: {event_type(event)} {subject(event)} (event {event['id']})",
            flush=True,
        )
