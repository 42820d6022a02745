"""History events as the SDK reads them, and their timestamps."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

type Event = dict[str, Any]


class Kind(IntEnum):
    """`EventType` of a history event."""

    EXECUTION_STARTED = 0
    EXECUTION_COMPLETED = 1
    EXECUTION_TERMINATED = 3
    TASK_SCHEDULED = 4
    TASK_COMPLETED = 5
    TASK_FAILED = 6
    SUB_CREATED = 7
    SUB_COMPLETED = 8
    SUB_FAILED = 9
    TIMER_CREATED = 10
    TIMER_FIRED = 11
    ORCHESTRATOR_STARTED = 12
    ORCHESTRATOR_COMPLETED = 13
    EVENT_SENT = 14
    EVENT_RAISED = 15
    CONTINUE_AS_NEW = 16
    GENERIC = 17
    SUSPENDED = 19
    RESUMED = 20


STATUSES = ("Running", "Completed", "ContinuedAsNew", "Failed", "Canceled", "Terminated")
"""`OrchestrationStatus` of an ExecutionCompleted event, by number."""
FINISHED = frozenset({"Completed", "Failed", "Terminated", "Canceled"})

NAMES: dict[int, str] = {
    Kind.EXECUTION_STARTED: "ExecutionStarted",
    Kind.EXECUTION_COMPLETED: "ExecutionCompleted",
    Kind.EXECUTION_TERMINATED: "ExecutionTerminated",
    Kind.TASK_COMPLETED: "TaskCompleted",
    Kind.TASK_FAILED: "TaskFailed",
    Kind.SUB_COMPLETED: "SubOrchestrationInstanceCompleted",
    Kind.SUB_FAILED: "SubOrchestrationInstanceFailed",
    Kind.TIMER_FIRED: "TimerFired",
    Kind.EVENT_RAISED: "EventRaised",
    Kind.CONTINUE_AS_NEW: "ContinueAsNew",
    Kind.GENERIC: "GenericEvent",
    Kind.SUSPENDED: "ExecutionSuspended",
    Kind.RESUMED: "ExecutionResumed",
}
"""What a status query calls them. Scheduling events are folded into their completions."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """ISO 8601 with microseconds and Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_timestamp(text: str) -> datetime:
    """Back from `timestamp`; also takes the SDK's own forms, which may name no zone."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def event(kind: Kind, event_id: int = -1, **fields: Any) -> Event:
    """A new event, stamped now."""
    return {"EventType": int(kind), "EventId": event_id, "IsPlayed": False, "Timestamp": timestamp(utc_now()), **fields}


def for_status(history: list[Event], *, outputs: bool) -> list[Event]:
    """The history as a status query shows it."""
    scheduled: dict[int, Event] = {}
    shown: list[Event] = []
    for entry in history:
        kind = entry["EventType"]
        if kind in {Kind.TASK_SCHEDULED, Kind.SUB_CREATED}:
            scheduled[entry["EventId"]] = entry
        if kind not in NAMES:
            continue
        item: Event = {"EventType": NAMES[kind], "Timestamp": entry["Timestamp"]}
        if "Name" in entry:
            item["FunctionName" if kind == Kind.EXECUTION_STARTED else "Name"] = entry["Name"]
        if kind == Kind.EXECUTION_COMPLETED:
            item["OrchestrationStatus"] = STATUSES[entry["OrchestrationStatus"]]
        cause = scheduled.get(entry.get("TaskScheduledId", -1))
        if cause is not None:
            item |= {"ScheduledTime": cause["Timestamp"], "FunctionName": cause["Name"]}
        item |= {name: entry[name] for name in ("Reason", "Details", "FireAt") if name in entry}
        if outputs:
            item |= {name: entry[name] for name in ("Result", "Input") if name in entry}
        shown.append(item)
    return shown
