"""A durable app whose every orchestration has one right answer, whatever dies while it runs.

Activities write each of their executions, under a name that no other task has, to one file in append mode: a line that
was written stays, whoever is killed afterwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.devhost import sample_app

JOURNAL = "executions"
SHARED_COUNTERS = 3
SOURCE = '''
import os
import time
from datetime import timedelta
from pathlib import Path

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
JOURNAL = Path(os.environ["NOTES"]) / "executions"
JOURNAL.touch()
TWICE_MORE = df.RetryOptions(first_retry_interval_in_milliseconds=20, max_number_of_attempts=3)


def executed(task):
    """Notes it, and tells how often it has been executed."""
    with JOURNAL.open("a") as file:
        file.write(task + "\\n")
    return JOURNAL.read_text().split("\\n").count(task)


@app.route(route="alive")
def alive(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("alive")


@app.event_grid_trigger(arg_name="event")
def on_event(event: func.EventGridEvent) -> None:
    pass


@app.activity_trigger(input_name="order")
def square(order: dict) -> int:
    executed(order["task"])
    time.sleep(order.get("seconds", 0.02))
    return order["number"] ** 2


@app.activity_trigger(input_name="order")
def flaky(order: dict) -> int:
    if executed(order["task"]) < 3:
        raise ValueError("not yet")
    return order["number"] ** 2


@app.entity_trigger(context_name="context")
def counter(context):
    total = context.get_state(lambda: 0)
    if context.operation_name == "add":
        total += context.get_input()
    context.set_state(total)
    context.set_result(total)


def squares(context, task, numbers, **more):
    return [
        context.call_activity("square", {"task": f"{task}/{number}", "number": number, **more}) for number in numbers
    ]


@app.orchestration_trigger(context_name="context")
def fan(context):
    given = context.get_input()
    return sum((yield context.task_all(squares(context, given["task"], range(given["number"])))))


@app.orchestration_trigger(context_name="context")
def family(context):
    given = context.get_input()
    children = [
        context.call_sub_orchestrator("fan", {"task": f"{given['task']}/{child}", "number": child})
        for child in range(1, given["number"])
    ]
    return (yield context.task_all(children))


@app.orchestration_trigger(context_name="context")
def naps(context):
    given, total = context.get_input(), 0
    for nap in range(given["number"]):
        yield context.create_timer(context.current_utc_datetime + timedelta(milliseconds=100))
        total += yield context.call_activity("square", {"task": f"{given['task']}/{nap}", "number": nap})
    return total


@app.orchestration_trigger(context_name="context")
def stubborn(context):
    given = context.get_input()
    order = {"task": f"{given['task']}/flaky", "number": given["number"]}
    first = yield context.call_activity_with_retry("flaky", TWICE_MORE, order)
    second = yield context.call_sub_orchestrator_with_retry("weak", TWICE_MORE, given)
    return [first, second]


@app.orchestration_trigger(context_name="context")
def weak(context):
    """Fails until its activity has been executed three times."""
    given = context.get_input()
    order = {"task": f"{given['task']}/weak", "number": given["number"] + 1}
    return (yield context.call_activity("flaky", order))


@app.orchestration_trigger(context_name="context")
def told(context):
    """Wants one event in each of two ways, and one that beats a timer."""
    given = context.get_input()
    first = yield context.wait_for_external_event("first")
    deadline = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
    second = context.wait_for_external_event("second")
    winner = yield context.task_any([second, deadline])
    if winner == deadline:
        return "too late"
    deadline.cancel()
    squared = yield context.task_all(squares(context, given["task"], [first["value"], second.result["value"]]))
    third = yield context.wait_for_external_event("third")
    return [*squared, third["value"]]


@app.orchestration_trigger(context_name="context")
def tally(context):
    """Counts on a counter of its own, whose answers it knows, and on one that others share."""
    given = context.get_input()
    own = df.EntityId("counter", context.instance_id)
    shared = df.EntityId("counter", given["shared"])
    answers = []
    for number in range(1, given["number"] + 1):
        answers.append((yield context.call_entity(own, "add", number)))
        yield context.call_entity(shared, "add", number)
        yield context.call_activity("square", {"task": f"{given['task']}/{number}", "number": number})
    context.signal_entity(own, "add", 1000)
    answers.append((yield context.call_entity(own, "get")))
    return answers


@app.orchestration_trigger(context_name="context")
def rounds(context):
    """A generation for each event. It says which it wants: one that a generation leaves unread ends with it."""
    given = context.get_input()
    left, total = given["number"], given.get("total", 0)
    if left == 0:
        return total
    context.set_custom_status(f"round{left}")
    event = yield context.wait_for_external_event(f"round{left}")
    total += yield context.call_activity("square", {"task": f"{given['task']}/{left}", "number": event["value"]})
    context.continue_as_new({"task": given["task"], "number": left - 1, "total": total})
'''


@dataclass(frozen=True, slots=True)
class Order:
    """An orchestration to start, the events that it needs, and what must come of it."""

    instance: str
    function: str
    input: Mapping[str, Any]
    output: Any
    tasks: frozenset[str]
    """Names of the activity tasks that it must execute, each at least once."""
    events: Mapping[str, Any] = field(default_factory=dict)
    asks: bool = False
    """Whether it names the event that it wants next in its custom status, and takes no other."""
    counted: Mapping[str, int] = field(default_factory=dict)
    """What it adds to each counter."""


def write(folder: Path) -> Path:
    """Writes the app into `folder`/app and returns that. Few activities at a time, so that work lies about."""
    limits = {"maxConcurrentActivityFunctions": 5, "maxConcurrentOrchestratorFunctions": 5}
    return sample_app.write(folder, SOURCE, extensions={"durableTask": limits})


def executions(folder: Path) -> Counter[str]:
    """How often each activity task has been executed."""
    return Counter(sample_app.notes(folder, JOURNAL))


def orders(count: int) -> list[Order]:
    """This many, of all kinds in turn."""
    return [_KINDS[n % len(_KINDS)](f"{n:03}", 2 + n // len(_KINDS) % 5) for n in range(count)]


def _fan(instance: str, number: int) -> Order:
    return _order(instance, "fan", 3 * number, _sum_of_squares(3 * number), _tasks(instance, range(3 * number)))


def _family(instance: str, number: int) -> Order:
    children = range(1, number)
    tasks = frozenset(f"{instance}/{child}/{grandchild}" for child in children for grandchild in range(child))
    return _order(instance, "family", number, [_sum_of_squares(child) for child in children], tasks)


def _naps(instance: str, number: int) -> Order:
    return _order(instance, "naps", number, _sum_of_squares(number), _tasks(instance, range(number)))


def _stubborn(instance: str, number: int) -> Order:
    tasks = frozenset({f"{instance}/flaky", f"{instance}/weak"})
    return _order(instance, "stubborn", number, [number**2, (number + 1) ** 2], tasks)


def _told(instance: str, number: int) -> Order:
    events = {name: {"value": number + n} for n, name in enumerate(("first", "second", "third"))}
    output = [number**2, (number + 1) ** 2, number + 2]
    return _order(instance, "told", number, output, _tasks(instance, (number, number + 1)), events=events)


def _tally(instance: str, number: int) -> Order:
    answers = [sum(range(n + 1)) for n in range(1, number + 1)]
    shared = f"shared{int(instance) % SHARED_COUNTERS}"
    own = answers[-1] + 1000
    return Order(
        instance,
        "tally",
        {"task": instance, "number": number, "shared": shared},
        [*answers, own],
        _tasks(instance, range(1, number + 1)),
        counted={instance: own, shared: answers[-1]},
    )


def _rounds(instance: str, number: int) -> Order:
    rounds = range(1, number + 1)
    events = {f"round{left}": {"value": left + 10} for left in rounds}
    output = sum((left + 10) ** 2 for left in rounds)
    return _order(instance, "rounds", number, output, _tasks(instance, rounds), events=events, asks=True)


_KINDS: tuple[Callable[[str, int], Order], ...] = (_fan, _family, _naps, _stubborn, _told, _tally, _rounds)


def _order(
    instance: str,
    function: str,
    number: int,
    output: Any,
    tasks: frozenset[str],
    *,
    events: Mapping[str, Any] | None = None,
    asks: bool = False,
) -> Order:
    return Order(instance, function, {"task": instance, "number": number}, output, tasks, events or {}, asks)


def _tasks(instance: str, numbers: range | tuple[int, ...]) -> frozenset[str]:
    return frozenset(f"{instance}/{number}" for number in numbers)


def _sum_of_squares(count: int) -> int:
    return sum(number**2 for number in range(count))
