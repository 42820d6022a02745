"""The protocol between host and SDK, table by table: what an orchestrator is given, what a history holds, what each
action of the SDK's comes to, what entities are given and answer, what the client's binding has, and what each of the
client's calls is answered."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import pytest
from azure.durable_functions.models.actions.ActionType import ActionType
from azure.durable_functions.models.DurableOrchestrationClient import DurableOrchestrationClient
from azure.durable_functions.models.history import HistoryEventType

from devhost.durable import engine
from devhost.durable.history import Event, Kind
from devhost.durable.replay import Action
from devhost.protocol import Invocation, Outcome
from tests.devhost.durable.sdk import App, Hub, hub

pytestmark = [
    pytest.mark.filterwarnings("ignore:azure.functions df_loads was called without expected_type"),
    pytest.mark.filterwarnings("ignore:Potential duplicate Task completion"),
]
type Steps = Generator[Any, Any, Any]
RETRY = df.RetryOptions(first_retry_interval_in_milliseconds=1, max_number_of_attempts=2)
NAP = timedelta(milliseconds=1)
JSON = {"Content-Type": "application/json"}


class Recording(App):
    """Keeps what each function was given and what it answered."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, list[Any]] = {}
        self.answered: dict[str, list[Any]] = {}

    async def invoke(self, invocation: Invocation) -> Outcome:
        name = invocation.function_id.partition(":")[2]
        self.given.setdefault(name, []).append(json.loads(invocation.inputs[0][1][1]))
        outcome = await super().invoke(invocation)
        if outcome.ok and outcome.value is not None:
            self.answered.setdefault(name, []).append(json.loads(outcome.value[1]))
        return outcome


@pytest.fixture
def app() -> Recording:
    app = Recording()

    @app.activity
    def double(number: Any) -> Any:
        return number * 2

    @app.activity
    def fail(_: Any) -> Any:
        raise ValueError("on purpose")

    @app.entity
    def counter(context: Any) -> None:
        if context.operation_name == "fail":
            raise ValueError("no such operation")
        total = context.get_state(lambda: 0) + (context.get_input() or 0)
        context.set_state(total)
        context.set_result(total)

    @app.orchestrator
    def child(context: Any) -> Steps:
        return (yield context.call_activity("double", context.get_input()))

    @app.orchestrator
    def weak(context: Any) -> Steps:
        return (yield context.call_activity("fail"))

    @app.orchestrator
    def everything(context: Any) -> Steps:
        """Each kind of history event at least once."""
        yield context.call_activity("double", 4)
        try:
            yield context.call_activity("fail")
        except Exception:
            yield context.call_sub_orchestrator("child", 5, instance_id="its-child")
        try:
            yield context.call_sub_orchestrator("weak")
        except Exception:
            yield context.create_timer(context.current_utc_datetime + NAP)
        yield context.wait_for_external_event("go")
        return (yield context.call_entity(df.EntityId("Counter", "k"), "add", 3))

    @app.orchestrator
    def wait(context: Any) -> Steps:
        return (yield context.wait_for_external_event("go"))

    return app


async def run_everything(running: Hub) -> list[Event]:
    """The history of `everything`, which was suspended and resumed on its way."""
    await running.start("everything", {"given": 1})
    await running.ask("POST", "instances/one/suspend", reason="hold")
    await running.until(lambda there: there["runtimeStatus"] == "Suspended")
    await running.ask("POST", "instances/one/resume", reason="on")
    await running.ask("POST", "instances/one/raiseEvent/go", {"well": "now"})
    assert (await running.ended())["output"] == 3
    return running.service._store.history("one")


# What an orchestrator is given.


