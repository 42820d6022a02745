"""Every event that is told is what docs/events.schema.json says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema

from activities.contracts import Finish
from activities.reconcile import reconcile
from activities.rollback import rollback
from activities.settle import abandon
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
    for notice in world.events.heard:
        jsonschema.validate(cloud_event(notice), SCHEMA)


def test_the_schema_refuses_what_is_no_such_event() -> None:
    event = cloud_event(Notice("Ratchet.RunStarted", PIPELINE, "1", {"run": "1", "partitions": 1, "new": 1}))
    jsonschema.validate(event, SCHEMA)
    for spoiled in ({**event, "type": "Ratchet.Nothing"}, {**event, "data": {"run": "1"}}):
        assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(spoiled)
