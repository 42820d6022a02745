"""Old caches that nothing can reach are deleted, and nothing else ever is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from activities.collect import collect
from adapters.blobs import StorageUnavailable
from tests.activities.world import PIPELINE, SPEC, World, rows


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.upload("a.csv", rows(0))
    made.run()
    return made


def age(world: World, days: float) -> None:
    """Makes everything so old, and a day pass since the last collection."""
    for path in world.blobs.paths():
        world.blobs.modified[path] = (world.now - timedelta(days=days)).timestamp()
    world.now += timedelta(days=1)


def test_what_the_next_run_can_use_stays_whatever_its_age(world: World) -> None:
    age(world, 400)
    before = set(world.blobs.paths("features/"))
    deleted = collect(PIPELINE, world.to)
    gone = before - set(world.blobs.paths("features/"))
    assert deleted == len(gone)
    assert {path.split("/")[2] for path in gone} == {"challengers"}
    world.upload("b.csv", rows(10))
    world.blobs.reads.clear()
    world.run()
    assert [path for path in world.blobs.reads if path.startswith("training/")] == ["training/shops/b.csv"]


def test_what_belongs_to_an_overwritten_file_or_an_old_spec_goes_once_it_is_old(world: World) -> None:
    first = set(world.blobs.paths("features/"))
    world.upload("a.csv", rows(0, seed=1))
    world.run()
    world.write_spec(SPEC.replace("minimum: 0}\n  town", "minimum: -1}\n  town"))
    world.run()
    age(world, 3)
    assert collect(PIPELINE, world.to) == 0
    age(world, 8)
    assert collect(PIPELINE, world.to) > 0
    left = set(world.blobs.paths("features/"))
    kinds = ("outcomes", "clean", "graphs", "matrices", "steps", "challengers")
    assert not {path for path in first & left if path.split("/")[2] in kinds}
    assert world.run()["outcome"] == "nothing_to_do"


OTHER_CONTRACT = SPEC.replace("minimum: 0}\n  town", "minimum: -1}\n  town")


def test_a_pipeline_that_comes_back_to_an_old_contract_finds_whole_caches_or_none(world: World) -> None:
    """Rows are written before the outcome that promises them, so they are old enough a moment earlier."""
    world.write_spec(OTHER_CONTRACT)
    world.run()
    age(world, 8)
    for path in world.blobs.paths(f"features/{PIPELINE}/outcomes/"):
        world.blobs.modified[path] = world.now.timestamp()
    collect(PIPELINE, world.to)
    world.write_spec(SPEC)
    assert world.run()["outcome"] in {"promoted", "kept"}


def test_a_collection_that_died_half_way_leaves_no_promise_without_rows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write_spec(OTHER_CONTRACT)
    world.run()
    age(world, 8)
    delete, left = world.blobs.delete, [2]

    def dying(path: str) -> bool:
        if not left[0]:
            raise StorageUnavailable(path, "away")
        left[0] -= 1
        return delete(path)

    with monkeypatch.context() as patched:
        patched.setattr(world.blobs, "delete", dying)
        with pytest.raises(StorageUnavailable):
            collect(PIPELINE, world.to)
    world.write_spec(SPEC)
    assert world.run()["outcome"] in {"promoted", "kept"}


def test_only_caches_are_touched(world: World) -> None:
    world.blobs.delete(f"training/{PIPELINE}/a.csv")
    world.ledger.forget(PIPELINE, f"{PIPELINE}/a.csv", sequencer="", now=world.to.now())
    outside = [path for path in world.blobs.paths() if not path.startswith("features/")]
    age(world, 400)
    assert collect(PIPELINE, world.to) > 0
    assert [path for path in world.blobs.paths() if not path.startswith("features/")] == outside
    assert f"features/{PIPELINE}/judged.json" in world.blobs.paths()


def test_it_looks_once_a_day(world: World) -> None:
    age(world, 400)
    assert collect(PIPELINE, world.to) > 0
    world.blobs.put(f"features/{PIPELINE}/challengers/old.onnx", b"")
    assert collect(PIPELINE, world.to) == 0
    world.now += timedelta(days=1)
    assert collect(PIPELINE, world.to) == 1


def test_the_age_is_a_setting(world: World) -> None:
    age(world, 8)
    assert collect(PIPELINE, replace(world.to, cache_days=30.0)) == 0