async def test_what_an_orchestrator_is_given(app: Recording, tmp_path: Path) -> None:
    async with hub(app, tmp_path / "hub.db") as running:
        await run_everything(running)
    first, later, of_child = app.given["everything"][0], app.given["everything"][-1], app.given["child"][0]
    assert first.keys() == {
        "history",
        "input",
        "instanceId",
        "isReplaying",
        "parentInstanceId",
        "upperSchemaVersion",
        "upperSchemaVersionNew",
        "longRunningTimerIntervalDuration",
        "maximumShortTimerDuration",
        "defaultHttpAsyncRequestSleepTimeMillseconds",
    }
    assert (first["instanceId"], first["parentInstanceId"], first["isReplaying"]) == ("one", None, False)
    assert json.loads(first["input"]) == {"given": 1}
    assert later["isReplaying"] is True
    assert (of_child["instanceId"], of_child["parentInstanceId"]) == ("its-child", "one")


# Histories.

FIELDS: Mapping[int, set[str]] = {
    Kind.EXECUTION_STARTED: {"OrchestrationInstance", "ParentInstance", "Name", "Version", "Input"},
    Kind.EXECUTION_COMPLETED: {"OrchestrationStatus", "Result"},
    Kind.TASK_SCHEDULED: {"Name", "Version", "Input"},
    Kind.TASK_COMPLETED: {"TaskScheduledId", "Result"},
    Kind.TASK_FAILED: {"TaskScheduledId", "Reason", "Details"},
    Kind.SUB_CREATED: {"Name", "Version", "InstanceId", "Input"},
    Kind.SUB_COMPLETED: {"TaskScheduledId", "Result"},
    Kind.SUB_FAILED: {"TaskScheduledId", "Reason", "Details"},
    Kind.TIMER_CREATED: {"FireAt"},
    Kind.TIMER_FIRED: {"TimerId", "FireAt"},
    Kind.ORCHESTRATOR_STARTED: set(),
    Kind.ORCHESTRATOR_COMPLETED: set(),
    Kind.EVENT_SENT: {"InstanceId", "Name", "Input"},
    Kind.EVENT_RAISED: {"Name", "Input"},
    Kind.SUSPENDED: {"Reason"},
    Kind.RESUMED: {"Reason"},
}
SCHEDULING = {Kind.TASK_SCHEDULED, Kind.SUB_CREATED, Kind.TIMER_CREATED, Kind.EVENT_SENT}


async def test_every_kind_of_event_has_its_fields(app: Recording, tmp_path: Path) -> None:
    async with hub(app, tmp_path / "hub.db") as running:
        history = await run_everything(running)
    assert {entry["EventType"] for entry in history} == FIELDS.keys()
    for entry in history:
        assert entry.keys() >= {"EventType", "EventId", "IsPlayed", "Timestamp"} | FIELDS[entry["EventType"]], entry
        assert datetime.fromisoformat(entry["Timestamp"]).utcoffset() == timedelta(0)


async def test_an_episode_begins_and_ends_and_numbers_what_it_schedules(app: Recording, tmp_path: Path) -> None:
    async with hub(app, tmp_path / "hub.db") as running:
        history = await run_everything(running)
    kinds = [Kind(entry["EventType"]) for entry in history]
    assert kinds[:2] == [Kind.ORCHESTRATOR_STARTED, Kind.EXECUTION_STARTED]
    assert kinds[-1] == Kind.EXECUTION_COMPLETED
    episode: list[Kind] = []
    for kind in kinds[:-1]:
        episode.append(kind)
        if kind == Kind.ORCHESTRATOR_COMPLETED:
            assert episode[0] == Kind.ORCHESTRATOR_STARTED
            scheduling = [each in SCHEDULING for each in episode[1:-1]]
            assert scheduling == sorted(scheduling), "what is scheduled comes after what had happened"
            episode = []
    assert episode == []
    scheduled = [entry["EventId"] for entry in history if entry["EventType"] in SCHEDULING]
    assert scheduled == list(range(len(scheduled)))
    others = {entry["EventId"] for entry in history[:-1] if entry["EventType"] not in SCHEDULING}
    assert others == {-1}


