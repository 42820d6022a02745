"""The pictures of a run, drawn once it is decided."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from activities.illustrate import illustrate
from activities.register import register
from activities.workspace import Workspace
from tests.activities.world import PIPELINE, World, rows

PICTURES = {"calibration", "feature_importance", "learning_curve", "precision_recall", "roc"}
SLICES: list[dict[str, Any]] = [
    {"column": "town", "value": "Ghent", "challenger": {"rows": 30, "auc": 0.75}, "champion": {"auc": 0.5}}
]


@pytest.fixture
def world(tmp_path: Any) -> World:
    world = World(tmp_path)
    world.upload("a.csv", rows(0))
    world.run()
    return world


def test_a_champion_and_slices_are_drawn_where_there_are_some(world: World) -> None:
    assert set(world.mlflow.pictures[1]) == {f"plots/{name}.png" for name in PICTURES}
    assert all(data.startswith(b"\x89PNG") for data in world.mlflow.pictures[1].values())
    world.upload("b.csv", rows(10))
    world.run()
    assert set(world.mlflow.pictures[2]) == {f"plots/{name}.png" for name in PICTURES | {"champion_against_challenger"}}
    workspace = Workspace(world.blobs, PIPELINE, "run-2")
    workspace.write("evaluation.json", {**workspace.read("evaluation.json"), "slices": SLICES})
    illustrate(replace(world.start(), run="run-2"), world.to)
    assert "plots/score_by_slice.png" in world.mlflow.pictures[2]


def test_a_version_that_shows_another_runs_judgement_keeps_its_pictures(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = world.start()
    world.mlflow.versions[0] = replace(world.mlflow.versions[0], run=again.run)
    monkeypatch.setattr("models.plots.draw.draw", lambda _: pytest.fail("they are not this run's"))
    illustrate(replace(again, run="run-1"), world.to)


def test_nothing_is_drawn_before_the_version_is_registered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.plots.draw.draw", lambda _: pytest.fail("it is not the time yet"))
    register(replace(world.start(), run="run-1"), world.to)
