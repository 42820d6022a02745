"""What goes wrong in the local Event Grid.

DevhostError
└── EventGridError
    ├── BadSubscription    a subscription has a mistake (which one, which field)
    ├── BadFault           a fault asked for on the command line is not one
    ├── BadEvents          published events are not in a schema that Event Grid takes
    ├── StateBroken        the state folder holds something else, or something spoilt
    └── StateInUse         another local Event Grid works on the same state folder
"""

from __future__ import annotations

from pathlib import Path

from devhost.errors import DevhostError


class EventGridError(DevhostError):
    """Base of the local Event Grid's errors."""


class BadSubscription(EventGridError):
    """A subscription has a mistake. `name` is the subscription, or the file when there is no name to give."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"Subscription {name}: {problem}.")
        self.name = name
        self.problem = problem


class BadFault(EventGridError):
    """A fault asked for on the command line is not one. `fault` is what was written."""

    def __init__(self, fault: str, problem: str) -> None:
        super().__init__(f"Fault {fault}: {problem}.")
        self.fault = fault
        self.problem = problem


class BadEvents(EventGridError):
    """What was published to a topic is not an event, or an array of events, of one schema."""


class StateBroken(EventGridError):
    """The state folder holds something else, or something spoilt."""

    def __init__(self, state: Path, reason: str) -> None:
        super().__init__(
            f"The state in {state} cannot be used ({reason}). Delete the folder, or choose another --state."
        )
        self.state = state
        self.reason = reason


class StateInUse(EventGridError):
    """Another local Event Grid works on the same state folder."""

    def __init__(self, state: Path) -> None:
        super().__init__(f"Another local Event Grid is using {state}. Stop it, or choose another --state folder.")
        self.state = state
