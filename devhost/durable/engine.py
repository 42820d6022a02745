"""Runs what a task hub has to do, one transaction per work item: episodes of orchestrations, timers, and what the
modules beside this one do for entities and activities.

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
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from devhost.durable.activities import Activities
from devhost.durable.control import Control
from devhost.durable.entities import Entities
from devhost.durable.errors import InvalidAction
from devhost.durable.functions import Functions
from devhost.durable.history import STATUSES, Event, Kind, event, parse_timestamp, timestamp
from devhost.durable.http_call import HttpCalls
from devhost.durable.replay import Ending, Schedule, replay
from devhost.durable.store import ActivityItem, Instance, Parent, Store, compact
from devhost.durable.trying import until_it_works
from devhost.durable.versions import MISMATCH, Versions
from devhost.protocol import FunctionInfo, Invoker, Outcome

log = logging.getLogger("devhost.durable")

LABEL = "\n\n$OutOfProcData$:"
"""Before the state that a failed orchestrator's error text carries."""
LONGEST_TIMER, TIMER_INTERVAL = "6.00:00:00", "3.00:00:00"
"""Time spans of .NET: what the SDK makes several timers of, and how long those are."""
LONGEST_GATHERING = 0.1
LONGEST_SLEEP = 10.0
"""How often to look at the clock, which may have been set, or have gone on while the machine slept."""


class Engine:
    """One asyncio loop owns it; its methods are not thread-safe. `control` and `entities` are for clients."""

    def __init__(
        self,
        store: Store,
        invoker: Invoker,
        functions: Sequence[FunctionInfo],
        *,
        max_orchestrators: int,
        max_activities: int,
        versions: Versions,
    ) -> None:
        self.store, self._versions = store, versions
        self._functions = Functions(invoker, functions)
        self._http = HttpCalls()
        self._activities = Activities(store, self._functions, self._http, self.wake, limit=max_activities)
        self.entities = Entities(store, self._functions, self.wake)
        self.control = Control(store, self._functions, self.wake, default_version=versions.default)
        self._orchestrators = asyncio.Semaphore(max_orchestrators)
        self._refused: set[str] = set()
        self._pumping: set[str] = set()
        self._dirty: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)
        self._timers_changed = asyncio.Event()
        self._stopping = False

    # Life.

    def start(self) -> None:
        """Takes up what a former process left."""
        self._spawn(until_it_works(self._run_timers, "the timers"))
        for instance in self.store.with_messages():
            self.wake(instance)
        for item in self.store.activities():
            self._spawn(self._activities.run(item))

    async def stop(self) -> None:
        """Cancels what runs; the store has everything that a next start needs."""
        self._stopping = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def wake(self, instance: str) -> None:
        """There is something in this instance's inbox. Once the engine stops, it is for the next start."""
        if self._stopping:
            return
        self._dirty.add(instance)
        if instance not in self._pumping:
            self._pumping.add(instance)
            self._spawn(self._pump(instance))

    async def _pump(self, instance: str) -> None:
        try:
            while instance in self._dirty:
                self._dirty.discard(instance)
                began = time.monotonic()
                async with self._orchestrators:
                    work = self.entities.work if instance.startswith("@") else self._episode
                    await until_it_works(partial(work, instance), f"an episode of {instance}")
                if instance in self._dirty:
                    # A long history takes long to replay. Waiting as long as that took lets more completions come
                    # together, so that a wide fan-in is a few episodes and not one for each activity.
                    await asyncio.sleep(min(time.monotonic() - began, LONGEST_GATHERING))
        finally:
            self._pumping.discard(instance)
            if instance in self._dirty:
                self.wake(instance)

    # Orchestrations.

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
        if self._versions.admits(instance.version):
            await self._run_orchestrator(instance, events, last)
        elif self._versions.failure == "Fail":
            self._commit(instance, last, events, [], Ending("failed", MISMATCH), instance.custom)
        elif instance_id not in self._refused:
            self._refused.add(instance_id)
            log.warning(
                "%s has version %r, which host.json does not let this host run (defaultVersion %s, "
                "versionMatchStrategy %s); it waits",
                instance_id,
                instance.version,
                self._versions.default,
                self._versions.match,
            )

    async def _run_orchestrator(self, instance: Instance, events: list[Event], last: int) -> None:
        if instance.status == "Pending":
            with self.store.transaction():
                self.store.set_status(instance.id, "Running")
        past = list(self.store.history(instance.id))
        began = event(Kind.ORCHESTRATOR_STARTED)
        history = [*past, began, *events]
        context = compact(_context(instance, history, bool(past)))
        outcome = await self._functions.call("orchestrator", instance.name, context)
        current = self.store.instance(instance.id)
        if current is None or current.execution != instance.execution or current.finished:
            return  # purged, replaced or terminated meanwhile
        custom, schedules, ending = instance.custom, list[Schedule](), None
        try:
            state = _state(outcome)
            schedules, ending = replay(instance.id, instance.execution, history, state, self._functions.check)
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
            self._spawn(self._activities.run(item))
        if ending is not None and ending.kind != "continued":
            self._ended(instance.id)

    def _schedule(
        self, instance: Instance, schedule: Schedule, activities: list[ActivityItem], wake: set[str]
    ) -> Event:
        # What a retry policy schedules says so: rewinding has to tell it from the orchestrator's own timers.
        part = {} if schedule.attempt_of is None else {"AttemptOf": schedule.attempt_of}
        if schedule.kind == "activity":
            given = schedule.input
            input_ = given if isinstance(given, str) or given is None else compact(given)
            item = self.store.add_activity(instance.id, instance.execution, schedule.id, schedule.name, input_)
            activities.append(item)
            return event(Kind.TASK_SCHEDULED, schedule.id, Name=schedule.name, Version="", Input=None, **part)
        if schedule.kind == "timer" and schedule.fire_at is not None:
            fire_at = timestamp(schedule.fire_at)
            message = {"TimerId": schedule.id, "FireAt": fire_at}
            self.store.add_timer(schedule.fire_at.timestamp(), instance.id, instance.execution, message)
            self._timers_changed.set()
            return event(Kind.TIMER_CREATED, schedule.id, FireAt=fire_at, **part)
        if schedule.kind == "sub":
            return self._schedule_sub(instance, schedule, wake) | part
        return self._send_to_entity(schedule, wake)

    def _schedule_sub(self, instance: Instance, schedule: Schedule, wake: set[str]) -> Event:
        input_ = compact(schedule.input) if schedule.input is not None else None
        version = schedule.version or self._versions.default
        other = self.store.instance(schedule.instance)
        if other is not None and not other.finished:
            reason = f"An Orchestration instance with the status {other.status} already exists."
            failed = event(Kind.SUB_FAILED, TaskScheduledId=schedule.id, Reason=reason, Details=None)
            self.store.send(instance.id, failed, instance.execution)
            wake.add(instance.id)
        else:
            parent = Parent(instance.id, instance.execution, schedule.id, instance.name)
            execution = uuid.uuid4().hex
            self.store.create(schedule.name, schedule.instance, input_, version, execution, parent)
            wake.add(schedule.instance)
        return event(
            Kind.SUB_CREATED,
            schedule.id,
            Name=schedule.name,
            Version=version,
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
        "longRunningTimerIntervalDuration": TIMER_INTERVAL,
        "maximumShortTimerDuration": LONGEST_TIMER,
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
