"""Back to an earlier version, and what that means for the runs that follow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from activities.contracts import Finish
from activities.decisions import DECISION, WHY
from activities.live import DoesNotServe, read_champion
from activities.reconcile import reconcile
from activities.rollback import NothingToRollBack, rollback
from activities.settle import abandon
from tests.activities.test_reconcile import live, trained
from tests.activities.world import PIPELINE, World, rows

__all__ = ["trained"]


@pytest.fixture
def world(trained: World, tmp_path: Path) -> World:
    return trained.copy(tmp_path)


def test_back_to_the_version_before_and_further(world: World) -> None:
    world.mlflow.away = True
    first = rollback(PIPELINE, None, who="ann", why="odd scores", to=world.to)
    assert (first.champion.version, first.generation, first.who, first.why) == (2, 4, "ann", "odd scores")
    assert [each.version for each in first.withdrawn] == [3]
    second = rollback(PIPELINE, None, who="ann", why="odd, too", to=world.to)
    assert second.champion.version == 1, "the one that was rolled back is not gone back to"
    with pytest.raises(NothingToRollBack, match="no predecessor"):
        rollback(PIPELINE, None, who="ann", why="odd", to=world.to)


def test_to_a_named_version_and_on_again(world: World) -> None:
    assert rollback(PIPELINE, 1, who="ann", why="odd scores", to=world.to).champion.version == 1
    back = rollback(PIPELINE, 3, who="ann", why="it was the data", to=world.to)
    assert (back.champion.version, back.withdrawn, back.moves[0].kind) == (3, (), "approved")


def test_what_cannot_be_gone_back_to_is_said(world: World) -> None:
    with pytest.raises(NothingToRollBack, match="is the champion"):
        rollback(PIPELINE, 3, who="ann", why="odd", to=world.to)
    with pytest.raises(DoesNotServe, match="storage has no such version"):
        rollback(PIPELINE, 9, who="ann", why="odd", to=world.to)
    assert live(world).generation == 3


def test_without_a_champion(tmp_path: Path) -> None:
    with pytest.raises(NothingToRollBack, match="has no champion yet"):
        rollback(PIPELINE, None, who="ann", why="odd", to=World(tmp_path).to)


def test_the_same_dataset_does_not_come_back_by_itself_new_data_does(world: World) -> None:
    rollback(PIPELINE, None, who="ann", why="odd scores", to=world.to)
    record = world.run(world.start(force=True))
    assert record["outcome"] == "kept"
    assert "comes from the same dataset as version 3, which was rolled back (odd scores)" in record["sentence"]
    assert live(world).champion.version == 2
    assert world.mlflow.tags[4, DECISION] == "refused"
    assert "was rolled back (odd scores)" in world.mlflow.tags[4, WHY]
    assert world.mlflow.tags[3, DECISION] == "promoted", "the reconciler has yet to say what became of it"
    world.upload("more.csv", rows(30, noise=0.1))
    assert world.run()["outcome"] == "promoted"
    champion = read_champion(world.blobs, PIPELINE)
    assert champion is not None
    assert champion.pointer.champion.version == 5


def test_a_repeated_run_does_not_take_the_mark_away(world: World) -> None:
    rollback(PIPELINE, None, who="ann", why="odd scores", to=world.to)
    reconcile(PIPELINE, world.to)
    world.blobs.delete(f"features/{PIPELINE}/judged.json")
    record = world.run()
    assert (record["outcome"], record["challenger"]["version"]) == ("kept", 3)
    assert world.mlflow.tags[3, DECISION] == "rolled back"


def test_the_version_before_may_have_a_higher_number(world: World) -> None:
    """A person chose an old version by the alias and takes that back: the old one is what was wrong."""
    world.mlflow.alias["champion"] = 1
    reconcile(PIPELINE, world.to)
    back = rollback(PIPELINE, None, who="ann", why="too old", to=world.to)
    assert (back.champion.version, back.moves[0].kind) == (3, "rolled back")
    assert [each.version for each in back.withdrawn] == [1]


@pytest.mark.parametrize("data", [None, b"{", b"[]", b"{}"], ids=["missing", "no JSON", "no object", "empty"])
def test_away_from_a_champion_whose_model_json_is_broken(world: World, data: bytes | None) -> None:
    path = f"models/{PIPELINE}/versions/3/model.json"
    world.blobs.delete(path) if data is None else world.blobs.put(path, data)
    back = rollback(PIPELINE, None, who="ann", why="it does not load", to=world.to)
    dataset = world.read(f"models/{PIPELINE}/versions/2/model.json")["lineage"]["dataset"]
    assert (back.champion.version, back.champion.dataset, back.withdrawn[0].version) == (2, dataset, 3)
    assert back.withdrawn[0].dataset not in {"", dataset}
    world.blobs.put(f"models/{PIPELINE}/versions/2/model.json", b"{")
    assert rollback(PIPELINE, None, who="ann", why="nor does this", to=world.to).champion.version == 1
    with pytest.raises(DoesNotServe, match="version 3 of shops cannot be served"):
        rollback(PIPELINE, 3, who="ann", why="perhaps", to=world.to)


def test_away_from_a_broken_champion_of_which_nobody_wrote_down_the_dataset(world: World) -> None:
    """The pointer is from before datasets were in it."""
    document = world.read(f"models/{PIPELINE}/live.json")
    for each in (document["champion"], *document["history"]):
        del each["dataset"]
    world.blobs.put(f"models/{PIPELINE}/live.json", json.dumps(document).encode())
    path = f"models/{PIPELINE}/versions/3/model.json"
    whole = world.blobs.get(path).data
    world.blobs.put(path, b"{")
    back = rollback(PIPELINE, None, who="ann", why="it does not load", to=world.to)
    assert (back.champion.version, back.withdrawn[0].version, back.withdrawn[0].dataset) == (2, 3, "")
    world.blobs.put(path, whole)
    world.blobs.delete(f"features/{PIPELINE}/judged.json")
    record = world.run()
    assert record["outcome"] == "kept"
    assert "version 3 was rolled back (it does not load)" in record["sentence"]


def test_a_run_against_a_broken_champion_says_what_to_do(world: World) -> None:
    world.blobs.put(f"models/{PIPELINE}/versions/3/model.json", b"[]")
    world.upload("more.csv", rows(30, noise=0.1))
    failed = world.start()
    with pytest.raises(DoesNotServe, match="roll back to another version"):
        world.run(failed)
    abandon(Finish(PIPELINE, failed.run, failed.started, "failed", "the champion is broken"), world.to)
    rollback(PIPELINE, None, who="ann", why="it does not load", to=world.to)
    record = world.run()
    assert record["outcome"] == "promoted", record["sentence"]
