"""What `/api/pipelines` tells, with storage in memory."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import azure.functions as func
import pytest

from activities.contracts import STEPS
from activities.uploads import claim
from adapters.blobs import BlobNotFound
from tests.activities.world import PIPELINE, SPEC, World, rows
from triggers import management


def test_a_pipeline_before_its_first_run(world: World) -> None:
    stored = management._stored(PIPELINE)
    assert stored["champion"] is None
    assert stored["last_run"] is None
    assert set(stored["partitions"].values()) == {0}


def test_a_pipeline_after_its_first_run(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.upload("b.csv", b"")
    record = world.run()
    stored = management._stored(PIPELINE)
    assert (stored["champion"]["version"], stored["champion"]["run"]) == (1, record["run"])
    assert (stored["partitions"]["included"], stored["partitions"]["quarantined"]) == (1, 1)
    assert stored["last_run"]["sentence"] == record["sentence"]
    assert management._record(PIPELINE, record["run"]) == record


def test_a_champion_whose_files_are_broken_is_shown_with_what_to_do(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    world.blobs.put(f"models/{PIPELINE}/versions/1/model.json", b"[]")
    champion = management._stored(PIPELINE)["champion"]
    assert (champion["version"], champion["run"], champion["metrics"]) == (1, "run-1", {})
    assert "roll back to another version" in champion["problem"]


def test_an_unknown_run_is_named(world: World) -> None:
    with pytest.raises(BlobNotFound, match="there is no finished run 'x' of shops"):
        management._record(PIPELINE, "x")


@pytest.mark.parametrize("run", ["../other/r", "a/b", "x" * 3000])
def test_a_run_of_another_place_is_none(world: World, run: str) -> None:
    world.blobs.put("runs/other/r.json", b"{}")
    with pytest.raises(BlobNotFound, match="there is no finished run"):
        management._record(PIPELINE, run)


def test_runs_come_in_pages_the_latest_first(world: World) -> None:
    names = [f"2026010{day}T000000-{day}" for day in range(1, 8)]
    for name in names:
        summary = {"outcome": "kept", "finished": "", "sentence": ""}
        world.blobs.put(f"runs/{PIPELINE}/{name}.json", json.dumps(summary).encode())
    found: list[str] = []
    params = {"limit": "3"}
    while True:
        _, answer = asked(LIST, request("GET", "x", **params))
        assert len(answer["runs"]) <= 3
        found = [*(run["id"] for run in answer["runs"]), *found]
        if answer["before"] is None:
            break
        params["before"] = answer["before"]
    assert found == names
    assert [run["id"] for run in asked(LIST, request("GET", "x"))[1]["runs"]] == names


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("limit", ["0", "-1", "many", "1001", "", "9" * 400])
def test_a_page_of_no_size_is_refused(limit: str) -> None:
    status, answer = asked(LIST, request("GET", "x", limit=limit))
    assert (status, answer["error"]["code"]) == (400, "BadRequest")


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ({"runtime": "Completed", "output": {"outcome": "promoted", "sentence": "Better."}}, None),
        ({"runtime": "Completed", "output": None}, None),
        ({"runtime": "Terminated", "output": "by hand"}, None),
        ({"runtime": "Completed", "output": {"outcome": "failed", "sentence": "shops.yaml:3: no"}}, "shops.yaml:3: no"),
        (
            {"runtime": "Completed", "output": {"outcome": "failed", "sentence": "shops.yaml:3: no", "mistake": True}},
            None,
        ),
        ({"runtime": "Failed", "output": "boom\nTraceback"}, "boom Traceback"),
    ],
)
def test_the_problem_of_the_latest_attempt(status: dict[str, Any], problem: str | None) -> None:
    assert management._problem(status) == problem


def request(method: str, path: str, *, run: str = "", **params: str) -> func.HttpRequest:
    return func.HttpRequest(
        method, f"/api/{path}", params=params, route_params={"pipeline": PIPELINE, "run": run}, body=b""
    )


class Platform:
    """The durable client of one instance: what it is told changes what it says."""

    def __init__(self, runtime: str | None = None, output: Any = None, run: str = "r-1") -> None:
        self.runtime, self.output, self.run = runtime, output, run
        self.told: list[tuple[Any, ...]] = []
        self.ends_when_told = False

    async def start_new(self, name: str, instance: str, payload: Any) -> str:
        if self.runtime == "Running":
            raise RuntimeError("An Orchestration instance already exists.")
        self.told.append(("start", payload["force"]))
        self.runtime = "Running"
        return instance

    async def raise_event(self, instance: str, name: str, data: Any) -> None:
        if self.ends_when_told:
            self.runtime, self.ends_when_told = "Completed", False
            raise RuntimeError("410: the instance has ended")
        self.told.append(("event", name))

    async def terminate(self, instance: str, reason: str) -> None:
        self.told.append(("terminate", reason))
        self.runtime = "Terminated"

    async def get_status(self, instance: str) -> Any:
        custom: dict[str, Any] = {"run": self.run, "started": "2026-01-01T00:00:00+00:00", "step": "train"}
        custom |= dict.fromkeys(("index", "steps", "done", "total", "problem"), "")
        custom |= {"since": "2026-01-01T00:01:00+00:00", "seconds": [1.0, 0.5, 2.0, 0.5, 2.0], "busy": [0.5] * 6}
        custom |= {"executions": 7}
        runtime = None if self.runtime is None else SimpleNamespace(name=self.runtime)
        return SimpleNamespace(runtime_status=runtime, custom_status=custom, output=self.output)


async def called(function: Any, req: func.HttpRequest, platform: Platform) -> tuple[int, Any]:
    response = await function(req, platform)
    return response.status_code, json.loads(response.get_body())


def asked(function: Any, req: func.HttpRequest) -> tuple[int, Any]:
    response = function(req)
    return response.status_code, json.loads(response.get_body())


RETRAIN = management.retrain_now._function._func.__wrapped__
CANCEL = management.cancel_run._function._func.__wrapped__
LIST = management.list_runs._function._func
SHOW = management.show_pipeline._function._func.__wrapped__


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(("value", "force"), [("true", True), ("1", True), ("", True), ("no", False), ("FALSE", False)])
async def test_force_says_what_it_says(value: str, *, force: bool) -> None:
    platform = Platform()
    status, answer = await called(RETRAIN, request("POST", "x", force=value), platform)
    assert (status, answer["started"], answer["force"]) == (202, True, force)
    assert platform.told == [("start", force)]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("value", ["maybe", "2", "tru"])
async def test_a_force_that_means_nothing_is_refused(value: str) -> None:
    platform = Platform()
    status, answer = await called(RETRAIN, request("POST", "x", force=value), platform)
    assert status == 400
    assert answer["error"]["message"] == f"force={value} means nothing; write force=true or force=false"
    assert platform.told == []


@pytest.mark.usefixtures("world")
async def test_a_forced_request_is_told_to_the_run_under_way() -> None:
    platform = Platform("Running")
    status, answer = await called(RETRAIN, request("POST", "x", force="true"), platform)
    assert (status, answer["started"], answer["force"]) == (202, False, True)
    assert platform.told == [("event", "force")]


@pytest.mark.usefixtures("world")
async def test_a_run_that_ends_while_it_is_told_is_followed_by_a_forced_one() -> None:
    platform = Platform("Running")
    platform.ends_when_told = True
    status, answer = await called(RETRAIN, request("POST", "x", force="true"), platform)
    assert (status, answer["started"]) == (202, True)
    assert platform.told == [("start", True)]


async def test_a_cancelled_run_gives_its_claims_back_and_says_so(world: World) -> None:
    path = world.upload("a.csv", rows(0))
    run = world.start()
    claim(run, world.to)
    platform = Platform("Running", run=run.run)
    status, answer = await called(CANCEL, request("POST", "x", run=run.run), platform)
    assert (status, answer["outcome"]) == (200, "cancelled")
    assert [kind for kind, _ in platform.told] == ["terminate"]
    assert world.ledger.state(path) == "pending"
    record = management._record(PIPELINE, run.run)
    assert (record["outcome"], record["sentence"]) == ("cancelled", "Cancelled on request.")
    assert [step["name"] for step in record["steps"]] == list(STEPS[:6])
    assert [step["seconds"] for step in record["steps"][:5]] == [1.0, 0.5, 2.0, 0.5, 2.0]
    assert record["steps"][5]["seconds"] > 0
    assert record["cost"]["executions"] == 7


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(("runtime", "run"), [("Running", "another"), ("Completed", "r-1"), (None, "r-1")])
async def test_only_the_run_under_way_can_be_cancelled(runtime: str | None, run: str) -> None:
    platform = Platform(runtime, run=run)
    status, answer = await called(CANCEL, request("POST", "x", run="r-1"), platform)
    assert status == 409
    assert "not under way" in answer["error"]["message"]
    assert platform.told == []


async def test_the_problem_is_that_of_the_file_as_it_is_now(world: World) -> None:
    platform = Platform("Completed", {"outcome": "failed", "sentence": "shops.yaml:9: old", "mistake": True})
    assert (await called(SHOW, request("GET", "x"), platform))[1]["problem"] is None
    world.write_spec(SPEC.replace("rounds: 40", "rounds: forty"))
    assert "rounds" in (await called(SHOW, request("GET", "x"), platform))[1]["problem"]
    platform.runtime = "Running"
    assert "rounds" in (await called(SHOW, request("GET", "x"), platform))[1]["problem"]
