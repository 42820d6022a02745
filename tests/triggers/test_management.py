"""What `/api/pipelines` tells, with storage in memory."""

from __future__ import annotations

from typing import Any

import pytest

from adapters.blobs import BlobNotFound
from tests.activities.world import PIPELINE, World, rows
from triggers import management


def test_a_pipeline_before_its_first_run(world: World) -> None:
    stored = management._stored(PIPELINE)
    assert stored["champion"] is None
    assert stored["last_run"] is None
    assert set(stored["partitions"].values()) == {0}


def test_a_pipeline_after_its_first_run(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.upload("b.csv", b"")
    record = world.run()
    stored = management._stored(PIPELINE)
    assert (stored["champion"]["version"], stored["champion"]["run"]) == (1, record["run"])
    assert (stored["partitions"]["included"], stored["partitions"]["quarantined"]) == (1, 1)
    assert stored["last_run"]["sentence"] == record["sentence"]
    assert management._record(PIPELINE, record["run"]) == record


def test_an_unknown_run_is_named(world: World) -> None:
    with pytest.raises(BlobNotFound, match="there is no finished run 'x' of shops"):
        management._record(PIPELINE, "x")


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ({"runtime": "Completed", "output": {"outcome": "promoted", "sentence": "Better."}}, None),
        ({"runtime": "Completed", "output": None}, None),
        ({"runtime": "Terminated", "output": "by hand"}, None),
        ({"runtime": "Completed", "output": {"outcome": "failed", "sentence": "shops.yaml:3: no"}}, "shops.yaml:3: no"),
        ({"runtime": "Failed", "output": "boom\nTraceback"}, "boom Traceback"),
    ],
)
def test_the_problem_of_the_latest_attempt(status: dict[str, Any], problem: str | None) -> None:
    assert management._problem(status) == problem
