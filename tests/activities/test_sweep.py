"""The sweep: what events missed, what dead runs held, and what the latest run does not know of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from activities.contracts import Finish, RunRef
from activities.judged import read_judged
from activities.settle import abandon
from activities.sweep import RETRY_AFTER, STRANGERS_CLAIM, free, look_over
from activities.uploads import claim
from adapters.blobs import BlobInfo, Page
from adapters.ledger import Partition
from tests.activities.world import PIPELINE, SPEC, World, rows

HUB = "RatchetHub"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@dataclass(frozen=True)
class Seen:
    changes: int
    due: int
    claims: tuple[str, ...]


def found(world: World) -> Seen:
    findings = look_over(PIPELINE, world.to)
    return Seen(findings.changes, findings.due, tuple(row.path for row in findings.claims))


def test_nothing_to_say_when_the_ledger_is_right(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    assert found(world) == Seen(0, 0, ())


def test_an_upload_without_an_event_is_found(world: World) -> None:
    world.blobs.put(f"training/{PIPELINE}/a.csv", rows(0))
    assert found(world) == Seen(1, 1, ())
    assert found(world) == Seen(0, 1, ())
    assert world.run()["outcome"] == "promoted"


def test_an_overwritten_blob_without_an_event_is_found(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    world.blobs.put(f"training/{PIPELINE}/a.csv", rows(0, seed=1))
    assert found(world) == Seen(1, 1, ())


def test_a_deleted_blob_without_an_event_is_found(world: World) -> None:
    path = world.upload("a.csv", rows(0))
    world.run()
    world.blobs.delete(f"training/{path}")
    assert found(world) == Seen(1, 0, ())
    assert world.ledger.state(path) == "removed"


def test_the_claims_of_a_dead_run_are_freed_and_those_of_the_next_are_not(world: World) -> None:
    path = world.upload("a.csv", rows(0))
    claim(world.start(), world.to)
    assert found(world) == Seen(0, 0, (path,))
    claims = look_over(PIPELINE, world.to).claims
    assert free(claims, world.to, hub=HUB) == 1
    assert world.ledger.state(path) == "pending"
    claim(world.start(), world.to)
    assert free(claims, world.to, hub=HUB) == 0
    assert world.ledger.state(path) == "claimed"


def test_the_claims_of_another_apps_runs_are_left_alone_for_long(world: World) -> None:
    path = world.upload("a.csv", rows(0))
    claim(RunRef(PIPELINE, "r", world.to.now(), hub="AnotherHub"), world.to)
    claims = look_over(PIPELINE, world.to).claims
    assert free(claims, world.to, hub=HUB) == 0
    assert world.ledger.state(path) == "claimed"
    world.now += STRANGERS_CLAIM
    assert free(claims, world.to, hub=HUB) == 1
    assert world.ledger.state(path) == "pending"


def test_another_pipelines_blobs_are_not_looked_at(world: World) -> None:
    world.blobs.put("training/shops-2/a.csv", rows(0))
    assert found(world) == Seen(0, 0, ())


def test_folders_are_no_uploads(world: World) -> None:
    world.blobs.put(f"training/{PIPELINE}/2026/", b"")
    assert found(world) == Seen(0, 0, ())


def test_what_no_upload_may_be_called_is_not_found_either(world: World) -> None:
    world.blobs.put(f"training/{PIPELINE}/a\nb.csv", rows(0))
    assert found(world) == Seen(0, 0, ())


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
    found(world)
    assert {row.state for row in world.ledger.rows(PIPELINE)} == {"pending"}


def test_what_a_failed_run_gave_back_waits_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.upload("a.csv", rows(0))
    run = world.start()
    claim(run, world.to)
    abandon(Finish(PIPELINE, run.run, run.started, "failed", "boom"), world.to)
    (row,) = world.ledger.rows(PIPELINE)
    failed_at = datetime.fromisoformat(row.changed)
    for wait, due in ((timedelta(0), 0), (RETRY_AFTER, 1)):
        world.now = failed_at + wait
        assert found(world).due == due


def stale(world: World) -> bool:
    return look_over(PIPELINE, world.to).stale


def test_after_a_run_there_is_nothing_to_judge_again(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.upload("bad.csv", b"nonsense")
    assert not stale(world)
    world.run()
    assert not stale(world)
    world.run()
    assert not stale(world)


@pytest.mark.parametrize(
    ("old", "new", "is_stale"),
    [
        ("rounds: 40", "rounds: 41", True),
        ("minimum: 0}\n  town", "minimum: -5}\n  town", True),
        ("minimum_rows: 50", "minimum_rows: 60", False),  # the gate's: the same model would come out
        ("name: shops", "name: shops\ndescription: shops", False),
        ("rounds: 40", "rounds: forty", False),  # nothing can be run before it is mended
    ],
)
def test_a_changed_spec_is_judged_again_when_it_could_make_another_model(
    world: World, old: str, new: str, *, is_stale: bool
) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    world.write_spec(SPEC.replace(old, new))
    assert stale(world) == is_stale
    if is_stale:
        assert world.run()["outcome"] in {"promoted", "kept"}
        assert not stale(world)


def test_a_deleted_blob_leaves_the_model_too(world: World) -> None:
    world.upload("a.csv", rows(0))
    path = world.upload("b.csv", rows(10))
    world.run()
    world.blobs.delete(f"training/{path}")
    assert stale(world)
    world.run()
    assert not stale(world)
    manifest = world.read(f"models/{PIPELINE}/versions/2/model.json")
    assert [partition["path"] for partition in manifest["lineage"]["partitions"]] == ["shops/a.csv"]


def test_two_runs_that_shared_the_uploads_are_followed_by_one_with_all_of_them(world: World) -> None:
    """As two apps on one account may: each claims what the other has not."""
    world.upload("a.csv", rows(0))
    first = world.start()
    claimed = claim(first, world.to)
    world.upload("b.csv", rows(10))
    world.run()
    world.settle(first, *world.after_claim(first, claimed))
    assert stale(world)
    world.run()
    assert not stale(world)
    lineages = [
        {partition["path"] for partition in json.loads(world.blobs.get(path).data)["lineage"]["partitions"]}
        for path in world.blobs.paths(f"models/{PIPELINE}/versions/")
        if path.endswith(".json")
    ]
    assert lineages.count({"shops/a.csv", "shops/b.csv"}) == 1


def test_while_another_apps_run_has_uploads_nothing_is_judged_without_them(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.upload("b.csv", rows(10))
    world.run()
    world.upload("a.csv", rows(0, seed=1))
    claim(RunRef(PIPELINE, "r", world.to.now(), hub="AnotherHub"), world.to)
    assert not stale(world)


def test_a_hundred_thousand_blobs_are_a_few_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = [BlobInfo(f"training/{PIPELINE}/{number:06}.csv", "e", 1, 0.0) for number in range(100_000)]
    world.ledger.by_path = {
        (PIPELINE, path): Partition(PIPELINE, path, "e", 1, "pending", world.to.now())
        for path in (blob.path.removeprefix("training/") for blob in blobs)
    }
    asked: list[str] = []

    def pages(prefix: str, *, token: str = "") -> Iterator[Page]:
        for start in range(int(token or 0), len(blobs), 5000):
            asked.append("page")
            yield Page(tuple(blobs[start : start + 5000]), str(start + 5000) if start + 5000 < len(blobs) else "")

    monkeypatch.setattr(world.blobs, "pages", pages)
    for name in ("exists", "head"):
        monkeypatch.setattr(world.blobs, name, lambda path, name=name: asked.append(name))
    findings = look_over(PIPELINE, world.to)
    assert (findings.changes, findings.due) == (0, 100_000)
    assert asked == ["page"] * 20


def test_after_a_failed_run_nothing_is_judged_again_for_a_while(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    world.write_spec(SPEC.replace("rounds: 40", "rounds: 41"))
    run = world.start()
    abandon(Finish(PIPELINE, run.run, run.started, "failed", "boom"), world.to)
    assert not stale(world)
    world.now = datetime.fromisoformat(read_judged(world.blobs, PIPELINE).failed_at) + RETRY_AFTER
    assert stale(world)


def test_a_schedule_wants_a_run_by_the_clock(world: World) -> None:
    world.write_spec(SPEC + "schedule: {hours: 24}\n")
    assert not look_over(PIPELINE, world.to).scheduled
    world.upload("a.csv", rows(0))
    world.run()
    assert not look_over(PIPELINE, world.to).scheduled
    world.now += timedelta(hours=24)
    assert look_over(PIPELINE, world.to).scheduled
    world.run(world.start(force=True))
    assert not look_over(PIPELINE, world.to).scheduled


def test_a_look_that_takes_too_long_goes_on_where_it_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.blobs.page_size = 2
    paths = [f"{PIPELINE}/{name}.csv" for name in "abcdefg"]
    for path in paths:
        world.blobs.put(f"training/{path}", b"x")
    world.upload("b2.csv", rows(0))
    world.blobs.delete(f"training/{PIPELINE}/b2.csv")
    monkeypatch.setattr("activities.sweep.PATIENCE", timedelta(0))
    looks = 0
    while len(list(world.ledger.rows(PIPELINE, ("pending",)))) < len(paths):
        look_over(PIPELINE, world.to)
        looks += 1
        assert len(list(world.ledger.rows(PIPELINE))) <= 1 + 2 * looks
    assert looks == 4
    assert world.ledger.state(f"{PIPELINE}/b2.csv") == "removed"
    # The next one begins anew.
    world.blobs.put(f"training/{PIPELINE}/a.csv", b"y")
    assert look_over(PIPELINE, world.to).changes == 1
