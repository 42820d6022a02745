"""Challengers that wait for approval or for their hours."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from activities.decisions import DECISION, WHY
from activities.live import read_champion
from activities.reconcile import reconcile
from activities.waiting import AlreadyDecided, NothingWaits, Waiting, decide, read_waiting, tend
from tests.activities.world import PIPELINE, SPEC, World, rows

APPROVAL = (
    SPEC.replace("minimum_rows: 50,", "minimum_rows: 50, improvement: -1,")
    + "promotion: {mode: approval, timeout_hours: 2}\n"
)


def version(world: World) -> int | None:
    champion = read_champion(world.blobs, PIPELINE)
    return champion.pointer.champion.version if champion else None


def waiting(world: World) -> Waiting:
    found = read_waiting(PIPELINE, world.to)
    assert found is not None
    return found[0]


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A challenger waits for approval."""
    world = World(tmp_path, APPROVAL)
    world.upload("a.csv", rows(0))
    record = world.run()
    assert (record["outcome"], version(world)) == ("waiting", None)
    assert "Version 1 waits for approval, until " in record["sentence"]
    return world


def asked(world: World) -> list[dict[str, object]]:
    return [dict(notice.data) for notice in world.events.heard if notice.type == "Ratchet.ApprovalNeeded"]


def test_who_has_to_decide_is_told_how(world: World) -> None:
    (request,) = asked(world)
    assert request["answer"] == f"/api/pipelines/{PIPELINE}/approvals/run-1"
    assert request["report"] == f"/api/pipelines/{PIPELINE}/runs/run-1"
    assert (request["version"], request["supersedes"], request["on_timeout"]) == (1, None, "reject")


def test_the_links_are_whole_where_the_app_knows_its_host(tmp_path: Path) -> None:
    world = World(tmp_path, APPROVAL)
    world.to = replace(world.to, url="https://app.azurewebsites.net")
    world.upload("a.csv", rows(0))
    world.run()
    (request,) = asked(world)
    assert request["answer"] == f"https://app.azurewebsites.net/api/pipelines/{PIPELINE}/approvals/run-1"
    assert request["report"] == f"https://app.azurewebsites.net/api/pipelines/{PIPELINE}/runs/run-1"


def test_an_approved_challenger_goes_live_with_the_name_of_who_did_it(world: World) -> None:
    done = decide(PIPELINE, "run-1", "approve", who="ann", why="looks right", to=world.to)
    assert (done.outcome, version(world)) == ("promoted", 1)
    champion = read_champion(world.blobs, PIPELINE)
    assert champion is not None
    assert (champion.pointer.who, champion.pointer.moves[0].kind) == ("ann", "approved")
    assert "looks right" in champion.pointer.why
    assert decide(PIPELINE, "run-1", "approve", who="ann", why="looks right", to=world.to) == done
    assert champion.pointer.generation == 1
    with pytest.raises(AlreadyDecided, match=r"was decided already: approve by ann"):
        decide(PIPELINE, "run-1", "reject", who="bob", why="", to=world.to)


def test_a_rejected_challenger_does_not(world: World) -> None:
    assert decide(PIPELINE, "run-1", "reject", who="bob", why="too odd", to=world.to).outcome == "rejected"
    assert version(world) is None
    assert [n.data["why"] for n in world.events.heard if n.type == "Ratchet.ModelRejected"] == ["too odd"]


def test_nobody_decides_in_time(world: World) -> None:
    assert tend(PIPELINE, world.to) is None
    world.now += timedelta(hours=3)
    done = tend(PIPELINE, world.to)
    assert done is not None
    assert (done.outcome, done.who, version(world)) == ("rejected", "the time-out", None)
    assert tend(PIPELINE, world.to) is None


