"""Rollback, approvals, the webhook and the reconciler as requests come in, with registry and storage in memory."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import azure.functions as func
import pytest

from activities.reconcile import REFUSED_TAG
from adapters.background import Background
from adapters.events import Notice
from adapters.ledger import LedgerError
from adapters.outbox import FOLDER, Outbox
from adapters.registry import RegistryAway, RegistryError
from tests.activities.test_waiting import APPROVAL
from tests.activities.world import PIPELINE, SPEC, World, rows
from tests.adapters.test_mlflow_webhook import BODY, SECRET, signed
from tests.fakes.registry import Listener
from triggers import registry, services

ALWAYS = SPEC.replace("minimum_rows: 50,", "minimum_rows: 50, improvement: -1,")


def request(body: Any = None, headers: dict[str, str] | None = None, **route: str) -> func.HttpRequest:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    parameters = {"pipeline": PIPELINE, **route}
    return func.HttpRequest(method="POST", url="/", headers=headers or {}, route_params=parameters, body=data)


async def answer(function: Any, given: func.HttpRequest) -> tuple[int, Any]:
    """What the function that is bound to the route answers."""
    response = await function._function._func(given)
    return response.status_code, json.loads(response.get_body())


@pytest.fixture
def served(world: World) -> World:
    """Two versions were promoted."""
    world.write_spec(ALWAYS)
    for number in range(2):
        world.upload(f"{number}.csv", rows(10 * number))
        assert world.run()["outcome"] == "promoted"
    return world


@pytest.fixture
def hooked(served: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(services, "settings", lambda: SimpleNamespace(webhook_secret=SECRET))
    return served


def live(world: World) -> int:
    return int(world.read(f"models/{PIPELINE}/live.json")["champion"]["version"])


async def test_a_rollback(served: World) -> None:
    status, body = await answer(registry.roll_back, request({"who": "ann", "why": "odd scores"}))
    assert (status, body) == (200, {"pipeline": PIPELINE, "version": 1, "generation": 3})
    assert served.mlflow.alias["champion"] == 1
    status, body = await answer(registry.roll_back, request({"version": 1}))
    assert (status, body["error"]["code"]) == (409, "NothingToRollBack")


async def test_a_rollback_with_the_registry_away(served: World) -> None:
    served.mlflow.away = True
    assert (await answer(registry.roll_back, request({"version": 1})))[0] == 200
    assert (live(served), served.mlflow.alias["champion"]) == (1, 2)
    served.mlflow.away = False
    registry.see_to(PIPELINE)
    assert served.mlflow.alias["champion"] == 1


async def test_a_rollback_does_not_wait_for_a_registry_that_hangs(
    served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    aliases = served.mlflow.aliases

    def hanging(pipeline: str) -> Any:
        assert goes_on.wait(60)
        return aliases(pipeline)

    monkeypatch.setattr(registry, "IN_LINE_SECONDS", 0.01)
    monkeypatch.setattr(served.mlflow, "aliases", hanging)
    assert (await answer(registry.roll_back, request({"version": 1})))[0] == 200
    assert (live(served), served.mlflow.alias["champion"]) == (1, 2)
    goes_on.set()
    await asyncio.wait({registry._following[PIPELINE]}, timeout=60)
    assert served.mlflow.alias["champion"] == 1


class Hanging(Listener):
    """A topic that takes connections and says nothing, until it `goes_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on, self.went_back = threading.Event(), threading.Event()

    def publish(self, notice: Notice) -> None:
        self.goes_on.wait()
        super().publish(notice)
        if notice.type == "Ratchet.ModelRolledBack":
            self.went_back.set()


async def test_a_topic_that_hangs_holds_up_neither_runs_nor_rollbacks_nor_reconciler(world: World) -> None:
    topic = Hanging()
    world.to = replace(world.to, events=Outbox(world.blobs, topic, Background("events")))
    world.write_spec(ALWAYS)
    for number in range(2):
        world.upload(f"{number}.csv", rows(10 * number))
        assert world.run()["outcome"] == "promoted"
    assert (await answer(registry.roll_back, request({"version": 1})))[0] == 200
    registry.see_to(PIPELINE)
    assert (live(world), world.mlflow.alias["champion"], topic.heard) == (1, 1, [])
    topic.goes_on.set()
    assert await asyncio.to_thread(topic.went_back.wait, 60)
    assert Counter(notice.type for notice in topic.heard) == {
        "Ratchet.RunStarted": 2,
        "Ratchet.RunFinished": 2,
        "Ratchet.ModelRegistered": 2,
        "Ratchet.ModelPromoted": 2,
        "Ratchet.ModelRolledBack": 1,
    }


@pytest.mark.parametrize(
    "body", [b"{", b"[]", {"version": "1"}, {"version": True}, {"version": 1.0}, {"who": 5}, {"why": "x" * 501}]
)
async def test_a_rollback_that_cannot_be_understood(served: World, body: Any) -> None:
    status, answered = await answer(registry.roll_back, request(body))
    assert (status, answered["error"]["code"]) == (400, "BadRequest")
    assert live(served) == 2


async def test_an_unknown_pipeline(served: World) -> None:
    assert (await answer(registry.roll_back, request({}, pipeline="nobody")))[0] == 404


async def test_an_approval(world: World) -> None:
    world.write_spec(APPROVAL)
    world.upload("a.csv", rows(0))
    run = world.run()["run"]
    for spoiled in ({"decision": "maybe", "who": "ann"}, {"decision": "approve"}, {}):
        assert (await answer(registry.answer_approval, request(spoiled, id=run)))[0] == 400
    decision = {"decision": "approve", "who": "ann", "why": "looks right"}
    assert (await answer(registry.answer_approval, request(decision, id="other")))[0] == 409
    status, body = await answer(registry.answer_approval, request(decision, id=run))
    assert (status, body["outcome"], body["who"]) == (200, "promoted", "ann")
    assert (live(world), world.mlflow.alias["champion"]) == (1, 1)
    assert (await answer(registry.answer_approval, request({**decision, "decision": "reject"}, id=run)))[0] == 409


async def test_an_approval_where_nothing_waits(served: World) -> None:
    status, body = await answer(registry.answer_approval, request({"decision": "reject", "who": "bob"}, id="x"))
    assert (status, body["error"]["code"]) == (404, "NothingWaits")


async def test_a_webhook_moves_the_champion_once(hooked: World) -> None:
    hooked.mlflow.alias["champion"] = 1
    headers = signed(at=str(int(time.time())))
    status, body = await answer(registry.on_webhook, request(BODY, headers))
    assert (status, body["outcome"], body["version"]) == (200, "pointer moved", 1)
    status, body = await answer(registry.on_webhook, request(BODY, headers))
    assert (status, body["error"]["code"]) == (403, "WebhookRefused")
    assert hooked.read(f"models/{PIPELINE}/live.json")["generation"] == 3


async def test_a_delivery_that_came_to_nothing_is_taken_when_it_is_sent_again(hooked: World) -> None:
    """MLflow sends the same delivery again, with its id, after an answer that it takes for an outage."""
    hooked.mlflow.alias["champion"] = 1
    hooked.mlflow.away, headers = True, signed(at=str(int(time.time())))
    assert (await answer(registry.on_webhook, request(BODY, headers)))[0] == 503
    hooked.mlflow.away = False
    status, body = await answer(registry.on_webhook, request(BODY, headers))
    assert (status, body["outcome"], live(hooked)) == (200, "pointer moved", 1)
    assert (await answer(registry.on_webhook, request(BODY, headers)))[0] == 403


async def test_a_webhook_that_comes_too_late_looks_again(hooked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hooked.mlflow.alias["champion"] = 1
    put, outrun = hooked.blobs.put, ["once"]

    def overtaken(path: str, *given: Any, **named: Any) -> str:
        if path.endswith("live.json") and outrun:
            outrun.clear()
            put(path, hooked.blobs.get(path).data)
        return put(path, *given, **named)

    monkeypatch.setattr(hooked.blobs, "put", overtaken)
    _, body = await answer(registry.on_webhook, request(BODY, signed(at=str(int(time.time())))))
    assert (body["outcome"], live(hooked)) == ("pointer moved", 1)


async def test_a_wish_that_does_not_serve_is_answered_and_put_back(hooked: World) -> None:
    hooked.blobs.put(f"models/{PIPELINE}/versions/1/model.onnx", b"another")
    hooked.mlflow.alias["champion"] = 1
    _, body = await answer(registry.on_webhook, request(BODY, signed(at=str(int(time.time())))))
    assert (body["outcome"], body["version"]) == ("refused", 2)
    assert "not those that were exported" in hooked.mlflow.tags[1, REFUSED_TAG]


@pytest.mark.parametrize("change", [{"alias": "challenger"}, {"name": "nobody"}])
async def test_other_aliases_and_other_models_are_none_of_our_business(hooked: World, change: dict[str, str]) -> None:
    document = json.loads(BODY)
    document["data"] |= change
    body = json.dumps(document).encode()
    assert await answer(registry.on_webhook, request(body, signed(body, at=str(int(time.time()))))) == (
        200,
        {"outcome": "ignored"},
    )


async def test_a_flood_of_forged_deliveries_reaches_no_storage(hooked: World) -> None:
    before, hooked.blobs.away = hooked.blobs.paths(), True
    for number in range(200):
        forged = signed(delivery=f"d{number}", secret="guess", at=str(int(time.time())))
        assert (await answer(registry.on_webhook, request(BODY, forged)))[0] == 403
    hooked.blobs.away = False
    assert hooked.blobs.paths() == before


async def test_without_a_secret_no_webhook_is_taken(served: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "settings", lambda: SimpleNamespace(webhook_secret=None))
    assert (await answer(registry.on_webhook, request(BODY, signed(at=str(int(time.time()))))))[0] == 403


def run_reconciler() -> None:
    registry.reconcile_all._function._func(None)


def test_the_reconciler_finds_what_a_lost_webhook_would_have_told(served: World) -> None:
    served.mlflow.alias["champion"] = 1
    run_reconciler()
    assert live(served) == 1


def test_the_reconciler_sends_what_waits_and_minds_neither_registry_nor_topic_that_are_away(served: World) -> None:
    served.events.away = served.mlflow.away = True
    served.upload("2.csv", rows(20))
    served.to.tell(served.events.heard[0])
    run_reconciler()
    assert len(served.blobs.paths(FOLDER)) == 1
    served.events.away = served.mlflow.away = False
    run_reconciler()
    assert served.blobs.paths(FOLDER) == []


def test_a_registry_that_hangs_is_waited_for_once_and_after_what_needs_it_not(
    served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    course: list[str] = []

    def hangs(pipeline: str, to: Any) -> Any:
        course.append(f"reconcile {pipeline}")
        if pipeline != "a":
            raise RegistryAway("it does not answer")
        raise RegistryError("what it says makes no sense")

    monkeypatch.setattr(services, "specs", lambda: SimpleNamespace(names=lambda: ("a", "b", "c")))
    monkeypatch.setattr(registry, "tend", lambda pipeline, _: course.append(f"tend {pipeline}"))
    monkeypatch.setattr(served.outbox, "flush", lambda: course.append("mail"))
    monkeypatch.setattr(registry, "reconcile", hangs)
    run_reconciler()
    assert course == ["tend a", "tend b", "tend c", "mail", "reconcile a", "reconcile b"]


def test_what_else_goes_wrong_for_one_pipeline_is_told_after_all_were_seen_to(
    served: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def see_to(pipeline: str) -> None:
        seen.append(pipeline)
        if pipeline == "a":
            raise LedgerError("", "the table cannot be reached")

    monkeypatch.setattr(services, "specs", lambda: SimpleNamespace(names=lambda: ("a", "b")))
    monkeypatch.setattr(registry, "see_to", see_to)
    with pytest.raises(ExceptionGroup, match="could not see to everything"):
        run_reconciler()
    assert seen == ["a", "b"]
