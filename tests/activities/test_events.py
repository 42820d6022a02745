"""Every event that is told is what docs/events.schema.json says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from activities.contracts import Finish
from activities.reconcile import reconcile
from activities.rollback import rollback
from activities.settle import abandon
from activities.sweep import free, look_over
from activities.uploads import claim
from activities.waiting import decide
from adapters.events import SOURCE, EventType, Notice
from tests.activities.world import PIPELINE, SPEC, World, rows

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/events.schema.json").read_text(encoding="utf-8"))


def cloud_event(notice: Notice) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "type": notice.type,
        "source": f"{SOURCE}/{notice.pipeline}",
        "subject": notice.pipeline,
        "id": f"{notice.type}-{notice.pipeline}-{notice.key}",
        "data": json.loads(json.dumps(notice.data)),
    }


def is_end(notice: Notice) -> bool:
    return notice.type in {"Ratchet.RunFinished", "Ratchet.RunFailed"}


@pytest.mark.parametrize("away", [False, True])
def test_steps_that_run_twice_tell_everything_once(tmp_path: Path, away: bool) -> None:
    """Under one id each, so that who hears it twice can tell; one that still waits in the outbox is one there."""
    world = World(tmp_path, SPEC.replace("minimum_rows: 50,", "minimum_rows: 50, improvement: -1,"))
    world.times, world.events.away = 2, away
    world.upload("a.csv", rows(0))
    world.upload("empty.csv", b"")
    world.run()
    world.events.away = False
    world.outbox.flush()
    heard = world.events.heard
    ids = {(notice.type, notice.key) for notice in heard}
    assert Counter(kind for kind, _ in ids) == {
        "Ratchet.RunStarted": 1,
        "Ratchet.DataQuarantined": 1,
        "Ratchet.ModelRegistered": 1,
        "Ratchet.ModelPromoted": 1,
        "Ratchet.RunFinished": 1,
    }
    assert not away or len(heard) == len(ids)
    same = {(notice.type, notice.key, json.dumps(notice.data)) for notice in heard}
    assert len(same) == len(ids), "the same id tells the same"


def test_a_run_that_had_settled_before_it_failed_is_told_as_it_ended(tmp_path: Path) -> None:
    """Its event may not have been sent; and one run does not end in two ways."""
    world = World(tmp_path)
    world.upload("a.csv", rows(0))
    run = world.start()
    world.run(run)
    abandon(Finish(PIPELINE, run.run, run.started, "failed", "the answer was lost"), world.to)
    ends = {(notice.type, notice.data["outcome"]) for notice in world.events.heard if is_end(notice)}
    assert ends == {("Ratchet.RunFinished", "promoted")}


def test_a_run_that_vanished_is_told_to_have_failed(tmp_path: Path) -> None:
    world = World(tmp_path)
    for name in ("a.csv", "b.csv"):
        world.upload(name, rows(0))
    run = world.start()
    claim(run, world.to)
    assert free(look_over(PIPELINE, world.to).claims, world.to, hub="") == 2
    (end,) = {(notice.type, notice.key) for notice in world.events.heard if is_end(notice)}
    assert end == ("Ratchet.RunFailed", run.run)


def test_every_type_is_told_and_fits_its_schema(tmp_path: Path) -> None:
    always = SPEC.replace("minimum_rows: 50,", "minimum_rows: 50, improvement: -1,")
    world = World(tmp_path, always)
    for number in range(2):
        world.upload(f"{number}.csv", rows(10 * number))
        world.run()
    world.upload("empty.csv", b"")
    world.write_spec(always.replace("improvement: -1,", "improvement: 0.9,"))
    world.upload("2.csv", rows(20))
    assert world.run()["outcome"] == "kept"
    rollback(PIPELINE, None, who="ann", why="odd", to=world.to)
    reconcile(PIPELINE, world.to)
    world.write_spec(always + "promotion: approval\n")
    world.upload("3.csv", rows(30))
    record = world.run()
    decide(PIPELINE, record["run"], "reject", who="bob", why="no", to=world.to)
    failing = world.start()
    abandon(Finish(PIPELINE, failing.run, failing.started, "failed", "out of memory"), world.to)
    assert {notice.type for notice in world.events.heard} == set(get_args(EventType))
    ends = {notice.key: (notice.type, notice.data["outcome"]) for notice in world.events.heard if is_end(notice)}
    finished = "Ratchet.RunFinished"
    assert ends == {
        "run-1": (finished, "promoted"),
        "run-2": (finished, "promoted"),
        "run-3": (finished, "kept"),
        "run-4": (finished, "waiting"),
        "run-5": ("Ratchet.RunFailed", "failed"),
    }
    rejected = [notice.data for notice in world.events.heard if notice.type == "Ratchet.ModelRejected"]
    assert [(data["run"], data["version"], data["who"]) for data in rejected] == [
        ("run-3", 3, "run run-3"),
        ("run-4", 4, "bob"),
    ]
    assert len(ends) == sum(map(is_end, world.events.heard)), "one occasion, one event"
    for notice in world.events.heard:
        jsonschema.validate(cloud_event(notice), SCHEMA)


def test_the_schema_refuses_what_is_no_such_event() -> None:
    event = cloud_event(Notice("Ratchet.RunStarted", PIPELINE, "1", {"run": "1", "partitions": 1, "new": 1}))
    jsonschema.validate(event, SCHEMA)
    for spoiled in ({**event, "type": "Ratchet.Nothing"}, {**event, "data": {"run": "1"}}):
        assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(spoiled)