def test_the_time_out_can_approve(tmp_path: Path) -> None:
    world = World(tmp_path, APPROVAL.replace("timeout_hours: 2", "timeout_hours: 2, on_timeout: approve"))
    world.upload("a.csv", rows(0))
    world.run()
    world.now += timedelta(hours=3)
    tend(PIPELINE, world.to)
    assert version(world) == 1


def test_a_newer_challenger_takes_the_place_of_one_that_waits(world: World) -> None:
    world.upload("b.csv", rows(10))
    world.run()
    assert (waiting(world).id, waiting(world).version) == ("run-2", 2)
    assert asked(world)[-1]["supersedes"] == 1
    with pytest.raises(AlreadyDecided, match="version 2"):
        decide(PIPELINE, "run-1", "approve", who="ann", why="", to=world.to)
    decide(PIPELINE, "run-2", "approve", who="ann", why="", to=world.to)
    assert version(world) == 2


def test_the_registry_says_what_waits_and_what_became_of_it(world: World) -> None:
    decided = world.mlflow.tags
    assert decided[1, DECISION] == "passed"
    reconcile(PIPELINE, world.to)
    assert decided[1, DECISION] == "waiting"
    world.upload("b.csv", rows(10))
    world.run()
    reconcile(PIPELINE, world.to)
    assert (decided[1, DECISION], decided[2, DECISION]) == ("superseded", "waiting")
    decide(PIPELINE, "run-2", "reject", who="bob", why="too odd", to=world.to)
    reconcile(PIPELINE, world.to)
    assert (decided[2, DECISION], decided[2, WHY]) == ("rejected", "bob: too odd")
    decided.clear()
    reconcile(PIPELINE, world.to)
    assert decided == {}, "it is written once"


def test_a_repeated_step_asks_once(tmp_path: Path) -> None:
    world = World(tmp_path, APPROVAL)
    world.times = 2
    world.upload("a.csv", rows(0))
    world.run()
    assert {str(request["id"]) for request in asked(world)} == {"run-1"}
    assert waiting(world).verdict is None


def test_a_decision_that_was_not_carried_out_is_by_the_next_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dies(Exception):
        pass

    def dying(*_: object) -> None:
        raise Dies

    with monkeypatch.context() as patch:
        patch.setattr("activities.waiting._carry_out", dying)
        with pytest.raises(Dies):
            decide(PIPELINE, "run-1", "approve", who="ann", why="looks right", to=world.to)
    assert version(world) is None
    tend(PIPELINE, world.to)
    assert (version(world), waiting(world).outcome, waiting(world).who) == (1, "promoted", "ann")


def test_an_approved_challenger_that_does_not_serve_is_refused(world: World) -> None:
    world.blobs.put(f"models/{PIPELINE}/versions/1/model.onnx", b"another model")
    done = decide(PIPELINE, "run-1", "approve", who="ann", why="", to=world.to)
    assert (done.outcome, version(world)) == ("refused", None)
    assert "not those that were exported" in done.detail


def test_nothing_waits(tmp_path: Path) -> None:
    with pytest.raises(NothingWaits):
        decide(PIPELINE, "run-1", "approve", who="ann", why="", to=World(tmp_path).to)


def test_a_window_lets_the_challenger_wait_until_it_opens(tmp_path: Path) -> None:
    # The run is on the first of January 2027, a Friday; the window opens on Saturday at two.
    window = "promotion: {mode: window, days: [sat], start: '02:00', end: '05:00'}\n"
    world = World(tmp_path, APPROVAL.rpartition("promotion:")[0] + window)
    world.upload("a.csv", rows(0))
    record = world.run()
    assert record["outcome"] == "waiting"
    assert waiting(world).until == "2027-01-02T02:00:00+00:00"
    assert asked(world) == []
    tend(PIPELINE, world.to)
    assert version(world) is None
    world.now += timedelta(hours=26, minutes=30)
    tend(PIPELINE, world.to)
    assert version(world) == 1
    world.upload("b.csv", rows(10))
    assert world.run()["outcome"] == "promoted", "while the window is open, at once"
