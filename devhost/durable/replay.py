"""From a history and the SDK's list of actions to what has to be scheduled next. Pure: no database, no clock.

Does what the out-of-process shim of the Durable extension and the Durable Task Framework do together: walks the actions
in order against the history, gives each scheduling action its sequence number, and says which are new.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Literal

from devhost.durable.errors import InvalidAction
from devhost.durable.history import Event, Kind, parse_timestamp

HTTP_ACTIVITY = "BuiltIn::HttpActivity"
"""What histories call the activity that sends the request of a call_http."""
GUID_NAMESPACE = uuid.UUID("9e952958-5e33-4daf-827f-2fa12937b875")


class Action(IntEnum):
    """`actionType` of an action."""

    ACTIVITY = 0
    ACTIVITY_WITH_RETRY = 1
    SUB_ORCHESTRATION = 2
    SUB_ORCHESTRATION_WITH_RETRY = 3
    CONTINUE_AS_NEW = 4
    TIMER = 5
    WAIT_FOR_EVENT = 6
    CALL_ENTITY = 7
    CALL_HTTP = 8
    SIGNAL_ENTITY = 9
    SCHEDULED_SIGNAL_ENTITY = 10
    WHEN_ANY = 11
    WHEN_ALL = 12


@dataclass(frozen=True, slots=True)
class Schedule:
    """Something new to be scheduled under the sequence number `id`. Which fields matter depends on `kind`.

    `attempt_of` is the number of the first attempt, for all that a retry policy schedules: attempts and pauses.
    """

    kind: Literal["activity", "sub", "timer", "entity"]
    id: int
    name: str = ""
    input: Any = None
    instance: str = ""
    version: str = ""
    fire_at: datetime | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    attempt_of: int | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How the execution ends. `carried` are events that the next generation takes over (continued)."""

    kind: Literal["completed", "failed", "continued", "terminated"]
    value: Any = None
    details: str | None = None
    carried: Sequence[Event] = ()


class _Task:
    """A step's outcome that others wait for."""

    __slots__ = ("_waiting", "done", "failed")

    def __init__(self, *, done: bool = False) -> None:
        self.done, self.failed = done, False
        self._waiting: list[Callable[[_Task], None]] = []

    def finish(self, *, failed: bool = False) -> None:
        if not self.done:
            self.done, self.failed = True, failed
            for callback in self._waiting:
                callback(self)

    def then(self, callback: Callable[[_Task], None]) -> None:
        if self.done:
            callback(self)
        else:
            self._waiting.append(callback)


type Check = Callable[[Literal["activity", "orchestrator"], str], None]
"""Raises InvalidAction when the app has no such function."""


def replay(
    instance: str, execution: str, history: Sequence[Event], state: Mapping[str, Any], check: Check
) -> tuple[list[Schedule], Ending | None]:
    """What is new after `history`, and how the execution ends if it does. `state` is what the SDK returned.

    Raises InvalidAction for an action that cannot be done and for an orchestrator that took another way than its
    history says.
    """
    actions = state["actions"][0] if state.get("actions") else []
    walk = _Replay(instance, execution, actions, check)
    for entry in history:
        walk.take(entry)
    schedules = [walk.new[number] for number in sorted(walk.new)]
    if walk.cursor < len(actions) or walk.open:
        return schedules, None  # nothing completes while tasks are open
    if walk.continued is not None:
        return schedules, Ending("continued", walk.continued[0], carried=walk.carried)
    if state.get("error"):
        return schedules, Ending("failed", state["error"])
    if state.get("isDone"):
        return schedules, Ending("completed", state.get("output"))
    return schedules, None


