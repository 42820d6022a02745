"""Wishes at the edges: before the first champion, for versions with broken files, and about versions that are gone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from activities.decisions import DECISION
from activities.live import read_champion
from activities.promote import align
from activities.reconcile import REFUSED_TAG, reconcile
from activities.rollback import rollback
from adapters.registry import NoSuchVersion
from tests.activities.test_reconcile import just_before, live, told, trained
from tests.activities.world import PIPELINE, World

__all__ = ["trained"]
VERSION_1 = f"models/{PIPELINE}/versions/1"


@pytest.fixture
def world(trained: World, tmp_path: Path) -> World:
    return trained.copy(tmp_path)


@pytest.fixture
def unborn(world: World) -> World:
    """Three versions are registered and stored; none was ever the champion."""
    for name in ("live", "aligned"):
        world.blobs.delete(f"models/{PIPELINE}/{name}.json")
    world.mlflow.alias = {"challenger": 3}
    world.events.heard.clear()
    return world


def test_a_wish_before_the_first_champion_is_carried_out(unborn: World) -> None:
    unborn.mlflow.alias["champion"] = 2
    done = reconcile(PIPELINE, unborn.to)
    assert (done.outcome, done.version) == ("pointer moved", 2)
    pointer = live(unborn)
    assert (pointer.champion.version, pointer.generation, pointer.moves[0].kind) == (2, 1, "followed")
    assert unborn.mlflow.alias == {"challenger": 3, "champion": 2}
    assert told(unborn, "Ratchet.ModelPromoted") == [2]
    assert unborn.mlflow.tags[2, DECISION] == "promoted"
    assert reconcile(PIPELINE, unborn.to).outcome == "in line"


def test_one_that_does_not_serve_is_refused_with_the_reason_and_the_alias_taken_away(unborn: World) -> None:
    unborn.blobs.put(f"{VERSION_1}/model.onnx", b"another model")
    unborn.mlflow.alias["champion"] = 1
    done = reconcile(PIPELINE, unborn.to)
    assert (done.outcome, done.version) == ("refused", None)
    assert "not those that were exported" in unborn.mlflow.tags[1, REFUSED_TAG]
    assert unborn.mlflow.alias == {"challenger": 3}
    assert reconcile(PIPELINE, unborn.to).outcome == "no champion"
    assert read_champion(unborn.blobs, PIPELINE) is None


def test_a_first_promotion_that_comes_first_stays(unborn: World) -> None:
    """A reconciler is about to carry out the first wish when another one carries out another."""

    def sooner() -> None:
        unborn.mlflow.alias["champion"] = 3
        assert reconcile(PIPELINE, unborn.to).outcome == "pointer moved"
        unborn.mlflow.alias["champion"] = 2

    unborn.mlflow.alias["champion"] = 2
    with just_before(unborn, unborn.blobs, "put", sooner):
        assert reconcile(PIPELINE, unborn.to).version == 2
    assert [(move.version, move.generation) for move in live(unborn).moves] == [(2, 2), (3, 1)]


def unreadable(data: bytes) -> Callable[[World], None]:
    def spoil(world: World) -> None:
        world.blobs.put(f"{VERSION_1}/model.json", data)

    return spoil


def archive(name: str) -> Callable[[World], None]:
    def spoil(world: World) -> None:
        world.blobs.archived.add(f"{VERSION_1}/{name}")

    return spoil


def point_elsewhere(world: World) -> None:
    document = world.blobs.get(f"{VERSION_1}/model.json").data
    world.blobs.put(f"{VERSION_1}/model.json", document.replace(b"versions/1/model.onnx", b"versions/2/model.onnx"))


def lose_golden_rows(world: World) -> None:
    document = world.read(f"{VERSION_1}/model.json")
    spoiled = {**document, "golden": {"inputs": {}, "probabilities": []}}
    world.blobs.put(f"{VERSION_1}/model.json", json.dumps(spoiled).encode())


SPOILED = [
    pytest.param(unreadable(b"[]"), "its model.json cannot be read", id="a list"),
    pytest.param(unreadable(b'"text"'), "its model.json cannot be read", id="a text"),
    pytest.param(unreadable(b"null"), "its model.json cannot be read", id="null"),
    pytest.param(unreadable(b"[" * 100_000), "its model.json cannot be read", id="deep"),
    pytest.param(unreadable(b"\xff\xfe"), "its model.json cannot be read", id="no text"),
    pytest.param(unreadable(b"{}"), "its model.json cannot be read", id="empty"),
    pytest.param(archive("model.json"), "archive tier", id="archived model.json"),
    pytest.param(archive("model.onnx"), "archive tier", id="archived model"),
    pytest.param(lambda world: world.blobs.delete(f"{VERSION_1}/model.onnx"), "is missing", id="lost model"),
    pytest.param(point_elsewhere, "names another file", id="another's model"),
    pytest.param(lose_golden_rows, "it does not load", id="no golden rows"),
]


@pytest.mark.parametrize(("spoil", "reason"), SPOILED)
def test_a_version_with_broken_files_is_refused_and_holds_up_nobody(
    world: World, spoil: Callable[[World], object], reason: str
) -> None:
    spoil(world)
    world.mlflow.alias["champion"] = 1
    done = reconcile(PIPELINE, world.to)
    assert (done.outcome, done.version) == ("refused", 3)
    assert reason in world.mlflow.tags[1, REFUSED_TAG]
    assert world.mlflow.alias["champion"] == 3
    world.mlflow.alias["champion"] = 2
    assert reconcile(PIPELINE, world.to).outcome == "pointer moved"


@pytest.mark.parametrize("spoil", [case.values[0] for case in SPOILED], ids=[case.id for case in SPOILED])
def test_a_champion_with_broken_files_can_be_left(world: World, spoil: Callable[[World], object]) -> None:
    world.mlflow.alias["champion"] = 1
    reconcile(PIPELINE, world.to)
    spoil(world)
    assert reconcile(PIPELINE, world.to).outcome == "in line"
    world.mlflow.alias["champion"] = 2
    assert reconcile(PIPELINE, world.to).outcome == "pointer moved"


@pytest.fixture
def gone(world: World) -> World:
    """The live version was deleted in the registry, which takes its aliases away."""
    world.mlflow.delete(3)
    return world


def test_a_live_version_that_is_gone_there_serves_on_and_is_said_to_be_gone(gone: World) -> None:
    before = {path: gone.blobs.get(path).etag for path in gone.blobs.paths()}
    for _ in range(3):
        done = reconcile(PIPELINE, gone.to)
        assert (done.outcome, done.version) == ("gone", 3)
        assert "version 3 is live, but the registry does not have it any more" in done.sentence
    assert live(gone).generation == 3
    assert gone.mlflow.alias == {"previous": 2}
    assert {path: gone.blobs.get(path).etag for path in gone.blobs.paths()} == before, "each look wrote something"


def test_a_wish_is_carried_out_while_the_live_version_is_gone_there(gone: World) -> None:
    reconcile(PIPELINE, gone.to)
    gone.mlflow.alias["champion"] = 2
    assert reconcile(PIPELINE, gone.to).outcome == "pointer moved"
    assert (live(gone).champion.version, gone.mlflow.alias["champion"]) == (2, 2)
    assert "previous" not in gone.mlflow.alias, "the version before is gone, and 2 is not it"
    assert reconcile(PIPELINE, gone.to).outcome == "in line"


def test_a_wish_that_does_not_serve_is_refused_while_the_live_version_is_gone_there(gone: World) -> None:
    gone.blobs.delete(f"{VERSION_1}/model.json")
    gone.mlflow.alias["champion"] = 1
    assert reconcile(PIPELINE, gone.to).outcome == "refused"
    assert "storage has no such version" in gone.mlflow.tags[1, REFUSED_TAG]
    assert "champion" not in gone.mlflow.alias
    assert reconcile(PIPELINE, gone.to).outcome == "gone"


def test_the_whole_model_is_gone_there(world: World) -> None:
    for version in (1, 2, 3):
        world.mlflow.delete(version)
    assert reconcile(PIPELINE, world.to).outcome == "gone"
    rollback(PIPELINE, None, who="ann", why="odd scores", to=world.to)
    assert reconcile(PIPELINE, world.to).outcome == "gone"
    assert live(world).champion.version == 2
    assert told(world, "Ratchet.ModelRolledBack") == [2]


def test_an_alias_that_cannot_follow_to_a_version_that_is_gone_is_no_wish(world: World) -> None:
    """It would say that another version is the champion, and after that be taken for a wish."""
    world.mlflow.delete(2)
    rollback(PIPELINE, 2, who="ann", why="odd scores", to=world.to)
    assert reconcile(PIPELINE, world.to).outcome == "gone"
    assert "champion" not in world.mlflow.alias
    assert reconcile(PIPELINE, world.to).outcome == "gone"
    assert live(world).champion.version == 2
    world.mlflow.alias["champion"] = 3
    assert reconcile(PIPELINE, world.to).outcome == "pointer moved"


def test_a_live_version_that_is_deleted_just_now(world: World) -> None:
    """Between the look whether it is there and the alias."""
    rollback(PIPELINE, 2, who="ann", why="odd scores", to=world.to)
    with just_before(world, world.mlflow, "set_alias", lambda: world.mlflow.delete(2)), pytest.raises(NoSuchVersion):
        reconcile(PIPELINE, world.to)
    assert reconcile(PIPELINE, world.to).outcome == "gone"


def test_a_run_whose_version_is_deleted_at_once_ends_all_the_same(world: World) -> None:
    run = world.start()
    world.mlflow.delete(3)
    assert "does not have it any more" in align(run, world.to).sentence
