"""Runs orchestrations, activities, timers and entities of a task hub, one transaction per work item.

An instance is never in two episodes at once: whoever has a message for it marks it dirty, and one pump per instance
works until it is clean. After a restart everything that has messages or waiting activities goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from devhost.durable.history import STATUSES, Event, Kind, event, parse_timestamp, timestamp
from devhost.durable.replay import Ending, InvalidAction, Schedule, replay
from devhost.durable.store import ActivityItem, Instance, Parent, Store, compact
from devhost.errors import DevhostError
from devhost.protocol import Datum, FunctionInfo, Invocation, Invoker, Outcome

log = logging.getLogger("devhost.durable")

LABEL = "\n\n$OutOfProcData$:"
"""Before the state that a failed orchestrator's error text carries."""
WORKER_LOST = ("WorkerDied", "NoWorker")
MAX_LOST = 10
"""How often a work item whose worker died is run again before it counts as what kills them."""
RETRY_SECONDS = 0.5
"""Pause before an episode that failed inside the host is tried again."""
LONGEST_GATHERING = 0.1
LONGEST_SLEEP = 3600.0
FORBIDDEN = "/\\#?"

type Role = Literal["orchestrator", "activity", "entity"]
_TRIGGERS: Mapping[str, tuple[Role, str]] = {
    "orchestrationtrigger": ("orchestrator", "orchestration"),
    "activitytrigger": ("activity", "activity"),
    "entitytrigger": ("entity", "entityName"),
}


class NotFound(DevhostError):
    """No instance of that id."""


class Gone(DevhostError):
    """The instance has ended."""


class AlreadyRunning(DevhostError):
    """An instance of that id is running."""


@dataclass(frozen=True, slots=True)
class _Function:
    """Where a durable function is, and what its trigger's parameter is called."""

    id: str
    parameter: str