class _Replay:
    def __init__(self, instance: str, execution: str, actions: Sequence[Mapping[str, Any]], check: Check) -> None:
        self._instance, self._execution, self._actions, self._check = instance, execution, actions, check
        self.cursor = 0
        self.new: dict[int, Schedule] = {}
        self.open: dict[int, _Task] = {}
        self.continued: tuple[Any] | None = None
        self.carried: list[Event] = []
        self._current: _Task | None = None
        self._next_id, self._guids = 0, 0
        self._now: datetime | None = None
        self._waiting: dict[str, list[_Task]] = {}
        self._buffered: dict[str, deque[Event]] = {}
        self._held: list[Event] | None = None

    # Events.

    def take(self, entry: Event) -> None:
        kind = entry["EventType"]
        if self._held is not None and kind not in {
            Kind.RESUMED,
            Kind.EXECUTION_TERMINATED,
            Kind.ORCHESTRATOR_STARTED,
        }:
            self._held.append(entry)
        elif kind == Kind.SUSPENDED:
            self._held = []
        elif kind == Kind.RESUMED:
            held, self._held = self._held or [], None
            for waiting in held:
                self.take(waiting)
        elif kind == Kind.ORCHESTRATOR_STARTED:
            self._now = parse_timestamp(entry["Timestamp"])
        elif kind == Kind.EXECUTION_STARTED:
            self._advance()
        elif kind in _SCHEDULED:
            self._confirm(entry, _SCHEDULED[kind])
        elif kind in _ENDED:
            task = self.open.pop(entry["TimerId"] if kind == Kind.TIMER_FIRED else entry["TaskScheduledId"], None)
            if task is not None:
                task.finish(failed=kind in {Kind.TASK_FAILED, Kind.SUB_FAILED})
                self._advance()
        elif kind == Kind.EVENT_RAISED:
            self._raised(entry)

    def _raised(self, entry: Event) -> None:
        name = entry["Name"].lower()
        if self.continued is not None:
            self.carried.append(entry)
        elif self._waiting.get(name):
            self._waiting[name].pop().finish()
            self._advance()
        else:
            self._buffered.setdefault(name, deque()).append(entry)

    def _confirm(self, entry: Event, kind: str) -> None:
        """The history has this schedule already; the replay must have come to the same."""
        schedule = self.new.pop(entry["EventId"], None)
        named = kind in {"activity", "sub"}
        if (
            schedule is None
            or schedule.kind != kind
            or (named and schedule.name.lower() != (entry.get("Name") or "").lower())
        ):
            found = f"{schedule.kind} '{schedule.name}'" if schedule else "nothing"
            raise InvalidAction(
                f"Non-deterministic orchestrator: its history has {kind} '{entry.get('Name') or ''}' as number "
                f"{entry['EventId']}; running it again gave {found}."
            )

    def _advance(self) -> None:
        while self.cursor < len(self._actions):
            if self._current is None:
                self._current = self._begin(self._actions[self.cursor])
            if not self._current.done:
                return
            self._current, self.cursor = None, self.cursor + 1

    # Actions.

    def _begin(self, action: Mapping[str, Any]) -> _Task:
        kind = action["actionType"]
        if kind in {Action.ACTIVITY, Action.ACTIVITY_WITH_RETRY}:
            self._check("activity", action["functionName"])
            return self._activity(action) if kind == Action.ACTIVITY else self._retried(action, self._activity)
        if kind in {Action.SUB_ORCHESTRATION, Action.SUB_ORCHESTRATION_WITH_RETRY}:
            self._check("orchestrator", action["functionName"])
            if action.get("instanceId") == self._instance:
                raise InvalidAction("The instance ID of a sub-orchestration must differ from its parent's.")
            if str(action.get("instanceId") or "").startswith("@"):
                raise InvalidAction("Orchestration instance IDs must not start with @: such IDs belong to entities.")
            return self._sub(action) if kind == Action.SUB_ORCHESTRATION else self._retried(action, self._sub)
        if kind in {Action.WHEN_ANY, Action.WHEN_ALL}:
            return self._compound(action, needed_all=kind == Action.WHEN_ALL)
        if kind == Action.CONTINUE_AS_NEW:
            self.continued = (action.get("input"),)
            return _Task(done=True)
        if kind == Action.TIMER:
            return self._user_timer(action)
        if kind == Action.WAIT_FOR_EVENT:
            return self._wait(action["externalEventName"])
        if kind == Action.CALL_ENTITY:
            return self._entity(action, signal=False)
        if kind in {Action.SIGNAL_ENTITY, Action.SCHEDULED_SIGNAL_ENTITY}:
            return self._entity(action, signal=True)
        if kind == Action.CALL_HTTP:
            return self._task(Schedule("activity", self._number(), HTTP_ACTIVITY, action["httpRequest"]))
        raise InvalidAction(f"This host does not do actions of type {kind}.")

    def _number(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    def _task(self, schedule: Schedule) -> _Task:
        self.new[schedule.id] = schedule
        task = self.open[schedule.id] = _Task()
        return task

    def _activity(self, action: Mapping[str, Any], attempt_of: int | None = None) -> _Task:
        name, input_ = action["functionName"], action.get("input")
        return self._task(Schedule("activity", self._number(), name, input_, attempt_of=attempt_of))

    def _sub(self, action: Mapping[str, Any], attempt_of: int | None = None) -> _Task:
        number = self._number()
        instance = action.get("instanceId") or f"{self._execution}:{number}"
        version = action.get("version") or ""
        name, input_ = action["functionName"], action.get("input")
        return self._task(
            Schedule("sub", number, name, input_, instance=instance, version=version, attempt_of=attempt_of)
        )

    def _timer(self, fire_at: datetime, attempt_of: int | None = None) -> _Task:
        return self._task(Schedule("timer", self._number(), fire_at=fire_at, attempt_of=attempt_of))

    def _user_timer(self, action: Mapping[str, Any]) -> _Task:
        task = self._timer(parse_timestamp(action["fireAt"]))
        if action.get("isCanceled"):
            # Nothing waits for it, and it wins no task_any: the steps after that began when the other task ended. Were
            # they taken earlier, the event that ended it would count as one that came after continue_as_new.
            self.open.pop(self._next_id - 1, None)
        return task

    def _wait(self, name: str) -> _Task:
        """Waiters of one name are served last come, first served, as the framework does."""
        task, key = _Task(), name.lower()
        self._waiting.setdefault(key, []).append(task)
        if self._buffered.get(key):
            self._buffered[key].popleft()
            self._waiting[key].pop().finish()
        return task

    def _retried(self, action: Mapping[str, Any], schedule: Callable[[Mapping[str, Any], int], _Task]) -> _Task:
        """The framework's retries, with the zero-delay timer that it schedules after the last failure."""
        options, outcome, attempts, first = action["retryOptions"], _Task(), 0, self._next_id
        pause = timedelta(milliseconds=options["firstRetryIntervalInMilliseconds"])

        def ended(task: _Task) -> None:
            nonlocal attempts
            if not task.failed:
                outcome.finish()
                return
            attempts += 1
            if self._now is None:
                raise InvalidAction("the history does not begin with OrchestratorStarted")
            if attempts >= options["maxNumberOfAttempts"]:
                self._timer(self._now, first).then(lambda _: outcome.finish(failed=True))
            else:
                self._timer(self._now + pause, first).then(lambda _: schedule(action, first).then(ended))

        schedule(action, first).then(ended)
        return outcome

    def _compound(self, action: Mapping[str, Any], *, needed_all: bool) -> _Task:
        tasks = [self._begin(part) for part in action["compoundActions"]]
        outcome, left = _Task(done=not tasks), len(tasks)

        def ended(task: _Task) -> None:
            nonlocal left
            left -= 1
            if left == 0 or not needed_all:
                outcome.finish(failed=task.failed)

        for task in tasks:
            task.then(ended)
        return outcome

    def _entity(self, action: Mapping[str, Any], *, signal: bool) -> _Task:
        self._guids += 1
        name = f"{self._instance}_{self._execution}_{self._guids}"
        request: dict[str, Any] = {
            "op": action["operation"],
            "id": str(uuid.uuid5(GUID_NAMESPACE, name)),
            "parent": self._instance,
            "parentExecution": self._execution,
        }
        if signal:
            request["signal"] = True
        if action.get("fireAt"):
            request["due"] = action["fireAt"]
        if action.get("input") is not None:
            request["input"] = action["input"]
        number = self._number()
        self.new[number] = Schedule("entity", number, "op", instance=action["instanceId"], request=request)
        return _Task(done=True) if signal else self._wait(request["id"])


_SCHEDULED = {
    Kind.TASK_SCHEDULED: "activity",
    Kind.SUB_CREATED: "sub",
    Kind.TIMER_CREATED: "timer",
    Kind.EVENT_SENT: "entity",
}
_ENDED = frozenset({Kind.TASK_COMPLETED, Kind.TASK_FAILED, Kind.SUB_COMPLETED, Kind.SUB_FAILED, Kind.TIMER_FIRED})
