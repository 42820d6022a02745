"""Challengers that wait for approval or for their hours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.contracts import RunRef
from activities.decisions import DECISION, WHY
from activities.held import write_waiting
from activities.live import read_champion
from activities.promote import promote
from activities.reconcile import reconcile
from activities.rollback import rollback
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


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A challenger waits for approval."""
    world = World(tmp_path_factory.mktemp("first"), APPROVAL)
    world.upload("a.csv", rows(0))
    record = world.run()
    assert (record["outcome"], version(world)) == ("waiting", None)
    assert "Version 1 waits for approval, until " in record["sentence"]
    return world


@pytest.fixture
def world(first: World, tmp_path: Path) -> World:
    return first.copy(tmp_path)


@pytest.fixture(scope="module")
def second(first: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Version 1 was approved, and version 2 waits."""
    world = first.copy(tmp_path_factory.mktemp("second"))
    decide(PIPELINE, "run-1", "approve", who="ann", why="looks right", to=world.to)
    reconcile(PIPELINE, world.to)
    world.upload("b.csv", rows(10))
    assert world.run()["outcome"] == "waiting"
    return world


@pytest.fixture
def again(second: World, tmp_path: Path) -> World:
    """Version 2 was approved, too; a person went back to version 1, and a run that found version 2 again waits."""
    world = second.copy(tmp_path)
    decide(PIPELINE, "run-2", "approve", who="ann", why="looks right", to=world.to)
    reconcile(PIPELINE, world.to)
    world.mlflow.alias["champion"] = 1
    assert reconcile(PIPELINE, world.to).outcome == "pointer moved"
    assert (run_again(world), version(world)) == (("waiting", 2), 1)
    return world


class Dies(Exception):
    """The process is gone."""


def once_then_dies(work: Callable[..., Any]) -> Callable[..., Any]:
    left = [1]

    def call(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Dies
        return work(*given, **named)

    return call


def run_again(world: World) -> tuple[str, int]:
    """A run over the same data, which finds its version; how it ended, and the version."""
    world.blobs.delete(f"features/{PIPELINE}/judged.json")
    record = world.run()
    return record["outcome"], record["challenger"]["version"]


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
    (told,) = [notice.data for notice in world.events.heard if notice.type == "Ratchet.ModelRejected"]
    assert (told["run"], told["version"], told["who"], told["why"]) == ("run-1", 1, "ann", done.detail)


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


def test_a_version_that_was_the_champion_before_goes_live_when_it_is_approved_again(again: World) -> None:
    done = decide(PIPELINE, "run-3", "approve", who="ann", why="looks right", to=again.to)
    assert (done.outcome, version(again)) == ("promoted", 2)
    champion = read_champion(again.blobs, PIPELINE)
    assert champion is not None
    assert [move.version for move in champion.pointer.moves] == [2, 1, 2, 1]


def test_each_waiting_is_asked_about_by_the_run_that_waits(again: World) -> None:
    assert [(request["id"], request["version"]) for request in asked(again)] == [
        ("run-1", 1),
        ("run-2", 2),
        ("run-3", 2),
    ]
    assert asked(again)[-1]["report"] == f"/api/pipelines/{PIPELINE}/runs/run-3"
    keys = [notice.key for notice in again.events.heard if notice.type == "Ratchet.ApprovalNeeded"]
    assert len(set(keys)) == len(keys), "another waiting is another event"
    with pytest.raises(AlreadyDecided, match=r"run-2 does not wait now: .* version 2 \(id run-3\)"):
        decide(PIPELINE, "run-2", "approve", who="ann", why="", to=again.to)


def test_a_move_that_was_made_and_taken_back_meanwhile_is_not_made_twice(again: World) -> None:
    """The process dies when the pointer has moved; a person goes back before anybody notes that it was done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("activities.waiting.write_waiting", once_then_dies(write_waiting))
        with pytest.raises(Dies):
            decide(PIPELINE, "run-3", "approve", who="ann", why="looks right", to=again.to)
    assert (version(again), waiting(again).outcome) == (2, "")
    rollback(PIPELINE, None, who="bob", why="odd scores", to=again.to)
    done = tend(PIPELINE, again.to)
    assert done is not None
    assert (done.outcome, version(again)) == ("promoted", 1)


def test_a_version_that_was_rejected_waits_anew_for_another_run(world: World) -> None:
    decide(PIPELINE, "run-1", "reject", who="bob", why="too odd", to=world.to)
    assert run_again(world) == ("waiting", 1)
    assert (waiting(world).id, waiting(world).version, waiting(world).open) == ("run-2", 1, True)
    assert decide(PIPELINE, "run-2", "approve", who="ann", why="", to=world.to).outcome == "promoted"
    assert version(world) == 1


def test_a_repeated_step_does_not_let_wait_again_what_was_decided(world: World) -> None:
    decide(PIPELINE, "run-1", "reject", who="bob", why="too odd", to=world.to)
    assert promote(RunRef(PIPELINE, "run-1", world.to.now()), world.to).ended == "waiting"
    assert waiting(world).outcome == "rejected"
    assert len(asked(world)) == 1


def test_a_decision_after_the_time_out_finds_what_that_decided(world: World) -> None:
    world.now += timedelta(hours=5)
    with pytest.raises(AlreadyDecided, match=r"already: reject by the time-out \(nobody decided in time\)"):
        decide(PIPELINE, "run-1", "approve", who="ann", why="late", to=world.to)
    assert (version(world), waiting(world).outcome, waiting(world).who) == (None, "rejected", "the time-out")


@pytest.mark.parametrize("late", [timedelta(0), timedelta(hours=3)], ids=["in time", "after the time-out"])
def test_one_that_a_moved_alias_made_live_waits_no_more(world: World, late: timedelta) -> None:
    """Else the time-out would reject what is live."""
    world.mlflow.alias["champion"] = 1
    assert reconcile(PIPELINE, world.to).outcome == "pointer moved"
    world.now += late
    tend(PIPELINE, world.to)
    reconcile(PIPELINE, world.to)
    assert (version(world), waiting(world).outcome, waiting(world).why) == (
        1,
        "promoted",
        "the alias champion was moved to version 1",
    )
    assert world.mlflow.tags[1, DECISION] == "promoted"
    with pytest.raises(AlreadyDecided, match="approve by the alias champion"):
        decide(PIPELINE, "run-1", "reject", who="bob", why="too odd", to=world.to)
    assert decide(PIPELINE, "run-1", "approve", who="ann", why="good", to=world.to).outcome == "promoted"
    assert "Ratchet.ModelRejected" not in {notice.type for notice in world.events.heard}


def test_a_decision_about_one_that_a_moved_alias_made_live_comes_too_late(world: World) -> None:
    world.mlflow.alias["champion"] = 1
    reconcile(PIPELINE, world.to)
    with pytest.raises(AlreadyDecided, match="approve by the alias champion"):
        decide(PIPELINE, "run-1", "reject", who="bob", why="too odd", to=world.to)
    assert (version(world), waiting(world).outcome) == (1, "promoted")
