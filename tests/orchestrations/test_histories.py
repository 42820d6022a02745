"""Histories that were recorded are replayed against the present code: an instance under way must not go another way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.durable_functions.orchestrator import Orchestrator

from devhost.durable.errors import InvalidAction
from devhost.durable.history import Kind
from devhost.durable.replay import replay
from orchestrations.retrain import fan_out, retrain
from tests.orchestrations.histories import FOLDER, SCENARIOS, version

pytestmark = pytest.mark.filterwarnings(
    # What the SDK says of an event that comes before it is waited for; it keeps it until then.
    "ignore:Potential duplicate Task completion for TaskId. force"
)
HANDLES = {"retrain": Orchestrator.create(retrain), "fan_out": Orchestrator.create(fan_out)}
FILES = sorted(FOLDER.glob("*.json"))
LABEL = "$OutOfProcData$:"
SCHEDULES = {Kind.TASK_SCHEDULED: "activity", Kind.SUB_CREATED: "sub", Kind.TIMER_CREATED: "timer"}


def test_there_is_a_history_of_every_scenario_under_the_present_version() -> None:
    """A change that makes another way needs another version, and histories of it beside the old ones."""
    assert {file.name for file in FILES} >= {f"{version()}-{name}.json" for name in SCENARIOS}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recorded_history_goes_the_same_way_today(file: Path) -> None:
    instances = json.loads(file.read_text())
    assert {one["orchestrator"] for one in instances} <= {"retrain", "fan_out"}
    for one in instances:
        go_the_same_way(one)


@pytest.mark.parametrize("field", ["Name", "EventType"])
def test_another_way_is_noticed(field: str) -> None:
    """The test itself, on a history that was tampered with."""
    (one,) = [i for i in json.loads((FOLDER / f"{version()}-kept.json").read_text()) if i["orchestrator"] == "retrain"]
    events = one["history"]
    task = next(event for event in events if event["EventType"] == Kind.TASK_SCHEDULED and event["Name"] == "train")
    task[field] = {"Name": "validate", "EventType": Kind.TIMER_CREATED}[field]
    task.setdefault("FireAt", task["Timestamp"])
    with pytest.raises((InvalidAction, AssertionError)):
        go_the_same_way(one)


def go_the_same_way(one: dict[str, Any]) -> None:
    for history, scheduled in episodes(one["history"]):
        assert scheduled_by(one, history) == way(scheduled)


def episodes(events: list[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """What the orchestrator was given at each of its turns, and what it scheduled in that turn."""
    start = 0
    for end, event in enumerate(events):
        if event["EventType"] != Kind.ORCHESTRATOR_COMPLETED:
            continue
        turn = events[start:end]
        new = [e for e in turn if e["EventType"] not in {*SCHEDULES, Kind.EXECUTION_COMPLETED}]
        yield events[:start] + new, [e for e in turn if e["EventType"] in SCHEDULES]
        start = end + 1


def scheduled_by(one: dict[str, Any], history: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    """What the present code schedules next. Raises InvalidAction when it had scheduled something else before."""
    started = next(event for event in history if event["EventType"] == Kind.EXECUTION_STARTED)
    context = {
        "history": history,
        "input": json.loads(started["Input"]),
        "instanceId": one["instance"],
        "isReplaying": False,
        "parentInstanceId": None,
        "upperSchemaVersion": 1,
        "upperSchemaVersionNew": 2,
        "longRunningTimerIntervalDuration": "3.00:00:00",
        "maximumShortTimerDuration": "6.00:00:00",
        "defaultHttpAsyncRequestSleepTimeMillseconds": 30000,
    }
    try:
        state = json.loads(HANDLES[one["orchestrator"]](json.dumps(context)))
    except Exception as exc:
        if LABEL not in str(exc):
            raise
        state = json.loads(str(exc).rpartition(LABEL)[2])
    schedules, _ = replay(one["instance"], one["execution"], history, state, lambda *_: None)
    return [(made.kind, made.id, made.name.lower()) for made in schedules]


def way(events: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    """Schedules as they were recorded: kind, number and name."""
    return [(SCHEDULES[event["EventType"]], event["EventId"], (event.get("Name") or "").lower()) for event in events]