class Engine:
    """One asyncio loop owns it; its methods are not thread-safe."""

    def __init__(
        self,
        store: Store,
        invoker: Invoker,
        functions: Sequence[FunctionInfo],
        *,
        max_orchestrators: int,
        max_activities: int,
    ) -> None:
        self.store, self._invoker = store, invoker
        self._functions = _by_role(functions)
        self._orchestrators = asyncio.Semaphore(max_orchestrators)
        self._activities = asyncio.Semaphore(max_activities)
        self._pumping: set[str] = set()
        self._dirty: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)
        self._timers_changed = asyncio.Event()
        self._stopping = False

    # Life.

    def start(self) -> None:
        """Takes up what a former process left."""
        self._spawn(self._run_timers())
        for instance in self.store.with_messages():
            self.wake(instance)
        for item in self.store.activities():
            self._spawn(self._run_activity(item))

    async def stop(self) -> None:
        """Cancels what runs; the store has everything that a next start needs."""
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def wake(self, instance: str) -> None:
        """There is something in this instance's inbox. Once the engine stops, it is for the next start."""
        if self._stopping:
            return
        self._dirty.add(instance)
        if instance not in self._pumping and not self._stopping:
            self._pumping.add(instance)
            self._spawn(self._pump(instance))

    async def _pump(self, instance: str) -> None:
        try:
            while instance in self._dirty:
                self._dirty.discard(instance)
                began = time.monotonic()
                async with self._orchestrators:
                    try:
                        await (self._entity(instance) if instance.startswith("@") else self._episode(instance))
                    except Exception:
                        # A bug here or a full disk: the messages are still in the inbox, so nothing is lost.
                        log.exception("an episode of %s failed in the host; it is tried again", instance)
                        self._dirty.add(instance)
                        await asyncio.sleep(RETRY_SECONDS)
                if instance in self._dirty:
                    # A long history takes long to replay. Waiting as long as that took lets more completions come
                    # together, so that a wide fan-in is a few episodes and not one for each activity.
                    await asyncio.sleep(min(time.monotonic() - began, LONGEST_GATHERING))
        finally:
            self._pumping.discard(instance)
            if instance in self._dirty:
                self.wake(instance)

    # Functions.

    def check(self, role: Role, name: str) -> None:
        """Raises InvalidAction when the app has no such function."""
        known = self._functions[role]
        if name.lower() not in known:
            names = ", ".join(repr(each) for each in known) or "none"
            raise InvalidAction(
                f"The function '{name}' doesn't exist, is disabled, or is not an {role} function. Known {role} "
                f"functions: {names}."
            )

    async def _invoke(self, role: Role, name: str, value: str, metadata: Mapping[str, Datum] | None = None) -> Outcome:
        """Calls a function; when a worker dies under it, again."""
        function = self._functions[role][name.lower()]
        invocation = Invocation(function.id, [(function.parameter, ("string", value))], metadata or {}, redispatch=True)
        for _ in range(MAX_LOST):
            outcome = await self._invoker.invoke(invocation)
            if outcome.ok or not outcome.error.startswith(WORKER_LOST):
                break
        return outcome

    # Orchestrations.

    def start_new(self, name: str, instance: str | None, input_: str | None, version: str = "") -> str:
        """Starts an instance. Raises InvalidAction, AlreadyRunning."""
        self.check("orchestrator", name)
        instance = instance or uuid.uuid4().hex
        if instance.startswith("@") or any(c in FORBIDDEN or ord(c) < ord(" ") for c in instance):
            raise InvalidAction(
                f"The instance id {instance!r} cannot be used: it may not begin with @ nor contain / \\ # ? or "
                "control characters."
            )
        there = self.store.instance(instance)
        if there is not None and not there.finished:
            raise AlreadyRunning(f"An Orchestration instance with the status {there.status} already exists.")
        with self.store.transaction():
            self.store.create(name, instance, input_, version, uuid.uuid4().hex)
        self.wake(instance)
        return instance

    async def _episode(self, instance_id: str) -> None:
        instance, messages = self.store.instance(instance_id), self.store.inbox(instance_id)
        if not messages:
            return
        last = messages[-1][0]
        if instance is None or instance.finished:
            with self.store.transaction():
                self.store.taken(instance_id, last)
            return
        events = [entry for _, execution, entry in messages if execution in {None, instance.execution}]
        terminated = next((e for e in events if e["EventType"] == Kind.EXECUTION_TERMINATED), None)
        if terminated is not None:
            self._commit(instance, last, events, [], Ending("terminated", terminated["Input"]), instance.custom)
            return
        if _suspended(instance, events):
            if instance.status != "Suspended":
                with self.store.transaction():
                    self.store.set_status(instance_id, "Suspended")
            return  # everything stays queued until it is resumed
        if not events:
            with self.store.transaction():
                self.store.taken(instance_id, last)
            return
        await self._run_orchestrator(instance, events, last)

    async def _run_orchestrator(self, instance: Instance, events: list[Event], last: int) -> None:
        if instance.status == "Pending":
            with self.store.transaction():
                self.store.set_status(instance.id, "Running")
        past = list(self.store.history(instance.id))
        began = event(Kind.ORCHESTRATOR_STARTED)
        history = [*past, began, *events]
        outcome = await self._invoke("orchestrator", instance.name, compact(_context(instance, history, bool(past))))
        current = self.store.instance(instance.id)
        if current is None or current.execution != instance.execution or current.finished:
            return  # purged, replaced or terminated meanwhile
        custom, schedules, ending = instance.custom, list[Schedule](), None
        try:
            state = _state(outcome)
            schedules, ending = replay(instance.id, instance.execution, history, state, self.check)
            if state.get("customStatus") is not None:
                custom = compact(state["customStatus"])
        except InvalidAction as exc:
            schedules, ending = [], Ending("failed", str(exc))
        if ending is not None and ending.kind == "failed":
            text = f"Orchestrator function '{instance.name}' failed: {ending.value}"
            # The traceback repeats the state, which a parent's error would carry on and its own parent's again.
            ending = Ending("failed", text, details=outcome.traceback.partition(LABEL)[0])
        self._commit(instance, last, events, schedules, ending, custom, began)

    def _commit(
        self,
        instance: Instance,
        last: int,
        events: list[Event],
        schedules: Sequence[Schedule],
        ending: Ending | None,
        custom: str | None,
        began: Event | None = None,
    ) -> None:
        """The end of an episode, in one transaction: history, new work, messages to others, the new state."""
        for entry in events:
            entry["IsPlayed"] = True
        added = [began or event(Kind.ORCHESTRATOR_STARTED), *events]
        wake: set[str] = set()
        activities: list[ActivityItem] = []
        with self.store.transaction():
            self.store.taken(instance.id, last)
            added += [self._schedule(instance, schedule, activities, wake) for schedule in schedules]
            added.append(event(Kind.ORCHESTRATOR_COMPLETED))
            if ending is not None and ending.kind == "continued":
                self._continue(instance, ending, custom)
                wake.add(instance.id)
            else:
                self._record(instance, added, ending, custom, wake)
        for other in wake:
            self.wake(other)
        for item in activities:
            self._spawn(self._run_activity(item))
        if ending is not None and ending.kind != "continued":
            self._ended(instance.id)

    def _schedule(
        self, instance: Instance, schedule: Schedule, activities: list[ActivityItem], wake: set[str]
    ) -> Event:
        if schedule.kind == "activity":
            given = schedule.input
            input_ = given if isinstance(given, str) or given is None else compact(given)
            item = self.store.add_activity(instance.id, instance.execution, schedule.id, schedule.name, input_)
            activities.append(item)
            return event(Kind.TASK_SCHEDULED, schedule.id, Name=schedule.name, Version="", Input=None)
        if schedule.kind == "timer" and schedule.fire_at is not None:
            fire_at = timestamp(schedule.fire_at)
            message = {"TimerId": schedule.id, "FireAt": fire_at}
            self.store.add_timer(schedule.fire_at.timestamp(), instance.id, instance.execution, message)
            self._timers_changed.set()
            return event(Kind.TIMER_CREATED, schedule.id, FireAt=fire_at)
        if schedule.kind == "sub":
            return self._schedule_sub(instance, schedule, wake)
        return self._send_to_entity(schedule, wake)

    def _schedule_sub(self, instance: Instance, schedule: Schedule, wake: set[str]) -> Event:
        input_ = compact(schedule.input) if schedule.input is not None else None
        other = self.store.instance(schedule.instance)
        if other is not None and not other.finished:
            reason = f"An Orchestration instance with the status {other.status} already exists."
            failed = event(Kind.SUB_FAILED, TaskScheduledId=schedule.id, Reason=reason, Details=None)
            self.store.send(instance.id, failed, instance.execution)
            wake.add(instance.id)
        else:
            parent = Parent(instance.id, instance.execution, schedule.id, instance.name)
            execution = uuid.uuid4().hex
            self.store.create(schedule.name, schedule.instance, input_, schedule.version, execution, parent)
            wake.add(schedule.instance)
        return event(
            Kind.SUB_CREATED,
            schedule.id,
            Name=schedule.name,
            Version=schedule.version,
            InstanceId=schedule.instance,
            Input=input_,
        )

    def _send_to_entity(self, schedule: Schedule, wake: set[str]) -> Event:
        request = {**schedule.request, "input": None}
        if "input" in schedule.request:
            request["input"] = compact(schedule.request["input"])
        if request.get("due"):
            self.store.add_timer(parse_timestamp(request["due"]).timestamp(), schedule.instance, None, request)
            self._timers_changed.set()
        else:
            self.store.send(schedule.instance, request)
            wake.add(schedule.instance)
        return event(
            Kind.EVENT_SENT, schedule.id, InstanceId=schedule.instance, Name=schedule.name, Input=compact(request)
        )

    def _continue(self, instance: Instance, ending: Ending, custom: str | None) -> None:
        input_ = compact(ending.value) if ending.value is not None else None
        self.store.renew(instance, uuid.uuid4().hex, input_, custom)
        for entry in ending.carried:
            self.store.send(instance.id, {**entry, "IsPlayed": False})

    def _record(
        self, instance: Instance, added: list[Event], ending: Ending | None, custom: str | None, wake: set[str]
    ) -> None:
        status, output = "Running", None
        if ending is not None:
            status = {"completed": "Completed", "failed": "Failed", "terminated": "Terminated"}[ending.kind]
            output = compact(ending.value) if ending.kind == "completed" else ending.value
            added.append(
                event(
                    Kind.EXECUTION_COMPLETED,
                    len(added),
                    OrchestrationStatus=STATUSES.index(status),
                    Result=output,
                )
            )
        self.store.append(instance.id, added)
        self.store.update(instance.id, status=status, output=output, custom=custom)
        if ending is not None and instance.parent is not None:
            parent = instance.parent
            answer = (
                event(Kind.SUB_COMPLETED, TaskScheduledId=parent.task, Result=output)
                if ending.kind == "completed"
                else event(Kind.SUB_FAILED, TaskScheduledId=parent.task, Reason=output, Details=ending.details)
            )
            self.store.send(parent.instance, answer, parent.execution)
            wake.add(parent.instance)
        if ending is not None:
            self.store.drop_work(instance.id)

    def _ended(self, instance: str) -> None:
        self.store.drop_cached(instance)
        for waiter in self._waiters.pop(instance, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, instance: str, seconds: float) -> bool:
        """Whether the instance has ended within `seconds`."""
        there = self.store.instance(instance)
        if there is not None and there.finished:
            return True
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[instance].append(waiter)
        with suppress(TimeoutError):
            await asyncio.wait_for(waiter, seconds)
            return True
        return False

    # Activities, timers, entities.

    async def _run_activity(self, item: ActivityItem) -> None:
        async with self._activities:
            if not self.store.has_activity(item.n):
                return
            value = item.input if item.input is not None else "null"
            metadata: dict[str, Datum] = {"instanceId": ("string", item.instance)}
            outcome = await self._invoke("activity", item.name, value, metadata)
        if outcome.ok:
            result = outcome.value[1] if outcome.value is not None else None
            answer = event(Kind.TASK_COMPLETED, TaskScheduledId=item.task, Result=result)
        else:
            reason = f"Activity function '{item.name}' failed: {outcome.error}"
            answer = event(Kind.TASK_FAILED, TaskScheduledId=item.task, Reason=reason, Details=outcome.traceback)
        with self.store.transaction():
            self.store.end_activity(item.n)
            self.store.send(item.instance, answer, item.execution)
        self.wake(item.instance)

    async def _run_timers(self) -> None:
        while True:
            with self.store.transaction():
                due = self.store.fire_timers(time.time())
            for instance in due:
                self.wake(instance)
            if due:
                await asyncio.sleep(0)
                continue
            self._timers_changed.clear()
            upcoming = self.store.next_timer()
            pause = LONGEST_SLEEP if upcoming is None else min(max(upcoming - time.time(), 0), LONGEST_SLEEP)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._timers_changed.wait(), pause)

    async def _entity(self, entity: str) -> None:
        messages = self.store.inbox(entity)
        if not messages:
            return
        requests = [message for _, _, message in messages]
        exists, state = self.store.entity(entity)
        result = await self._run_entity(entity, requests, exists=exists, state=state)
        wake: set[str] = set()
        with self.store.transaction():
            self.store.taken(entity, messages[-1][0])
            self.store.set_entity(entity, exists=result["entityExists"], state=result["entityState"])
            for request, answer in zip(requests, result["results"], strict=True):
                if request.get("signal"):
                    continue
                document = {"result": answer["result"]}
                if answer["isError"]:
                    document["exceptionType"] = "Error"
                raised = event(Kind.EVENT_RAISED, Name=request["id"], Input=compact(document))
                self.store.send(request["parent"], raised, request.get("parentExecution"))
                wake.add(request["parent"])
        for instance in wake:
            self.wake(instance)
        if self.store.inbox(entity, limit=1):
            self._dirty.add(entity)

    async def _run_entity(
        self, entity: str, requests: Sequence[Event], *, exists: bool, state: str | None
    ) -> dict[str, Any]:
        _, name, key = entity.split("@", 2)

        def failed(text: str) -> dict[str, Any]:
            answers = [{"isError": True, "result": compact(text)} for _ in requests]
            return {"entityExists": exists, "entityState": state, "results": answers}

        if name not in self._functions["entity"]:
            return failed(f"Entity function '{name}' does not exist.")
        batch = [
            {"name": r["op"], "input": r.get("input") or "null", "isSignal": bool(r.get("signal"))} for r in requests
        ]
        context = {"self": {"name": name, "key": key}, "exists": exists, "state": state, "batch": batch}
        outcome = await self._invoke("entity", name, compact(context))
        if not outcome.ok or outcome.value is None:
            return failed(outcome.error)
        result: dict[str, Any] = json.loads(outcome.value[1])
        return result

    # What clients ask for.

    def raise_event(self, instance: str, name: str, data: str) -> None:
        self._tell(instance, event(Kind.EVENT_RAISED, Name=name, Input=data))

    def terminate(self, instance: str, reason: str | None) -> None:
        self._tell(instance, event(Kind.EXECUTION_TERMINATED, Input=reason))

    def suspend(self, instance: str, reason: str | None) -> None:
        self._tell(instance, event(Kind.SUSPENDED, Reason=reason))

    def resume(self, instance: str, reason: str | None) -> None:
        self._tell(instance, event(Kind.RESUMED, Reason=reason))

    def _tell(self, instance: str, message: Event) -> None:
        """Raises NotFound, Gone."""
        there = self.existing(instance)
        if there.finished:
            raise Gone(f"The instance {instance} has ended ({there.status}).")
        with self.store.transaction():
            self.store.send(instance, message)
        self.wake(instance)

    def existing(self, instance: str) -> Instance:
        """Raises NotFound."""
        there = self.store.instance(instance)
        if there is None:
            raise NotFound(f"There is no instance {instance}.")
        return there

    def signal(self, name: str, key: str, operation: str, data: str | None) -> None:
        """A one-way message to an entity."""
        entity = f"@{name.lower()}@{key}"
        with self.store.transaction():
            self.store.send(entity, {"op": operation, "signal": True, "id": str(uuid.uuid4()), "input": data})
        self.wake(entity)

    def entity_state(self, name: str, key: str) -> str | None:
        """JSON text, or None when the entity does not exist."""
        exists, state = self.store.entity(f"@{name.lower()}@{key}")
        return state if exists else None

    def restart(self, instance: str, *, with_new_id: bool) -> str:
        there = self.existing(instance)
        return self.start_new(there.name, None if with_new_id else instance, there.input, there.version)

    def purge(self, instance: str) -> int:
        """Instances deleted: running ones are not."""
        if not self.existing(instance).finished:
            return 0
        with self.store.transaction():
            self.store.purge(instance)
        return 1

    def rewind(self, instance: str, reason: str | None) -> None:
        """Lets a failed instance go on from what failed, its failed sub-orchestrations too. Raises NotFound, Gone."""
        there = self.existing(instance)
        if there.status != "Failed":
            raise Gone(f"Only failed instances can be rewound; {instance} is {there.status}.")
        history, failed_subs = rewound(self.store.history(instance))
        with self.store.transaction():
            self.store.rewrite(instance, history)
            self.store.update(instance, status="Running", output=None, custom=there.custom)
            self.store.send(instance, event(Kind.GENERIC, Data=f"Rewind: {reason}"), there.execution)
        self.wake(instance)
        for sub in failed_subs:
            child = self.store.instance(sub)
            if child is not None and child.status == "Failed":
                self.rewind(sub, reason)


