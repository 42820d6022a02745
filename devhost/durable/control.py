"""What clients do to instances: start, raise events, suspend, resume, terminate, rewind, restart, purge."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Collection, Sequence

from devhost.durable.errors import AlreadyRunning, Gone, InvalidAction, NotFound
from devhost.durable.functions import Functions
from devhost.durable.history import Event, Kind, event
from devhost.durable.store import Instance, Store

FORBIDDEN = "/\\#?"
MOST_ID_CHARACTERS = 100
"""Characters of the longest instance id that a client may choose, as in the extension."""


_FAILURES = frozenset({Kind.TASK_FAILED, Kind.SUB_FAILED})
_ATTEMPTS = frozenset({Kind.TASK_SCHEDULED, Kind.SUB_CREATED})


class Control:
    """The instances of a task hub, as clients may change them."""

    def __init__(
        self, store: Store, functions: Functions, wake: Callable[[str], None], *, default_version: str
    ) -> None:
        self._store, self._functions, self._wake = store, functions, wake
        self._default_version = default_version

    def start_new(self, name: str, instance: str | None, input_: str | None, version: str = "") -> str:
        """Starts an instance. Raises InvalidAction, AlreadyRunning."""
        self._functions.check("orchestrator", name)
        instance = instance or uuid.uuid4().hex
        if instance.startswith("@") or any(c in FORBIDDEN or ord(c) < ord(" ") for c in instance):
            raise InvalidAction(
                f"The instance id {instance!r} cannot be used: it may not begin with @ nor contain / \\ # ? or "
                "control characters."
            )
        if len(instance) > MOST_ID_CHARACTERS:
            raise InvalidAction(f"Instance ID lengths must not exceed {MOST_ID_CHARACTERS} characters.")
        there = self._store.instance(instance)
        if there is not None and not there.finished:
            raise AlreadyRunning(f"An Orchestration instance with the status {there.status} already exists.")
        with self._store.transaction():
            self._store.create(name, instance, input_, version or self._default_version, uuid.uuid4().hex)
        self._wake(instance)
        return instance

    def existing(self, instance: str) -> Instance:
        """Raises NotFound."""
        there = self._store.instance(instance)
        if there is None:
            raise NotFound(f"There is no instance {instance}.")
        return there

    def raise_event(self, instance: str, name: str, data: str) -> None:
        """Raises NotFound, Gone."""
        self._tell(instance, event(Kind.EVENT_RAISED, Name=name, Input=data))

    def terminate(self, instance: str, reason: str | None) -> None:
        """Raises NotFound, Gone."""
        self._tell(instance, event(Kind.EXECUTION_TERMINATED, Input=reason))

    def suspend(self, instance: str, reason: str | None) -> None:
        """Raises NotFound, Gone."""
        self._tell(instance, event(Kind.SUSPENDED, Reason=reason))

    def resume(self, instance: str, reason: str | None) -> None:
        """Raises NotFound, Gone."""
        self._tell(instance, event(Kind.RESUMED, Reason=reason))

    def _tell(self, instance: str, message: Event) -> None:
        there = self.existing(instance)
        if there.finished:
            raise Gone(f"The instance {instance} has ended ({there.status}).")
        with self._store.transaction():
            self._store.send(instance, message)
        self._wake(instance)

    def restart(self, instance: str, *, with_new_id: bool) -> str:
        """Starts it again with the same input and version. Raises NotFound, AlreadyRunning."""
        there = self.existing(instance)
        return self.start_new(there.name, None if with_new_id else instance, there.input, there.version)

    def purge(self, instance: str) -> int:
        """Instances deleted: running ones are not. Raises NotFound."""
        if not self.existing(instance).finished:
            return 0
        with self._store.transaction():
            self._store.purge(instance)
        return 1

    def rewind(self, instance: str, reason: str | None) -> None:
        """Lets a failed instance go on from what failed, its failed sub-orchestrations too. Raises NotFound, Gone."""
        there = self.existing(instance)
        if there.status != "Failed":
            raise Gone(f"Only failed instances can be rewound; {instance} is {there.status}.")
        rewinding: list[str] = []
        with self._store.transaction():
            self._rewind(there, reason, rewinding)
        for each in rewinding:
            self._wake(each)

    def _rewind(self, there: Instance, reason: str | None, rewinding: list[str]) -> None:
        history = self._store.history(there.id)
        failed = _to_do_again(history)
        children: dict[int, Instance] = {}
        for entry in history:
            if entry["EventType"] == Kind.SUB_CREATED and entry["EventId"] in failed:
                child = self._store.instance(entry["InstanceId"])
                if child is not None and child.status == "Failed" and _is_child(child, there, entry["EventId"]):
                    children[entry["EventId"]] = child
        self._store.rewrite(there.id, _rewound(history, failed, children))
        self._store.update(there.id, status="Running", output=None, custom=there.custom)
        self._store.send(there.id, event(Kind.GENERIC, Data=f"Rewind: {reason}"), there.execution)
        rewinding.append(there.id)
        for child in children.values():
            self._rewind(child, reason, rewinding)


def _is_child(child: Instance, parent: Instance, task: int) -> bool:
    """Whether that instance is still the one that this task of the parent waits for."""
    return child.parent is not None and (child.parent.execution, child.parent.task) == (parent.execution, task)


def _to_do_again(history: Sequence[Event]) -> set[int]:
    """The numbers of the tasks that failed. Of the attempts under a retry policy only the last one counts."""
    failed = {entry["TaskScheduledId"] for entry in history if entry["EventType"] in _FAILURES}
    attempts = [entry for entry in history if entry["EventType"] in _ATTEMPTS and "AttemptOf" in entry]
    last = {entry["AttemptOf"]: entry["EventId"] for entry in attempts}
    return failed - {entry["EventId"] for entry in attempts if entry["EventId"] != last[entry["AttemptOf"]]}


def _rewound(history: Sequence[Event], failed: Collection[int], children: Collection[int]) -> list[Event]:
    """The history without these failures. Places are kept: they count.

    What failed is scheduled anew, except the sub-orchestrations `children`, which are rewound themselves. The timer
    that a retry policy sets after its last attempt goes, too.
    """
    attempts = {
        entry["AttemptOf"]: entry["EventId"]
        for entry in history
        if entry["EventType"] in _ATTEMPTS and "AttemptOf" in entry and entry["EventId"] in failed
    }
    timers = {
        entry["EventId"]
        for entry in history
        if entry["EventType"] == Kind.TIMER_CREATED
        and entry["EventId"] > attempts.get(entry.get("AttemptOf"), math.inf)
    }

    def gone(entry: Event) -> bool:
        kind = entry["EventType"]
        return (
            kind == Kind.EXECUTION_COMPLETED
            or (kind in _FAILURES and entry["TaskScheduledId"] in failed)
            or (kind in _ATTEMPTS and entry["EventId"] in failed and entry["EventId"] not in children)
            or (kind == Kind.TIMER_CREATED and entry["EventId"] in timers)
            or (kind == Kind.TIMER_FIRED and entry["TimerId"] in timers)
        )

    return [_hollow(entry) if gone(entry) else entry for entry in history]


def _hollow(entry: Event) -> Event:
    kept = {name: entry[name] for name in ("EventId", "IsPlayed", "Timestamp")}
    return {**kept, "EventType": int(Kind.GENERIC), "Data": f"Rewound: {entry['EventType']}"}