async def test_the_sdk_knows_every_kind_by_the_same_number() -> None:
    of_sdk = {kind.value for kind in HistoryEventType}
    assert {int(kind) for kind in Kind} <= of_sdk
    # ExecutionFailed and HistoryState are never in a history that a host hands out.
    assert of_sdk - {int(kind) for kind in Kind} == {2, 18}


# Actions.


def activity(context: Any) -> Steps:
    return (yield context.call_activity("double", 4))


def activity_with_retry(context: Any) -> Steps:
    try:
        return (yield context.call_activity_with_retry("fail", RETRY))
    except Exception as exc:
        return str(exc).partition("\n")[0].strip()


def sub_orchestration(context: Any) -> Steps:
    return (yield context.call_sub_orchestrator("child", 4))


def sub_orchestration_with_retry(context: Any) -> Steps:
    return (yield context.call_sub_orchestrator_with_retry("child", RETRY, 4))


def continue_as_new(context: Any) -> Steps:
    left = context.get_input()
    yield context.call_activity("double", 1)
    if left:
        context.continue_as_new(left - 1)
    return left


def timer(context: Any) -> Steps:
    yield context.create_timer(context.current_utc_datetime + NAP)
    return "fired"


def wait_for_event(context: Any) -> Steps:
    return (yield context.wait_for_external_event("go"))


def call_entity(context: Any) -> Steps:
    return (yield context.call_entity(df.EntityId("counter", "k"), "add", 4))


def signal_entity(context: Any) -> Steps:
    context.signal_entity(df.EntityId("counter", "k"), "add", 4)
    yield context.call_activity("double", 1)
    return "signalled"


def call_http(context: Any) -> Steps:
    try:
        yield context.call_http("GET", "http://127.0.0.1:9/")
    except Exception as exc:
        return str(exc).partition(":9")[0]


def when_any(context: Any) -> Steps:
    winner = yield context.task_any([context.call_activity("double", 4), context.wait_for_external_event("never")])
    return winner.result


def when_all(context: Any) -> Steps:
    return (yield context.task_all([context.call_activity("double", n) for n in range(3)]))


ACTIONS: Mapping[ActionType, tuple[Any, Any, Any]] = {
    ActionType.CALL_ACTIVITY: (activity, None, 8),
    ActionType.CALL_ACTIVITY_WITH_RETRY: (
        activity_with_retry,
        None,
        "Activity function 'fail' failed: ValueError: on purpose",
    ),
    ActionType.CALL_SUB_ORCHESTRATOR: (sub_orchestration, None, 8),
    ActionType.CALL_SUB_ORCHESTRATOR_WITH_RETRY: (sub_orchestration_with_retry, None, 8),
    ActionType.CONTINUE_AS_NEW: (continue_as_new, 2, 0),
    ActionType.CREATE_TIMER: (timer, None, "fired"),
    ActionType.WAIT_FOR_EXTERNAL_EVENT: (wait_for_event, None, {"well": "now"}),
    ActionType.CALL_ENTITY: (call_entity, None, 4),
    ActionType.CALL_HTTP: (call_http, None, "Cannot connect to host 127.0.0.1"),
    ActionType.SIGNAL_ENTITY: (signal_entity, None, "signalled"),
    ActionType.WHEN_ANY: (when_any, None, 8),
    ActionType.WHEN_ALL: (when_all, None, [0, 2, 4]),
}


@pytest.mark.parametrize("action", ActionType, ids=lambda action: action.name)
async def test_every_action_of_the_sdk(app: Recording, tmp_path: Path, action: ActionType) -> None:
    program, given, output = ACTIONS[action]
    app.orchestrator(program)
    async with hub(app, tmp_path / "hub.db") as running:
        await running.start(program.__name__, given)
        if action == ActionType.WAIT_FOR_EXTERNAL_EVENT:
            await running.ask("POST", "instances/one/raiseEvent/go", {"well": "now"})
        there = await running.ended()
    assert (there["runtimeStatus"], there["output"]) == ("Completed", output)
    assert action.value in {kind for answer in app.answered[program.__name__] for kind in kinds(answer["actions"][0])}


