"""The patterns of the Durable Functions documentation, as small apps, through the SDK's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import pytest

from tests.devhost.durable.sdk import SECONDS, App, hub

pytestmark = [
    # The SDK asks for the types of inputs; these programs take whatever comes.
    pytest.mark.filterwarnings("ignore:azure.functions df_loads was called without expected_type"),
    # What it says of an event that comes before the orchestrator waits for it.
    pytest.mark.filterwarnings("ignore:Potential duplicate Task completion"),
]
type Steps = Generator[Any, Any, Any]
Status = df.OrchestrationRuntimeStatus
COUNTER = df.EntityId("counter", "visits")


@pytest.fixture
def app() -> App:
    app = App()

    @app.activity
    def hello(city: Any) -> Any:
        return f"Hello {city}!"

    @app.entity
    def counter(context: Any) -> None:
        value = context.get_state(lambda: 0)
        match context.operation_name:
            case "add":
                value += context.get_input()
            case "reset":
                value = 0
        context.set_state(value)
        context.set_result(value)

    return app


async def reaches(client: Any, instance: str, condition: Callable[[Any], bool]) -> Any:
    """Polls the status, as the SDK's client tells it, until the condition holds."""
    async with asyncio.timeout(SECONDS):
        while True:
            there = await client.get_status(instance)
            if condition(there):
                return there
            await asyncio.sleep(0.005)


async def ended(client: Any, instance: str) -> Any:
    over = {Status.Completed, Status.Failed, Status.Terminated}
    return await reaches(client, instance, lambda there: there.runtime_status in over)


