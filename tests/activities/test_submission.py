"""What the registry is told about a run."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from activities.contracts import RunRef
from activities.submission import make_submission
from activities.workspace import Workspace
from adapters.registry import DataSource, Submission
from tests.activities.world import PIPELINE, World, rows


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two runs, the second with a champion to compare with."""
    world = World(tmp_path_factory.mktemp("pipelines"))
    world.upload("a.csv", rows(0))
    world.run()
    world.upload("b.csv", rows(10))
    world.run()
    return world


@pytest.fixture(scope="module")
def first(world: World) -> Submission:
    return world.mlflow.versions[0]


@pytest.fixture(scope="module")
def second(world: World) -> Submission:
    return world.mlflow.versions[1]


def table(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode())))


def test_curves_have_a_value_for_each_round(first: Submission) -> None:
    training, validation = first.curves["training_binary_logloss"], first.curves["validation_binary_logloss"]
    assert len(training) == len(validation) >= int(first.parameters["best_iteration"])
    assert training[0] > training[-1]
    assert min(validation) == validation[int(first.parameters["best_iteration"]) - 1]


def test_lineage_names_every_partition_with_its_etag_and_rows(world: World, second: Submission) -> None:
    uploaded = [DataSource(info.path, info.etag, 600) for info in world.blobs.list("training/")]
    assert second.sources == sorted(uploaded, key=lambda source: source.path)
    listed = table(second.files()["lineage/partitions.csv"])
    assert [(row["path"], row["etag"], int(row["rows"])) for row in listed] == [
        (source.path, source.etag, source.rows) for source in second.sources
    ]
    assert (listed[0]["from"], listed[1]["to"]) == (second.tags["ratchet.data_from"], second.tags["ratchet.data_to"])


def test_the_example_has_no_row_of_the_data(world: World, first: Submission) -> None:
    uploaded = table(world.blobs.get(f"training/{PIPELINE}/a.csv").data)
    sent = {(float(row["price"]), row["town"]) for row in uploaded}
    example = list(zip(first.example["price"], first.example["town"], strict=True))
    assert len(example) == 3
    assert not sent & set(example)
    assert {row["town"] for row in uploaded} >= set(first.example["town"])


def test_the_files_say_what_it_was_made_with(first: Submission) -> None:
    files = first.files()
    assert files["spec.yaml"].decode().strip().startswith("name: shops")
    assert "lightgbm==" in files["environment.txt"].decode()


def test_a_champion_is_compared_with(second: Submission) -> None:
    assert second.metrics["champion/auc"] > 0.5
    assert second.metrics["gain/value"] == pytest.approx(second.metrics["auc"] - second.metrics["champion/auc"])
    assert "this version   champion then (version 1)\n" in second.description


def test_the_description_says_why_from_what_and_how_to_ask(first: Submission) -> None:
    text = first.description
    assert text.startswith("Promoted: AUC ")
    assert ["AUC", f"{first.metrics['auc']:.4f}"] in [line.split() for line in text.splitlines()]
    assert "600 rows of 1 file, from 2026-01-01 to 2026-01-10." in text
    assert 'mlflow.pyfunc.load_model("models:/shops@champion")' in text
    assert "`price` (number), `town` (category)" in text
    code = text.partition("```python\n")[2].partition("```")[0]
    compile(code, "the description", "exec")


SLICES: list[dict[str, Any]] = [
    {"column": "town", "value": "Ghent/<é>", "challenger": {"rows": 30, "auc": 0.75}, "champion": {"auc": 0.5}},
    {"column": "town", "value": "", "challenger": {"rows": 3, "auc": None}, "champion": None},
]


def test_slices_are_told_where_the_evaluation_has_them(world: World) -> None:
    workspace = Workspace(world.blobs, PIPELINE, "run-2")
    evaluation = workspace.read("evaluation.json")
    workspace.write("evaluation.json", {**evaluation, "slices": SLICES})
    try:
        submitted = _again(world, RunRef(PIPELINE, "run-2", "2026-01-02T03:04:05+00:00"))
        files = submitted.files()
    finally:
        workspace.write("evaluation.json", evaluation)
    assert submitted.metrics["slice_auc/town: Ghent____"] == 0.75
    assert "slice_auc/town: missing" not in submitted.metrics
    assert table(files["slices.csv"])[0] == {
        "column": "town",
        "value": "Ghent/<é>",
        "rows": "30",
        "auc": "0.75",
        "champion auc": "0.5",
    }


def _again(world: World, run: RunRef) -> Submission:
    workspace = Workspace(world.blobs, PIPELINE, run.run)
    exported = workspace.read("export.json")
    return make_submission(
        run, workspace, exported, world.blobs.get(workspace.challenger_path(exported["sha256"])).data
    )