def kinds(actions: list[Any]) -> Iterator[int]:
    for action in actions:
        yield action["actionType"]
        yield from kinds(action.get("compoundActions", []))


def test_the_host_knows_every_action_by_the_same_number() -> None:
    assert {action.value for action in ActionType} == {int(action) for action in Action} - {
        Action.SCHEDULED_SIGNAL_ENTITY  # of the SDKs for other languages
    }


async def test_a_long_timer_is_several(app: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LONGEST_TIMER", "0.00:00:00.2000000")
    monkeypatch.setattr(engine, "TIMER_INTERVAL", "0.00:00:00.1500000")

    @app.orchestrator
    def patient(context: Any) -> Steps:
        began = context.current_utc_datetime
        yield context.create_timer(began + timedelta(milliseconds=600))
        return (context.current_utc_datetime - began).total_seconds()

    async with hub(app, tmp_path / "hub.db") as running:
        there = await running.run("patient")
        fired = [e for e in running.service._store.history("one") if e["EventType"] == Kind.TIMER_FIRED]
    assert there["output"] >= 0.6
    assert 2 <= len(fired) <= 5


async def test_tasks_that_are_open_keep_an_instance_running(app: Recording, tmp_path: Path) -> None:
    @app.orchestrator
    def leaving(context: Any) -> Steps:
        late = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
        winner = yield context.task_any([context.call_activity("double", 4), late])
        return winner.result

    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("leaving")
        await running.until(lambda _: app.answered.get("leaving", [{}])[-1].get("isDone"))
        assert (await running.status())["runtimeStatus"] == "Running"


# Entities.


async def test_what_an_entity_is_given_and_answers(app: Recording, tmp_path: Path) -> None:
    @app.orchestrator
    def use(context: Any) -> Steps:
        entity = df.EntityId("Counter", "Key")
        total = yield context.call_entity(entity, "add", 3)
        try:
            yield context.call_entity(entity, "fail")
        except Exception as exc:
            return [total, str(exc)]

    async with hub(app, tmp_path / "hub.db") as running:
        there = await running.run("use")
        history = running.service._store.history("one")
    first, second = app.given["counter"]
    assert (first["self"], first["exists"], first["state"]) == ({"name": "counter", "key": "Key"}, False, None)
    assert first["batch"] == [{"name": "add", "input": '"3"', "isSignal": False}]
    assert (second["exists"], json.loads(second["state"])) == (True, 3)
    assert there["output"][0] == 3
    assert "no such operation" in there["output"][1]
    sent = next(entry for entry in history if entry["EventType"] == Kind.EVENT_SENT)
    request = json.loads(sent["Input"])
    assert sent["InstanceId"] == "@counter@Key"
    assert request.keys() >= {"op", "id", "parent", "parentExecution", "input"}
    answer = next(entry for entry in history if entry["EventType"] == Kind.EVENT_RAISED)
    assert (answer["Name"], json.loads(answer["Input"])) == (request["id"], {"result": "3"})


# The client's binding.


async def test_what_the_client_s_binding_has(app: Recording, tmp_path: Path) -> None:
    async with hub(app, tmp_path / "hub.db") as running:
        binding = json.loads(running.service.client_binding()[1])
    assert binding.keys() >= {
        "taskHubName",
        "creationUrls",
        "managementUrls",
        "baseUrl",
        "requiredQueryStringParameters",
        "rpcBaseUrl",
    }
    assert binding["rpcBaseUrl"].endswith("/")
    assert binding["creationUrls"].keys() == {"createNewInstancePostUri", "createAndWaitOnNewInstancePostUri"}
    links = binding["managementUrls"]
    assert links.pop("id") == "INSTANCEID"
    assert links.keys() == {
        "statusQueryGetUri",
        "sendEventPostUri",
        "terminatePostUri",
        "rewindPostUri",
        "purgeHistoryDeleteUri",
        "restartPostUri",
        "suspendPostUri",
        "resumePostUri",
    }
    assert all("INSTANCEID" in url for url in links.values())


async def test_what_is_no_json_is_refused_as_an_event_and_is_text_for_an_entity(app: Recording, tmp_path: Path) -> None:
    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("wait")
        for body, headers in ((b"word", {"Content-Type": "text/plain"}), (b"", JSON), (b"{", JSON)):
            status, _, answer = await running.service.handle("POST", "instances/one/raiseEvent/go", {}, headers, body)
            assert status == 400, answer
        text = {"Content-Type": "text/plain"}
        status, *_ = await running.service.handle("POST", "entities/counter/k", {"op": "add"}, text, b"word")
        assert status == 202
        await running.until(lambda _: bool(app.given.get("counter")))
    assert json.loads(app.given["counter"][0]["batch"][0]["input"]) == "word"


# The client's calls. Each row: what there is, the call, and the status and document of the answer.

type Row = tuple[str, str, str, Mapping[str, str], int]
CALLS: list[Row] = [
    ("nothing", "POST", "orchestrators/wait/one", {}, 202),
    ("nothing", "POST", "orchestrators/wait", {"version": "2.0"}, 202),
    ("running", "POST", "orchestrators/wait/one", {}, 409),
    ("ended", "POST", "orchestrators/wait/one", {}, 202),
    ("nothing", "POST", "orchestrators/unknown", {}, 400),
    ("nothing", "GET", "instances/one", {}, 404),
    ("running", "GET", "instances/one", {}, 202),
    ("ended", "GET", "instances/one", {}, 200),
    ("failed", "GET", "instances/one", {}, 200),
    ("failed", "GET", "instances/one", {"returnInternalServerErrorOnFailure": "true"}, 500),
    ("nothing", "GET", "instances", {}, 200),
    ("running", "GET", "instances", {"runtimeStatus": "Running,Pending", "instanceIdPrefix": "o"}, 200),
    ("nothing", "DELETE", "instances/one", {}, 404),
    ("ended", "DELETE", "instances/one", {}, 200),
    ("ended", "DELETE", "instances", {"createdTimeFrom": "2020-01-01T00:00:00Z"}, 200),
    ("nothing", "DELETE", "instances", {"createdTimeFrom": "2020-01-01T00:00:00Z"}, 404),
    ("ended", "DELETE", "instances", {}, 400),
    *[
        (state, "POST", f"instances/one/{operation}", {"reason": "why"}, status)
        for operation in ("terminate", "suspend", "resume")
        for state, status in (("running", 202), ("ended", 410), ("nothing", 404))
    ],
    ("failed", "POST", "instances/one/rewind", {"reason": "mended"}, 202),
    ("ended", "POST", "instances/one/rewind", {"reason": "mended"}, 410),
    ("nothing", "POST", "instances/one/rewind", {"reason": "mended"}, 404),
    ("ended", "POST", "instances/one/restart", {"restartWithNewInstanceId": "true"}, 202),
    ("ended", "POST", "instances/one/restart", {"restartWithNewInstanceId": "false"}, 202),
    ("nothing", "POST", "instances/one/restart", {}, 400),
    ("running", "POST", "instances/one/raiseEvent/go", {}, 202),
    ("ended", "POST", "instances/one/raiseEvent/go", {}, 410),
    ("nothing", "POST", "instances/one/raiseEvent/go", {}, 404),
    ("nothing", "POST", "entities/counter/k", {"op": "add"}, 202),
    ("nothing", "GET", "entities/counter/k", {}, 404),
    ("entity", "GET", "entities/counter/k", {}, 200),
    ("nothing", "PUT", "instances/one", {}, 404),
    ("nothing", "GET", "nothing/of/the/kind", {}, 404),
]


@pytest.mark.parametrize("row", CALLS, ids=lambda row: f"{row[0]}-{row[1]}-{row[2]}-{row[4]}")
async def test_the_status_of_every_call(app: Recording, tmp_path: Path, row: Row) -> None:
    there, method, path, query, status = row
    async with hub(app, tmp_path / "hub.db") as running:
        if there in {"running", "ended"}:
            await running.start("wait")
            await running.until(lambda one: one["runtimeStatus"] == "Running")
        if there == "ended":
            await running.ask("POST", "instances/one/raiseEvent/go", 1)
            await running.ended()
        if there == "failed":
            await running.run("weak")
        if there == "entity":
            await running.client().signal_entity(df.EntityId("counter", "k"), "add", 3)
            await running.start("child", 1, "other")
            await running.ended("other")
            await running.eventually_entity("counter", "k")
        answered, _ = await running.ask(method, path, "5", **query)
    assert answered == status


async def test_the_client_of_the_sdk_makes_only_calls_of_the_table(app: Recording, tmp_path: Path) -> None:
    """Every public coroutine of the client, against a hub that has what it needs."""
    async with hub(app, tmp_path / "hub.db") as running:
        client = running.client()
        one = await client.start_new("wait", "one", {"a": 1})
        await running.until(lambda there: there["runtimeStatus"] == "Running")
        # JSON in JSON: so the client sends it.
        assert json.loads((await client.get_status(one, show_history=True, show_input=True)).input_) == {"a": 1}
        await client.suspend(one, "hold")
        await client.resume(one, "on")
        await client.raise_event(one, "go", {"b": 2})
        await running.ended()
        # The extension answers with all the links, and this SDK passes on what it is answered.
        again = dict(await client.restart(one, restart_with_new_instance_id=True))["id"]
        await client.terminate(again, "enough")
        assert [there.instance_id for there in await client.get_status_all()] == ["one", again]
        recent = await client.get_status_by(created_time_from=datetime(2020, 1, 1))  # noqa: DTZ001 (the SDK wants it so)
        assert len(recent) == 2
        failed = await client.start_new("weak", "failed")
        await running.ended("failed")
        await client.rewind(failed, "mended")
        await client.signal_entity(df.EntityId("counter", "k"), "add", 3)
        await running.eventually_entity("counter", "k")
        state = await client.read_entity_state(df.EntityId("counter", "k"))
        assert (state.entity_exists, state.entity_state) == (True, 3)
        await running.ended(again)
        assert (await client.purge_instance_history(one)).instances_deleted == 1
        await running.ended("failed")
        purged = await client.purge_instance_history_by(created_time_from=datetime(2020, 1, 1))  # noqa: DTZ001
        assert purged.instances_deleted == 2
        waited = await client.wait_for_completion_or_create_check_status_response(
            _Request(), await client.start_new("child", "last", 4), 5000, 10
        )
        assert (waited.status_code, json.loads(waited.get_body())) == (200, 8)
    used = {
        name
        for name in vars(DurableOrchestrationClient)
        if not name.startswith("_") and name not in {"create_check_status_response", "create_http_management_payload"}
    }
    assert used - {"get_client_response_links", "task_hub_name"} == {
        "get_status",
        "get_status_all",
        "get_status_by",
        "purge_instance_history",
        "purge_instance_history_by",
        "raise_event",
        "read_entity_state",
        "restart",
        "resume",
        "rewind",
        "signal_entity",
        "start_new",
        "suspend",
        "terminate",
        "wait_for_completion_or_create_check_status_response",
    }


class _Request:
    """What the client wants to know of the request that it answers."""

    url = "http://localhost/api/start"