async def test_function_chaining(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def chain(context: Any) -> Steps:
        greetings = []
        for city in ("Tokyo", "Seattle", "London"):
            context.set_custom_status(city)
            greetings.append((yield context.call_activity("hello", city)))
        return greetings

    async with hub(app, tmp_path / "hub.db") as running:
        client = running.client()
        there = await ended(client, await client.start_new("chain"))
    assert there.runtime_status == Status.Completed
    assert there.output == ["Hello Tokyo!", "Hello Seattle!", "Hello London!"]
    assert there.custom_status == "London"


async def test_fan_out_and_fan_in(app: App, tmp_path: Path) -> None:
    @app.activity
    def sizes(count: Any) -> Any:
        return list(range(count))

    @app.activity
    def square(size: Any) -> Any:
        return size * size

    @app.orchestrator
    def total(context: Any) -> Steps:
        found = yield context.call_activity("sizes", context.get_input())
        squares = yield context.task_all([context.call_activity("square", size) for size in found])
        return sum(squares)

    async with hub(app, tmp_path / "hub.db") as running:
        client = running.client()
        there = await ended(client, await client.start_new("total", client_input=20))
    assert (there.runtime_status, there.output) == (Status.Completed, sum(n * n for n in range(20)))


async def test_functions_of_a_blueprint(tmp_path: Path) -> None:
    blueprint, app = df.Blueprint(), App()

    def shout(word: str) -> str:
        return word.upper()

    def shouting(context: Any) -> Steps:
        return (yield context.call_activity(activity, context.get_input()))

    activity = blueprint.activity_trigger(input_name="word")(shout)
    blueprint.orchestration_trigger(context_name="context")(shouting)
    whole = df.DFApp()
    whole.register_functions(blueprint)
    app.take(whole.get_functions())
    async with hub(app, tmp_path / "hub.db") as running:
        client = running.client()
        there = await ended(client, await client.start_new("shouting", client_input="hey"))
    assert (there.runtime_status, there.output) == (Status.Completed, "HEY")


async def test_an_entity_is_signalled_called_and_read(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def visiting(context: Any) -> Steps:
        before = yield context.call_entity(COUNTER, "get")
        context.signal_entity(COUNTER, "add", 2)
        after = yield context.call_entity(COUNTER, "add", 3)
        return [before, after]

    async with hub(app, tmp_path / "hub.db") as running:
        client = running.client()
        assert not (await client.read_entity_state(COUNTER)).entity_exists
        await client.signal_entity(COUNTER, "add", 10)
        there = await ended(client, await client.start_new("visiting"))
        assert (there.runtime_status, there.output) == (Status.Completed, [10, 15])
        state = await client.read_entity_state(COUNTER)
        assert (state.entity_exists, state.entity_state) == (True, 15)


def asking(context: Any) -> Steps:
    """Human interaction: an approval, or what is done when nobody answers."""
    timer = context.create_timer(context.current_utc_datetime + timedelta(milliseconds=context.get_input()))
    approval = context.wait_for_external_event("Approval")
    context.set_custom_status("waiting")
    winner = yield context.task_any([approval, timer])
    if winner is timer:
        context.set_custom_status("escalated")
        return (yield context.call_activity("hello", "boss"))
    timer.cancel()
    context.set_custom_status("answered")
    return approval.result


async def test_a_human_answers_in_time(app: App, tmp_path: Path) -> None:
    app.orchestrator(asking)
    async with hub(app, tmp_path / "hub.db") as running:
        client = running.client()
        instance = await client.start_new("asking", client_input=3_600_000)
        await reaches(client, instance, lambda there: there.custom_status == "waiting")
        await client.raise_event(instance, "Approval", True)
        there = await ended(client, instance)
    # What the SDK sends is JSON that holds JSON: the orchestrator gets the inner text, as it does on Azure.
    assert (there.runtime_status, there.output, there.custom_status) == (Status.Completed, "true", "answered")


async def test_no_human_answers(app: App, tmp_path: Path) -> None:
    app.orchestrator(asking)
    async with hub(app, tmp_path / "hub.db") as running:
        client = running.client()
        there = await ended(client, await client.start_new("asking", client_input=10))
        with pytest.raises(Exception, match="is gone"):
            await client.raise_event(there.instance_id, "Approval", True)
    assert (there.runtime_status, there.output) == (Status.Completed, "Hello boss!")
    assert there.custom_status == "escalated"


async def test_a_monitor_polls_until_it_sees_what_it_waits_for(app: App, tmp_path: Path) -> None:
    weather = iter(["rain", "rain", "clear"])

    @app.activity
    def look(_: Any) -> Any:
        return next(weather)

    @app.orchestrator
    def monitor(context: Any) -> Steps:
        polls = context.get_input()
        seen = yield context.call_activity("look", None)
        context.set_custom_status({"polls": polls, "seen": seen})
        if seen == "clear":
            return polls
        yield context.create_timer(context.current_utc_datetime + timedelta(milliseconds=5))
        context.continue_as_new(polls + 1)
        return None

    async with hub(app, tmp_path / "hub.db") as running:
        client = running.client()
        there = await ended(client, await client.start_new("monitor", client_input=1))
    assert (there.runtime_status, there.output) == (Status.Completed, 3)
    assert there.custom_status == {"polls": 3, "seen": "clear"}


async def test_a_sub_orchestration_is_retried(app: App, tmp_path: Path) -> None:
    attempts: list[str] = []

    @app.activity
    def provision(device: Any) -> Any:
        attempts.append(device)
        if len(attempts) < 3:
            raise OSError("offline")
        return f"{device} is ready"

    @app.orchestrator
    def device(context: Any) -> Steps:
        return (yield context.call_activity("provision", context.get_input()))

    @app.orchestrator
    def fleet(context: Any) -> Steps:
        retry = df.RetryOptions(first_retry_interval_in_milliseconds=1, max_number_of_attempts=3)
        return (yield context.call_sub_orchestrator_with_retry("device", retry, "lamp"))

    async with hub(app, tmp_path / "hub.db") as running:
        client = running.client()
        there = await ended(client, await client.start_new("fleet"))
        statuses = sorted(each.runtime_status.name for each in await client.get_status_all())
    assert (there.runtime_status, there.output) == (Status.Completed, "lamp is ready")
    assert attempts == ["lamp"] * 3
    assert statuses == ["Completed", "Completed", "Failed", "Failed"]


async def test_an_eternal_orchestration_runs_until_it_is_terminated(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def eternal(context: Any) -> Steps:
        context.set_custom_status(context.get_input())
        yield context.call_activity("hello", "again")
        yield context.create_timer(context.current_utc_datetime + timedelta(milliseconds=1))
        context.continue_as_new(context.get_input() + 1)

    async with hub(app, tmp_path / "hub.db") as running:
        client = running.client()
        instance = await client.start_new("eternal", client_input=0)
        await reaches(client, instance, lambda there: (there.custom_status or 0) >= 3)
        await client.terminate(instance, "enough")
        there = await ended(client, instance)
        assert (there.runtime_status, there.output) == (Status.Terminated, "enough")
        assert (await client.purge_instance_history(instance)).instances_deleted == 1


async def test_a_suspended_orchestration_takes_its_events_when_it_is_resumed(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def waiting(context: Any) -> Steps:
        context.set_custom_status("waiting")
        first = yield context.wait_for_external_event("first")
        second = yield context.wait_for_external_event("second")
        return [first, second]

    async with hub(app, tmp_path / "hub.db") as running:
        client = running.client()
        instance = await client.start_new("waiting")
        await reaches(client, instance, lambda there: there.custom_status == "waiting")
        await client.suspend(instance, "hold on")
        await reaches(client, instance, lambda there: there.runtime_status == Status.Suspended)
        await client.raise_event(instance, "first", "a")
        await client.raise_event(instance, "second", "b")
        assert (await client.get_status(instance)).runtime_status == Status.Suspended
        await client.resume(instance, "go on")
        there = await ended(client, instance)
    assert (there.runtime_status, [json.loads(text) for text in there.output]) == (Status.Completed, ["a", "b"])


async def test_rewind_repeats_only_what_failed_in_the_sub_orchestration_too(app: App, tmp_path: Path) -> None:
    broken = [True]

    @app.activity
    def charge(_: Any) -> Any:
        if broken[0]:
            raise OSError("the bank is closed")
        return "paid"

    @app.orchestrator
    def payment(context: Any) -> Steps:
        return (yield context.call_activity("charge", None))

    @app.orchestrator
    def order(context: Any) -> Steps:
        greeting = yield context.call_activity("hello", "customer")
        paid = yield context.call_sub_orchestrator("payment")
        return [greeting, paid]

    async with hub(app, tmp_path / "hub.db") as running:
        client = running.client()
        instance = await client.start_new("order")
        failed = await ended(client, instance)
        assert failed.runtime_status == Status.Failed
        assert "the bank is closed" in failed.output
        broken[0] = False
        await client.rewind(instance, "the bank is open")
        there = await reaches(client, instance, lambda there: there.runtime_status != Status.Running)
        assert (there.runtime_status, there.output) == (Status.Completed, ["Hello customer!", "paid"])
        with pytest.raises(Exception, match="only supported on failed"):
            await client.rewind(instance, "again")
    assert (app.calls.count("hello"), app.calls.count("charge")) == (1, 2)


@pytest.mark.parametrize("new_id", [True, False])
async def test_restart_runs_the_same_input_again(app: App, tmp_path: Path, new_id: bool) -> None:
    @app.orchestrator
    def greet(context: Any) -> Steps:
        return (yield context.call_activity("hello", context.get_input()))

    async with hub(app, tmp_path / "hub.db") as running:
        client = running.client()
        instance = await client.start_new("greet", "first", "you")
        await ended(client, instance)
        # The SDK's annotation says str; it hands on the host's answer, which is the links of the new instance.
        again = (await client.restart(instance, restart_with_new_instance_id=new_id))["id"]
        there = await ended(client, again)
        assert len(await client.get_status_all()) == (2 if new_id else 1)
    assert (again == instance) is not new_id
    assert (there.runtime_status, there.output) == (Status.Completed, "Hello you!")
    assert app.calls.count("hello") == 2