def rewound(history: Sequence[Event]) -> tuple[list[Event], list[str]]:
    """The history without its failures, and the sub-orchestrations that failed. Places are kept: they count."""
    failures = {Kind.TASK_FAILED, Kind.SUB_FAILED}
    failed = {entry["TaskScheduledId"] for entry in history if entry["EventType"] in failures}
    subs: list[str] = []
    result: list[Event] = []
    for entry in history:
        kind = entry["EventType"]
        if kind == Kind.SUB_CREATED and entry["EventId"] in failed:
            subs.append(entry["InstanceId"])
        again = kind == Kind.TASK_SCHEDULED and entry["EventId"] in failed
        if kind in failures or again or kind == Kind.EXECUTION_COMPLETED:
            kept = {name: entry[name] for name in ("EventId", "IsPlayed", "Timestamp")}
            result.append({**kept, "EventType": int(Kind.GENERIC), "Data": f"Rewound: {kind}"})
        else:
            result.append(entry)
    return result, subs


def _by_role(functions: Sequence[FunctionInfo]) -> dict[Role, dict[str, _Function]]:
    roles: dict[Role, dict[str, _Function]] = {"orchestrator": {}, "activity": {}, "entity": {}}
    for function in functions:
        trigger = function.trigger
        known = _TRIGGERS.get(str(trigger["type"]).lower())
        if known is not None:
            role, name_field = known
            name = str(trigger.get(name_field) or function.name).lower()
            roles[role][name] = _Function(function.id, str(trigger["name"]))
    return roles


