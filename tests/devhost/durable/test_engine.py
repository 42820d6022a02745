"""The engine under the real SDK: what an orchestrator can ask for, and what survives a restart."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import pytest

from devhost.durable import trying
from devhost.durable.store import Store
from tests.devhost.durable.sdk import App, hub

pytestmark = pytest.mark.filterwarnings(
    # The SDK asks for the types of inputs; these programs take whatever comes.
    "ignore:azure.functions df_loads was called without expected_type"
)
type Steps = Generator[Any, Any, Any]
RETRY = df.RetryOptions(first_retry_interval_in_milliseconds=1, max_number_of_attempts=3)


@pytest.fixture
def app() -> App:
    app = App()

    @app.activity
    def double(number: Any) -> Any:
        return number * 2

    @app.activity
    def fail(message: Any) -> Any:
        raise ValueError(message)

    app.activity(double)
    return app


async def test_activities_one_after_another(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def chain(context: Any) -> Steps:
        first = yield context.call_activity("double", context.get_input())
        second = yield context.call_activity("double", first)
        return {"value": second}

    async with hub(app, tmp_path / "hub.db") as running:
        there = await running.run("chain", 5)
    assert (there["runtimeStatus"], there["output"]) == ("Completed", {"value": 20})


async def test_a_thousand_activities_at_once(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def wide(context: Any) -> Steps:
        results = yield context.task_all([context.call_activity("double", n) for n in range(1000)])
        return sum(results)

    async with hub(app, tmp_path / "hub.db") as running:
        there = await running.run("wide")
    assert there["output"] == sum(range(1000)) * 2


async def test_a_failing_activity_fails_the_orchestrator_with_its_text(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def failing(context: Any) -> Steps:
        yield context.call_activity("fail", "boom")

    async with hub(app, tmp_path / "hub.db") as running:
        there = await running.run("failing")
    assert there["runtimeStatus"] == "Failed"
    assert "Orchestrator function 'failing' failed:" in there["output"]
    assert "Activity function 'fail' failed: ValueError: boom" in there["output"]


async def test_an_orchestrator_can_catch_a_failure(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def careful(context: Any) -> Steps:
        try:
            yield context.call_activity("fail", "boom")
        except Exception as exc:
            answer = yield context.call_activity("double", len(str(exc)) > 0)
            return answer

    async with hub(app, tmp_path / "hub.db") as running:
        there = await running.run("careful")
    assert (there["runtimeStatus"], there["output"]) == ("Completed", 2)


async def test_retries_stop_at_the_first_success(app: App, tmp_path: Path) -> None:
    tries: list[int] = []

    @app.activity
    def flaky(_: Any) -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return len(tries)

    @app.orchestrator
    def patient(context: Any) -> Steps:
        return (yield context.call_activity_with_retry("flaky", RETRY, None))

    async with hub(app, tmp_path / "hub.db") as running:
        there = await running.run("patient")
    assert (there["runtimeStatus"], there["output"], len(tries)) == ("Completed", 3, 3)


async def test_retries_end(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def stubborn(context: Any) -> Steps:
        yield context.call_activity_with_retry("fail", RETRY, "boom")

    async with hub(app, tmp_path / "hub.db") as running:
        there = await running.run("stubborn")
    assert there["runtimeStatus"] == "Failed"
    assert app.calls.count("fail") == 3


async def test_sub_orchestrations_and_their_failures(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def child(context: Any) -> Steps:
        number = context.get_input()
        if number < 0:
            raise ValueError("negative")
        return (yield context.call_activity("double", number))

    @app.orchestrator
    def parent(context: Any) -> Steps:
        good = yield context.task_all([context.call_sub_orchestrator("child", n) for n in range(5)])
        try:
            yield context.call_sub_orchestrator("child", -1)
        except Exception as exc:
            return [sum(good), "negative" in str(exc)]

    async with hub(app, tmp_path / "hub.db") as running:
        there = await running.run("parent")
    assert there["output"] == [20, True]


async def test_a_failure_goes_up_through_every_generation_of_sub_orchestrations(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def nested(context: Any) -> Steps:
        depth = context.get_input()
        if depth == 0:
            raise ValueError("at the bottom")
        yield context.call_sub_orchestrator("nested", depth - 1)

    async with hub(app, tmp_path / "hub.db") as running:
        there = await running.run("nested", 4)
    assert there["runtimeStatus"] == "Failed"
    assert "at the bottom" in there["output"]
    assert "$OutOfProcData$" not in there["output"]


async def test_events_timers_and_any(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def waiting(context: Any) -> Steps:
        timer = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
        answer = context.wait_for_external_event("Answer")
        winner = yield context.task_any([answer, timer])
        timer.cancel()
        soon = context.create_timer(context.current_utc_datetime + timedelta(milliseconds=20))
        yield soon
        return winner == answer and answer.result

    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("waiting")
        await running.until(lambda there: there["runtimeStatus"] == "Running")
        status, _ = await running.ask("POST", "instances/one/raiseEvent/Answer", {"k": 1})
        assert status == 202
        there = await running.ended()
    assert there["output"] == {"k": 1}


async def test_continue_as_new_keeps_events_and_status(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def counting(context: Any) -> Steps:
        count = context.get_input()
        context.set_custom_status({"count": count})
        yield context.wait_for_external_event("tick")
        if count < 3:
            context.continue_as_new(count + 1)
            return None
        return count

    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("counting", 1)
        for _ in range(3):
            await running.ask("POST", "instances/one/raiseEvent/tick", 0)
        there = await running.ended()
    assert (there["output"], there["customStatus"]) == (3, {"count": 3})


async def test_an_event_that_beat_a_timer_is_not_delivered_again_to_the_next_generation(
    app: App, tmp_path: Path
) -> None:
    @app.orchestrator
    def asking(context: Any) -> Steps:
        generation = context.get_input()
        context.set_custom_status(generation)
        timer = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
        answer = context.wait_for_external_event("answer")
        yield context.task_any([answer, timer])
        timer.cancel()
        if generation == 1:
            context.continue_as_new(2)
            return None
        return answer.result

    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("asking", 1)
        for answer in (1, 2):
            await running.until(lambda there, now=answer: there["customStatus"] == now)  # type: ignore[misc]
            await running.ask("POST", "instances/one/raiseEvent/answer", answer)
        there = await running.ended()
    assert there["output"] == 2


async def test_entities_are_called_signalled_and_read(app: App, tmp_path: Path) -> None:
    @app.entity
    def counter(context: Any) -> None:
        value = context.get_state(lambda: 0)
        if context.operation_name == "add":
            value += context.get_input()
        context.set_state(value)
        context.set_result(value)

    @app.orchestrator
    def using(context: Any) -> Steps:
        entity = df.EntityId("counter", "k")
        context.signal_entity(entity, "add", 3)
        return (yield context.call_entity(entity, "add", 4))

    async with hub(app, tmp_path / "hub.db") as running:
        there = await running.run("using")
        assert there["output"] == 7
        assert await running.ask("GET", "entities/counter/k") == (200, 7)
        assert (await running.ask("GET", "entities/counter/other"))[0] == 404


async def test_a_running_id_cannot_be_started_again_a_finished_one_can(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def once(context: Any) -> Steps:
        return (yield context.wait_for_external_event("go"))

    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("once")
        status, problem = await running.ask("POST", "orchestrators/once/one", "null")
        assert status == 409
        assert "already exists" in problem["ExceptionMessage"]
        await running.ask("POST", "instances/one/raiseEvent/go", 1)
        await running.ended()
        await running.start("once")
        await running.ask("POST", "instances/one/raiseEvent/go", 2)
        assert (await running.ended())["output"] == 2


async def test_suspend_resume_terminate_purge(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def long(context: Any) -> Steps:
        yield context.wait_for_external_event("a")
        yield context.wait_for_external_event("never")

    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("long")
        await running.until(lambda there: there["runtimeStatus"] == "Running")
        await running.ask("POST", "instances/one/suspend", reason="hold")
        await running.until(lambda there: there["runtimeStatus"] == "Suspended")
        await running.ask("POST", "instances/one/raiseEvent/a", 1)
        await running.ask("POST", "instances/one/resume")
        await running.until(lambda there: there["runtimeStatus"] == "Running")
        assert await running.ask("DELETE", "instances/one") == (200, {"instancesDeleted": 0})
        assert (await running.ask("POST", "instances/one/terminate", reason="enough"))[0] == 202
        there = await running.ended()
        assert (there["runtimeStatus"], there["output"]) == ("Terminated", "enough")
        assert (await running.ask("POST", "instances/one/terminate"))[0] == 410
        assert await running.ask("DELETE", "instances/one") == (200, {"instancesDeleted": 1})
        assert (await running.ask("GET", "instances/one"))[0] == 404


async def test_rewind_goes_on_from_what_failed(app: App, tmp_path: Path) -> None:
    broken = [True]

    @app.activity
    def breakable(_: Any) -> Any:
        if broken[0]:
            raise OSError("down")
        return "up"

    @app.orchestrator
    def fragile(context: Any) -> Steps:
        first = yield context.call_activity("double", 1)
        second = yield context.call_activity("breakable", None)
        return [first, second]

    async with hub(app, tmp_path / "hub.db") as running:
        assert (await running.run("fragile"))["runtimeStatus"] == "Failed"
        broken[0] = False
        assert (await running.ask("POST", "instances/one/rewind", reason="mended"))[0] == 202
        there = await running.until(lambda there: there["runtimeStatus"] == "Completed")
    assert there["output"] == [2, "up"]
    assert app.calls.count("double") == 1


async def test_a_query_filters_and_pages(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def quick(context: Any) -> Steps:
        return (yield context.call_activity("double", 1))

    async with hub(app, tmp_path / "hub.db") as running:
        for name in ("a1", "a2", "b1"):
            await running.run("quick", None, name)
        _, found = await running.ask("GET", "instances", instanceIdPrefix="a", runtimeStatus="Completed,Failed")
        assert [there["instanceId"] for there in found] == ["a1", "a2"]
        _, found = await running.ask("GET", "instances", runtimeStatus="Running")
        assert found == []
        history = (await running.status("a1", showHistory="true", showHistoryOutput="true"))["historyEvents"]
        assert [entry["EventType"] for entry in history] == ["ExecutionStarted", "TaskCompleted", "ExecutionCompleted"]
        assert history[1]["FunctionName"] == "double"


async def test_a_query_reads_times_of_any_zone_and_statuses_in_any_case(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def quick(context: Any) -> Steps:
        return (yield context.call_activity("double", 1))

    async with hub(app, tmp_path / "hub.db") as running:
        await running.run("quick")
        second = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=30)
        here, later = second.astimezone(timezone(timedelta(hours=9))), second + timedelta(hours=1)
        for query, found in (
            ({"createdTimeFrom": here.isoformat()}, 1),
            ({"createdTimeFrom": second.strftime("%Y-%m-%dT%H:%M:%SZ")}, 1),
            ({"createdTimeFrom": "1-01-01T00:00:00.000000Z"}, 1),
            ({"createdTimeFrom": "999-01-01T00:00:00.000000Z"}, 1),
            ({"createdTimeTo": here.isoformat()}, 0),
            ({"createdTimeFrom": later.isoformat()}, 0),
            ({"runtimeStatus": "completed, failed"}, 1),
            ({"runtimeStatus": "failed"}, 0),
        ):
            status, answer = await running.ask("GET", "instances", **query)
            assert (status, len(answer)) == (200, found), query
        for query in ({"createdTimeFrom": "yesterday"}, {"createdTimeFrom": "2020-01-01", "runtimeStatus": "Done"}):
            for method in ("GET", "DELETE"):
                assert (await running.ask(method, "instances", **query))[0] == 400, query
        assert (await running.status())["runtimeStatus"] == "Completed"  # nothing was purged


async def test_entities_are_listed_and_purged(app: App, tmp_path: Path) -> None:
    app.entity(_named("note", lambda context: context.set_state(context.get_input())))
    async with hub(app, tmp_path / "hub.db") as running:
        for key in ("a", "b@c"):
            await running.ask("POST", f"entities/note/{key}", "7", op="set")
            await running.eventually_entity("note", key)
        _, answer = await running.ask("GET", "entities/Note", fetchState="true")
        assert [(there["entityId"], there["state"]) for there in answer] == [
            ({"name": "note", "key": "a"}, 7),
            ({"name": "note", "key": "b@c"}, 7),
        ]
        assert len((await running.ask("GET", "entities", top="1"))[1]) == 1
        assert (await running.ask("GET", "entities/other"))[1] == []
        assert await running.ask("DELETE", "instances/@note@b@c") == (200, {"instancesDeleted": 1})
        assert (await running.ask("GET", "entities/note/b@c"))[0] == 404
        assert (await running.ask("DELETE", "instances/@note@b@c"))[0] == 404
        status, problem = await running.ask("POST", "entities/nothing/a", 7, op="set")
    assert (status, "'note'" in problem["ExceptionMessage"]) == (400, True)


async def test_a_signal_that_fails_is_told(app: App, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def grumpy(context: Any) -> None:
        if context.operation_name == "fail":
            raise ValueError("not today")
        context.set_state(1)

    app.entity(_named("grumpy", grumpy))
    async with hub(app, tmp_path / "hub.db") as running:
        for operation in ("fail", "work"):
            assert (await running.ask("POST", "entities/grumpy/k", op=operation))[0] == 202
        assert await running.eventually_entity("grumpy", "k") == 1
    assert "the signal 'fail' to @grumpy@k failed" in caplog.text
    assert "not today" in caplog.text


async def test_a_sub_orchestration_cannot_take_an_entity_s_place(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def bold(context: Any) -> Steps:
        return (yield context.call_sub_orchestrator("bold", None, "@note@one"))

    async with hub(app, tmp_path / "hub.db") as running:
        there = await running.run("bold")
    assert there["runtimeStatus"] == "Failed"
    assert "must not start with @" in there["output"]


async def test_an_unknown_orchestrator_is_a_clear_error(app: App, tmp_path: Path) -> None:
    async with hub(app, tmp_path / "hub.db") as running:
        status, problem = await running.ask("POST", "orchestrators/nothing/one", "null")
    assert status == 400
    assert "'nothing' doesn't exist" in problem["ExceptionMessage"]


@pytest.mark.parametrize("instance", ["@x", "a%2Fb", "a%23b", "a%3Fb", "x" * 101])
async def test_ids_that_the_platform_forbids_are_refused(app: App, tmp_path: Path, instance: str) -> None:
    @app.orchestrator
    def quick(context: Any) -> Steps:
        return (yield context.call_activity("double", 1))

    async with hub(app, tmp_path / "hub.db") as running:
        assert (await running.ask("POST", f"orchestrators/quick/{instance}", "null"))[0] == 400


async def test_a_restart_in_the_middle_loses_nothing_and_repeats_no_finished_step(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def three(context: Any) -> Steps:
        first = yield context.call_activity("double", 1)
        yield context.call_activity("slow", None)
        last = yield context.call_activity("double", first)
        return last

    app.activity(_named("slow", lambda _: None))
    app.holding.add("slow")
    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("three")
        await app.held.wait()
    app.released.set()
    async with hub(app, tmp_path / "hub.db") as again:
        there = await again.ended()
    assert there["output"] == 4
    assert app.calls.count("double") == 2
    assert app.calls.count("slow") == 2, "the step that was running is run again"


async def test_nothing_is_begun_while_the_engine_stops(app: App, tmp_path: Path) -> None:
    @app.orchestrator
    def waiting(context: Any) -> Steps:
        return (yield context.wait_for_external_event("go"))

    app.holding.add("waiting")
    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("waiting")
        await app.held.wait()
        await running.ask("POST", "instances/one/raiseEvent/go", 1)
        before = asyncio.all_tasks()
    assert not [task for task in asyncio.all_tasks() - before if "_pump" in repr(task)]


def _named(name: str, function: Any) -> Any:
    function.__name__ = name
    return function


async def test_a_disk_that_was_full_for_a_while_loses_no_work(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of work item fails to be written once: an episode, an activity's end, a timer, an entity's batch."""
    monkeypatch.setattr(trying, "RETRY_SECONDS", 0.0)
    failed: set[str] = set()

    def full_once(store: Store, name: str) -> None:
        write = getattr(store, name)

        def writing(*given: Any, **named: Any) -> Any:
            if name not in failed:
                failed.add(name)
                raise sqlite3.OperationalError("database or disk is full")
            return write(*given, **named)

        monkeypatch.setattr(store, name, writing)

    app.entity(_named("note", lambda context: context.set_state(context.get_input())))

    @app.orchestrator
    def everything(context: Any) -> Steps:
        doubled = yield context.call_activity("double", 2)
        yield context.create_timer(context.current_utc_datetime + timedelta(milliseconds=1))
        yield context.call_entity(df.EntityId("note", "one"), "set", doubled)
        return doubled

    async with hub(app, tmp_path / "hub.db") as running:
        for name in ("append", "end_activity", "fire_timers", "set_entity"):
            full_once(running.service._store, name)
        there = await running.run("everything")
        assert (there["runtimeStatus"], there["output"]) == ("Completed", 4)
        assert failed == {"append", "end_activity", "fire_timers", "set_entity"}
        assert app.calls.count("double") == 1
