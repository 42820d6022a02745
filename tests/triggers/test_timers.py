"""The sweep: what events missed, and what dead runs held."""

from __future__ import annotations

from activities.uploads import claim
from tests.activities.world import PIPELINE, World, rows
from triggers.timers import compare, free


def test_nothing_to_say_when_the_ledger_is_right(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    assert compare(PIPELINE) == (0, 0, [])


def test_an_upload_without_an_event_is_found(world: World) -> None:
    world.blobs.put(f"training/{PIPELINE}/a.csv", rows(0))
    assert compare(PIPELINE) == (1, 1, [])
    assert compare(PIPELINE) == (0, 1, [])
    assert world.run()["outcome"] == "promoted"


def test_an_overwritten_blob_without_an_event_is_found(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    world.blobs.put(f"training/{PIPELINE}/a.csv", rows(0, seed=1))
    assert compare(PIPELINE) == (1, 1, [])


def test_a_deleted_blob_without_an_event_is_found(world: World) -> None:
    path = world.upload("a.csv", rows(0))
    world.run()
    world.blobs.delete(f"training/{path}")
    assert compare(PIPELINE) == (1, 0, [])
    assert world.ledger.state(path) == "removed"


def test_the_claims_of_a_dead_run_are_freed_and_those_of_the_next_are_not(world: World) -> None:
    path = world.upload("a.csv", rows(0))
    claim(world.start(), world.to)
    changes, waiting, claims = compare(PIPELINE)
    assert (changes, waiting, [row.path for row in claims]) == (0, 0, [path])
    free(claims)
    assert world.ledger.state(path) == "pending"
    claim(world.start(), world.to)
    free(claims)
    assert world.ledger.state(path) == "claimed"


def test_another_pipelines_blobs_are_not_looked_at(world: World) -> None:
    world.blobs.put("training/shops-2/a.csv", rows(0))
    assert compare(PIPELINE) == (0, 0, [])
