"""The sweep: what events missed, and what dead runs held."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import cast

import azure.durable_functions as df
import pytest

from activities.contracts import Finish
from activities.settle import abandon
from activities.uploads import claim
from adapters.blobs import BlobInfo
from adapters.ledger import LedgerError
from tests.activities.world import PIPELINE, World, rows
from triggers.timers import RETRY_AFTER, Comparison, compare, free, sweep_all


def test_nothing_to_say_when_the_ledger_is_right(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    assert compare(PIPELINE) == Comparison(0, 0, ())


def test_an_upload_without_an_event_is_found(world: World) -> None:
    world.blobs.put(f"training/{PIPELINE}/a.csv", rows(0))
    assert compare(PIPELINE) == Comparison(1, 1, ())
    assert compare(PIPELINE) == Comparison(0, 1, ())
    assert world.run()["outcome"] == "promoted"


def test_an_overwritten_blob_without_an_event_is_found(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    world.blobs.put(f"training/{PIPELINE}/a.csv", rows(0, seed=1))
    assert compare(PIPELINE) == Comparison(1, 1, ())


def test_a_deleted_blob_without_an_event_is_found(world: World) -> None:
    path = world.upload("a.csv", rows(0))
    world.run()
    world.blobs.delete(f"training/{path}")
    assert compare(PIPELINE) == Comparison(1, 0, ())
    assert world.ledger.state(path) == "removed"


def test_the_claims_of_a_dead_run_are_freed_and_those_of_the_next_are_not(world: World) -> None:
    path = world.upload("a.csv", rows(0))
    claim(world.start(), world.to)
    found = compare(PIPELINE)
    assert (found.changes, found.due, [row.path for row in found.claims]) == (0, 0, [path])
    free(found.claims)
    assert world.ledger.state(path) == "pending"
    claim(world.start(), world.to)
    free(found.claims)
    assert world.ledger.state(path) == "claimed"


def test_another_pipelines_blobs_are_not_looked_at(world: World) -> None:
    world.blobs.put("training/shops-2/a.csv", rows(0))
    assert compare(PIPELINE) == Comparison(0, 0, ())


def test_folders_are_no_uploads(world: World) -> None:
    world.blobs.put(f"training/{PIPELINE}/2026/", b"")
    assert compare(PIPELINE) == Comparison(0, 0, ())


def test_what_is_uploaded_while_the_container_is_listed_is_not_taken_for_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.upload("m.csv", rows(0))
    listing = world.blobs.list

    def slow(prefix: str) -> Iterator[BlobInfo]:
        there = list(listing(prefix))
        world.upload("a.csv", rows(10))
        world.blobs.put(f"training/{PIPELINE}/m.csv", rows(0))
        yield from [blob for blob in there if not blob.path.endswith("m.csv")]

    monkeypatch.setattr(world.blobs, "list", slow)
    compare(PIPELINE)
    assert {row.state for row in world.ledger.rows(PIPELINE)} == {"pending"}


def test_what_a_failed_run_gave_back_waits_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.upload("a.csv", rows(0))
    run = world.start()
    claim(run, world.to)
    abandon(Finish(PIPELINE, run.run, run.started, "failed", "boom"), world.to)
    (row,) = world.ledger.rows(PIPELINE)
    failed_at = datetime.fromisoformat(row.changed)
    for wait, due in ((timedelta(0), 0), (RETRY_AFTER, 1)):
        monkeypatch.setattr("triggers.timers.utc_now", lambda wait=wait: failed_at + wait)
        assert compare(PIPELINE).due == due


async def test_one_pipelines_trouble_is_not_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[str] = []

    def comparing(pipeline: str) -> Comparison:
        swept.append(pipeline)
        raise LedgerError("", f"no ledger for {pipeline}")

    (world.pipelines / "other.yaml").write_text("name: other")
    monkeypatch.setattr("triggers.timers.compare", comparing)
    with pytest.raises(ExceptionGroup) as caught:
        await sweep_all(client=cast(df.DurableOrchestrationClient, None))
    assert swept == ["other", "shops"]
    assert len(caught.value.exceptions) == 2