def _suspended(instance: Instance, events: Sequence[Event]) -> bool:
    suspended = instance.status == "Suspended"
    for entry in events:
        if entry["EventType"] in {Kind.SUSPENDED, Kind.RESUMED}:
            suspended = entry["EventType"] == Kind.SUSPENDED
    return suspended


def _context(instance: Instance, history: list[Event], replaying: bool) -> dict[str, Any]:
    """What the SDK reads as the orchestrator's input."""
    started = next(entry for entry in history if entry["EventType"] == Kind.EXECUTION_STARTED)
    raw = started["Input"]
    return {
        "history": history,
        "input": None if raw is None else json.loads(raw),
        "instanceId": instance.id,
        "isReplaying": replaying,
        "parentInstanceId": instance.parent.instance if instance.parent else None,
        "upperSchemaVersion": 1,
        "upperSchemaVersionNew": 2,
        "longRunningTimerIntervalDuration": "3.00:00:00",
        "maximumShortTimerDuration": "6.00:00:00",
        "defaultHttpAsyncRequestSleepTimeMillseconds": 30000,
    }


def _state(outcome: Outcome) -> dict[str, Any]:
    """The orchestrator's state, from its answer or from the text of its error."""
    if outcome.ok and outcome.value is not None:
        return dict(json.loads(outcome.value[1]))
    if LABEL in outcome.error:
        # The last one: the text before it may quote another orchestrator's error.
        return dict(json.loads(outcome.error.rpartition(LABEL)[2]))
    raise InvalidAction(outcome.error or "the orchestrator answered nothing")
