"""Whole runs on fakes: what a user sees in the record, the ledger, the registry and the pointer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from activities.contracts import MAX_PAYLOAD_BYTES, Finish, ItemRef, RetrainRequest
from activities.live import read_champion
from activities.settle import abandon
from activities.sweep import look_over
from activities.uploads import claim, look
from activities.validate import validate
from adapters.blobs import MAX_NAME_CHARACTERS
from adapters.ledger import MAX_ATTEMPTS
from adapters.registry import VersionTaken
from models.folds import folds
from serving.service import InferenceService
from tests.activities.world import PIPELINE, SPEC, TOWNS, World, rows


@pytest.fixture
def world(tmp_path: Path) -> World:
    pipelines = tmp_path / "pipelines"
    pipelines.mkdir()
    return World(pipelines)


def test_the_first_upload_becomes_the_champion(world: World, tmp_path: Path) -> None:
    path = world.upload("a.csv", rows(0))
    record = world.run()
    assert record["outcome"] == "promoted", record["sentence"]
    assert record["champion"] is None
    assert record["challenger"]["version"] == 1
    assert record["judged_rows"] == 121  # two days of sixty rows, and the newest row's own moment
    assert [(p["path"], p["state"], p["rows"], p["rejected"]) for p in record["partitions"]] == [
        (path, "included", 600, 0)
    ]
    assert world.ledger.state(path) == "included"
    assert world.mlflow.alias == {"challenger": 1, "champion": 1}
    service = InferenceService(world.blobs, tmp_path / "cache", 0.0, lambda: (PIPELINE,))
    assert service.predict(PIPELINE, b'{"price": 10, "town": "Ghent"}').status == 200


def test_more_data_is_judged_against_the_champion_on_rows_neither_has_seen(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    world.upload("b.csv", rows(10))
    record = world.run()
    assert record["champion"]["version"] == 1
    assert record["challenger"]["version"] == 2
    gain = record["decision"]["gain"]
    figures = [record[model]["metrics"]["auc"] for model in ("challenger", "champion")]
    assert gain["value"] == pytest.approx(figures[0] - figures[1])
    assert record["outcome"] == ("promoted" if gain["lower"] > 0 else "kept")


def test_rows_that_taught_the_champion_do_not_judge_it(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    # The last five of ten days are held out now; the first model was taught with all but the last two.
    world.write_spec(SPEC.replace("holdout: {days: 2}", "holdout: {days: 5}"))
    two_days = 121
    assert world.run()["judged_rows"] == two_days
    # Nor do rows of a file that was only uploaded again.
    world.upload("a.csv", rows(0) + b"\n")
    assert world.run()["judged_rows"] == two_days


@pytest.mark.parametrize(
    "columns",
    ["  town: category\n  price: {type: number, minimum: 0}\n", "  price: number\n  town: category\n  floor: number\n"],
)
def test_the_champion_is_compared_whatever_the_order_and_company_of_its_columns(world: World, columns: str) -> None:
    header, *lines = rows(0).splitlines()
    wider = b"\n".join([header + b",floor", *(line + b",%d" % (number % 7) for number, line in enumerate(lines))])
    world.upload("a.csv", rows(0))
    world.run()
    world.write_spec(SPEC.replace("  price: {type: number, minimum: 0}\n  town: category\n", columns))
    world.upload("a.csv", wider)
    record = world.run()
    assert record["champion"]["version"] == 1, record["sentence"]


def test_a_champion_that_cannot_be_compared_is_named(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    world.write_spec(SPEC.replace("  town: category\n", ""))
    world.upload("b.csv", rows(10))
    record = world.run()
    assert record["champion"] is None
    expected = "the champion (version 1) cannot be compared: it reads town, which the pipeline no longer has"
    assert expected in record["sentence"]


@pytest.mark.parametrize(
    ("classes", "compared"),
    [
        ("negative: sold, positive: kept", False),
        ("negative: sold, positive: bought", False),
        ("negative: stays, positive: kept", False),
        ("negative: stays, positive: sold", True),
        ("negative: stays, positive: goes", True),
    ],
)
def test_a_champion_of_the_opposite_is_not_compared(world: World, classes: str, compared: bool) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    world.write_spec(SPEC.replace("negative: kept, positive: sold", classes))
    world.upload("b.csv", rows(10))
    record = world.run()
    assert (record["champion"] is not None) == compared, record["sentence"]


def test_a_challenger_that_learnt_nothing_is_registered_and_not_promoted(world: World) -> None:
    world.upload("a.csv", rows(0, days=20, per_day=120))
    world.run()
    world.upload("b.csv", rows(20, days=40, noise=1.0, per_day=200))
    record = world.run()
    assert record["outcome"] == "kept"
    assert "The champion stays" in record["sentence"]
    assert world.mlflow.alias == {"challenger": 2, "champion": 1}
    assert world.mlflow.versions[1].tags["ratchet.decision"] == "rejected"
    manifests = [world.read(f"models/{PIPELINE}/versions/{version}/model.json") for version in (1, 2)]
    assert [manifest["rejected"] for manifest in manifests] == [False, True]
    champion = read_champion(world.blobs, PIPELINE)
    assert champion is not None
    assert champion.pointer.champion.version == 1


def test_a_version_shows_what_the_latest_run_decided_about_it(world: World) -> None:
    world.upload("a.csv", rows(0, days=20, per_day=120))
    world.run()
    world.upload("b.csv", rows(20, days=40, noise=1.0, per_day=200))
    assert dies_before_it_settles(world).startswith("The champion stays: ")
    assert world.mlflow.tags[2, "ratchet.decision"] == "rejected"
    world.blobs.delete(f"models/{PIPELINE}/live.json")
    record = world.run()
    assert (record["challenger"]["version"], record["outcome"]) == (2, "kept"), "without a champion its AUC is too low"
    assert world.mlflow.versions[1].run == "run-3"
    assert world.mlflow.versions[1].description.startswith("Not promoted: ")


def dies_before_it_settles(world: World) -> str:
    """A run whose claims are given back, so that another one has the same dataset; what it would have said."""
    run = world.start()
    _, sentence = world.steps(run)
    abandon(Finish(PIPELINE, run.run, run.started, "failed", "out of memory"), world.to)
    return sentence


def test_of_the_champion_itself_another_run_decides_nothing(world: World) -> None:
    world.upload("a.csv", rows(0))
    dies_before_it_settles(world)
    assert world.run()["challenger"]["version"] == 1
    assert world.mlflow.tags[1, "ratchet.decision"] == "promoted"
    assert world.mlflow.versions[0].run == "run-1"
    assert world.mlflow.versions[0].description.startswith("Promoted: ")


def test_the_registry_has_what_the_record_says_of_time_and_cost(world: World) -> None:
    world.upload("a.csv", rows(0))
    record = world.run()
    assert record["steps"]
    for step in record["steps"]:
        assert world.mlflow.measures[1, f"step_seconds/{step['name']}"] == step["seconds"]
        assert world.mlflow.measures[1, f"step_gb_seconds/{step['name']}"] == step["gb_seconds"]
    assert world.mlflow.measures[1, "cost/gb_seconds"] == record["cost"]["gb_seconds"]


def test_a_registry_that_is_away_when_a_run_settles_ends_no_run(world: World) -> None:
    world.upload("a.csv", rows(0))
    run = world.start()
    outcome, sentence = world.steps(run)
    world.mlflow.away = True
    world.settle(run, outcome, sentence)
    assert world.read(f"runs/{PIPELINE}/{run.run}.json")["outcome"] == "promoted"


BAD_FILES = {
    "corrupt.parquet": b"PAR1 but then nothing",
    "no-price.csv": b"at,sold,town\n2026-01-01T00:00:00Z,1,Ghent\n",
    "picture.png": b"\x89PNG\r\n",
    "empty.csv": b"",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_goes_to_quarantine_and_the_run_goes_on(world: World, name: str) -> None:
    world.upload("a.csv", rows(0))
    path = world.upload(name, BAD_FILES[name])
    record = world.run()
    assert record["outcome"] == "promoted", record["sentence"]
    (bad,) = [partition for partition in record["partitions"] if partition["path"] == path]
    assert bad["state"] == "quarantined"
    assert name in bad["reason"]
    assert name in world.blobs.get(bad["report"]).data.decode()
    assert f"{bad['report'].rpartition('/')[0]}/{name}" in world.blobs.paths("quarantine/")
    assert world.ledger.state(path) == "quarantined"
    assert "Ratchet.DataQuarantined" in [notice.type for notice in world.events.heard]


@pytest.mark.parametrize("folders", ["", "y/" * 250])
def test_a_bad_file_with_the_longest_of_names_stops_nobody(world: World, folders: str) -> None:
    """Its copy lies below a longer name than its own, and storage has a limit."""
    world.upload("a.csv", rows(0))
    name = f"{folders}{'x' * (MAX_NAME_CHARACTERS - len(f'{PIPELINE}/{folders}.csv'))}.csv"
    paths = [world.upload(name.replace("x", letter, 1), b"nonsense") for letter in "ab"]
    record = world.run()
    assert record["outcome"] == "promoted", record["sentence"]
    reports = {entry["path"]: entry["report"] for entry in record["partitions"] if entry["path"] in paths}
    assert len(set(reports.values())) == 2
    for path, report in reports.items():
        assert path in world.blobs.get(report).data.decode()
        assert any(other.endswith("x.csv") for other in world.blobs.paths(report.removesuffix("report.md")))


@pytest.mark.parametrize("name", ["rows.parquet", "report.json"])
def test_a_bad_file_named_as_what_is_set_aside_is_kept_beside_it(world: World, name: str) -> None:
    """Somebody uploads what was in quarantine."""
    world.upload("a.csv", rows(0))
    path = world.upload(name, b"nonsense")
    record = world.run()
    (bad,) = [partition for partition in record["partitions"] if partition["path"] == path]
    folder = bad["report"].removesuffix("report.md")
    assert world.blobs.get(f"{folder}upload-{name}").data == b"nonsense"
    assert world.read(f"{folder}report.json")["file"] == path


def test_a_file_that_is_too_large_is_not_even_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.validate.MAX_FILE_BYTES", 100_000)
    world.upload("a.csv", rows(0))
    path = world.upload("large.csv", b"x" * 100_001)
    record = world.run()
    assert {p["path"]: p["state"] for p in record["partitions"]}[path] == "quarantined"
    assert f"training/{path}" not in world.blobs.reads


def test_only_bad_files_leave_the_champion_alone(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    world.upload("empty.csv", b"")
    record = world.run()
    assert record["outcome"] == "nothing_to_do"
    assert len(world.mlflow.versions) == 1


def test_one_row_in_the_future_does_not_become_the_holdout(world: World) -> None:
    world.upload("a.csv", rows(0) + b"2031-01-01T00:00:00Z,1,5,Ghent\n")
    record = world.run()
    assert record["outcome"] == "promoted", record["sentence"]
    assert record["partitions"][0]["rejected"] == 1


@pytest.mark.parametrize("parameters", ["num_leaves: 1", "num_leaves: many"])
def test_parameters_that_lightgbm_refuses_end_the_run_with_its_reason(world: World, parameters: str) -> None:
    path = world.upload("a.csv", rows(0))
    world.write_spec(SPEC.replace("num_leaves: 7", parameters))
    record = world.run()
    assert record["outcome"] == "failed"
    assert "LightGBM refuses training.parameters" in record["sentence"]
    assert world.ledger.state(path) == "included"
    world.write_spec(SPEC)
    assert world.run()["outcome"] == "promoted"


def test_bad_rows_are_set_aside_with_a_report(world: World) -> None:
    data = rows(0).replace(b",Ghent\n", b",Ghent\n", 1) + b"2026-01-05T00:00:00+00:00,1,cheap,Ghent\n"
    world.upload("a.csv", data)
    record = world.run()
    (partition,) = record["partitions"]
    assert (partition["rows"], partition["rejected"]) == (600, 1)
    assert "cheap" in world.blobs.get(partition["report"]).data.decode()
    folder = partition["report"].rpartition("/")[0]
    aside = pl.read_parquet(world.blobs.get(f"{folder}/rows.parquet").data)
    assert aside["__row"].to_list() == [601]
    assert "cheap" in aside["__reason"][0]
    assert world.read(f"{folder}/report.json")["rejected"] == 1
    (told,) = [notice for notice in world.events.heard if notice.type == "Ratchet.DataQuarantined"]
    assert told.data["reason"] == "1 of 601 rows cannot be used"


def test_the_bad_rows_of_a_file_that_has_too_many_are_named_one_by_one(world: World) -> None:
    world.upload("a.csv", rows(0))
    path = world.upload("b.csv", rows(10).replace(b",Ghent", b",Ghent,1"))
    record = world.run()
    (bad,) = [partition for partition in record["partitions"] if partition["path"] == path]
    assert bad["state"] == "quarantined"
    aside = pl.read_parquet(world.blobs.get(f"{bad['report'].rpartition('/')[0]}/rows.parquet").data)
    assert aside.height > 100
    assert aside["__reason"].null_count() == 0


def test_a_mended_file_under_the_same_name_just_works(world: World) -> None:
    world.upload("a.csv", b"nonsense")
    assert world.run()["outcome"] == "nothing_to_do"
    path = world.upload("a.csv", rows(0))
    assert world.run()["outcome"] == "promoted"
    assert world.ledger.state(path) == "included"


def test_a_deleted_blob_leaves_the_next_dataset(world: World) -> None:
    world.upload("a.csv", rows(0))
    path = world.upload("b.csv", rows(10))
    world.run()
    world.ledger.forget(PIPELINE, path, sequencer="", now=world.to.now())
    world.upload("c.csv", rows(20))
    world.run()
    manifest = world.read(f"models/{PIPELINE}/versions/2/model.json")
    assert [partition["path"] for partition in manifest["lineage"]["partitions"]] == ["shops/a.csv", "shops/c.csv"]


def test_a_second_run_reads_only_what_is_new(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    world.upload("b.csv", rows(10))
    world.blobs.reads.clear()
    world.run()
    assert [path for path in world.blobs.reads if path.startswith("training/")] == ["training/shops/b.csv"]


def test_a_blob_overwritten_after_the_claim_waits_for_the_next_run(world: World) -> None:
    world.upload("a.csv", rows(0))
    path = world.upload("b.csv", rows(10))
    run = world.start()
    claimed = claim(run, world.to)
    world.blobs.put(f"training/{path}", rows(10, seed=1))
    world.fan_out(validate, run, claimed.todo)
    record = world.run(run)
    assert [partition["state"] for partition in record["partitions"]] == ["included", "gone"]
    assert world.ledger.state(path) == "pending"


def test_a_claim_that_is_made_again_late_does_not_touch_what_others_work_on(world: World) -> None:
    """A worker that was taken for dead may still be at it."""
    world.upload("a.csv", rows(0))
    run = world.start()
    claimed = claim(run, world.to)
    world.fan_out(validate, run, 1)
    late = world.upload("b.csv", rows(10))
    assert claim(run, world.to) == claimed
    record = world.after_claim(run, claimed)
    assert record[0] == "promoted"
    assert world.ledger.state(late) == "pending"


def test_every_activity_may_run_twice(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    twin = World(other)
    twin.times = 2
    for each in (world, twin):
        each.upload("a.csv", rows(0))
        each.run()
        each.upload("b.csv", rows(10))
        each.run()
    assert len(twin.mlflow.versions) == 2
    assert twin.mlflow.alias == world.mlflow.alias
    for version in (1, 2):
        manifest, expected = (w.read(f"models/{PIPELINE}/versions/{version}/model.json") for w in (twin, world))
        assert manifest["model_sha256"] == expected["model_sha256"]


def test_no_payload_is_larger_than_the_contract_says(world: World) -> None:
    for number in range(150):
        world.upload(f"part-{number:04d}-{'x' * 100}.csv", rows(number % 20, days=1, seed=number, per_day=20))
    world.upload(f"{'y' * 200}.csv", b"nonsense")
    world.run()
    assert world.payloads
    assert max(len(json.dumps(payload)) for payload in world.payloads) <= MAX_PAYLOAD_BYTES


def test_a_column_with_too_many_categories_sends_the_file_to_quarantine(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.profiles.MAX_DISTINCT_CATEGORIES", 3)
    world.upload("a.csv", rows(0))
    record = world.run()
    (partition,) = record["partitions"]
    assert partition["state"] == "quarantined"
    assert "town" in partition["reason"]


def test_forcing_trains_again_without_new_data(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    assert world.run()["outcome"] == "nothing_to_do"
    assert world.run(world.start(force=True))["outcome"] == "kept"


def test_a_changed_spec_is_news_although_the_data_is_not(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    world.write_spec(SPEC.replace("rounds: 40", "rounds: 41"))
    assert world.run()["outcome"] in {"promoted", "kept"}


def test_a_stored_version_that_is_damaged_is_not_promoted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    pointer = world.read(f"models/{PIPELINE}/live.json")
    world.upload("b.csv", rows(10))
    put = world.blobs.put

    def damaging(path: str, data: bytes, **options: Any) -> str:
        return put(path, b"damaged" if path.endswith("/2/model.onnx") else data, **options)

    monkeypatch.setattr(world.blobs, "put", damaging)
    world.write_spec(SPEC.replace("gate: {", "gate: {improvement: -1, "))
    record = world.run()
    assert record["outcome"] == "failed"
    assert "version 2 does not prove itself" in record["sentence"]
    assert world.read(f"models/{PIPELINE}/live.json") == pointer
    assert world.events.heard[-1].type == "Ratchet.RunFailed"


def test_a_version_is_never_written_over(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    before = world.blobs.get(f"models/{PIPELINE}/versions/1/model.onnx")
    world.mlflow.versions.clear()
    world.upload("b.csv", rows(10))
    with pytest.raises(VersionTaken, match="storage has that one, of run run-1"):
        world.run()
    assert world.blobs.get(f"models/{PIPELINE}/versions/1/model.onnx") == before


def test_a_run_that_was_settled_is_not_called_a_failure_afterwards(world: World) -> None:
    world.upload("a.csv", rows(0))
    run = world.start()
    record = world.run(run)
    abandon(Finish(PIPELINE, run.run, run.started, "failed", "the answer was lost"), world.to)
    assert world.read(f"runs/{PIPELINE}/{run.run}.json") == record


def test_what_befell_the_whole_run_is_not_held_against_the_data(world: World) -> None:
    path = world.upload("a.csv", rows(0))
    for _ in range(MAX_ATTEMPTS + 1):
        run = world.start()
        claimed = claim(run, world.to)
        world.fan_out(validate, run, claimed.todo)
        assert abandon(Finish(PIPELINE, run.run, run.started, "failed", "the registry is away"), world.to).pending == 1
    assert world.ledger.state(path) == "pending"
    assert world.read(f"runs/{PIPELINE}/{run.run}.json")["sentence"] == "the registry is away"
    assert world.run()["outcome"] == "promoted"


def test_what_runs_fail_over_again_and_again_is_set_aside_with_a_report(world: World) -> None:
    path, poison = world.upload("a.csv", rows(0)), world.upload("poison.csv", rows(10))
    for attempt in range(1, MAX_ATTEMPTS + 1):
        run = world.start()
        claim(run, world.to)
        if attempt == 1:
            world.call(validate, ItemRef(run.pipeline, run.run, 0, 0))
        settled = abandon(Finish(PIPELINE, run.run, run.started, "failed", "the worker died"), world.to)
        assert settled.pending == (2 if attempt < MAX_ATTEMPTS else 1)
    assert (world.ledger.state(path), world.ledger.state(poison)) == ("pending", "failed")
    (report,) = [text for text in world.blobs.paths("quarantine/shops/poison.csv") if text.endswith(".md")]
    assert "the worker died" in world.blobs.get(report).data.decode()
    assert "Ratchet.DataQuarantined" in [notice.type for notice in world.events.heard]
    record = world.run()
    assert [partition["path"] for partition in record["partitions"]] == [path]
    assert world.upload("poison.csv", rows(10, seed=1)) == poison
    assert [partition["path"] for partition in world.run()["partitions"]] == [poison]


def test_a_label_that_cannot_be_made_of_some_rows_sends_their_file_to_quarantine(world: World) -> None:
    world.write_spec(SPEC.replace("label: {column: sold,", 'label: {expression: "CAST(town AS INT) > 2",'))
    numbered = rows(0)
    for number, town in enumerate(TOWNS, start=1):
        numbered = numbered.replace(town.encode(), str(number).encode())
    good = world.upload("a.csv", numbered)
    bad = world.upload("b.csv", rows(10))
    record = world.run()
    states = {partition["path"]: partition["state"] for partition in record["partitions"]}
    assert states == {good: "included", bad: "quarantined"}


def test_an_archived_blob_goes_to_quarantine_with_a_report(world: World) -> None:
    world.upload("a.csv", rows(0))
    path = world.upload("old.csv", rows(10))
    world.blobs.archived.add(f"training/{path}")
    record = world.run()
    (old,) = [partition for partition in record["partitions"] if partition["path"] == path]
    assert old["state"] == "quarantined"
    assert "archive tier" in world.blobs.get(old["report"]).data.decode()


def test_a_changed_data_contract_judges_everything_again(world: World) -> None:
    below_zero = rows(10).replace(b",9", b",-9").replace(b",8", b",-8").replace(b",7", b",-7")
    dear, cheap = world.upload("dear.csv", rows(0)), world.upload("cheap.csv", below_zero)
    world.run()
    assert (world.ledger.state(dear), world.ledger.state(cheap)) == ("included", "quarantined")
    world.write_spec(SPEC.replace("price: {type: number, minimum: 0}", "price: {type: number, minimum: -1000}"))
    record = world.run()
    assert [partition["path"] for partition in record["partitions"]] == [cheap, dear]
    assert (world.ledger.state(dear), world.ledger.state(cheap)) == ("included", "included")
    world.write_spec(SPEC)
    record = world.run()
    assert (world.ledger.state(dear), world.ledger.state(cheap)) == ("included", "quarantined")
    assert world.run()["partitions"] == []


@pytest.mark.parametrize("away", [True, False])
def test_a_topic_that_is_away_changes_nothing(world: World, *, away: bool) -> None:
    world.events.away = away
    world.upload("a.csv", rows(0))
    world.upload("empty.csv", b"")
    assert world.run()["outcome"] == "promoted"


def test_looking_tells_what_is_wrong_with_the_pipelines_file(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.write_spec(SPEC.replace("rounds: 40", "rounds: forty"))
    uploads = look(RetrainRequest(PIPELINE), world.to)
    assert uploads.pending == 0
    assert "shops.yaml:" in uploads.problem
    assert "rounds" in uploads.problem


def test_looking_tells_how_long_uploads_have_waited(world: World) -> None:
    assert look(RetrainRequest(PIPELINE), world.to).pending == 0
    world.upload("a.csv", rows(0))
    world.upload("b.csv", rows(10))
    uploads = look(RetrainRequest(PIPELINE), world.to)
    assert uploads.pending == 2
    assert uploads.oldest < uploads.newest


@pytest.mark.parametrize("reverse", [False, True])
def test_the_order_of_uploads_and_the_number_of_threads_do_not_change_the_model(
    world: World, tmp_path: Path, reverse: bool
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    twin = World(other)
    object.__setattr__(twin.to, "threads", 2)
    names = [f"{day:02d}.csv" for day in range(0, 20, 5)]
    for each, order in ((world, names), (twin, names[::-1] if reverse else names)):
        for name in order:
            each.upload(name, rows(int(name[:2]), days=5, per_day=100))
        each.run()
    shas = {w.read(f"models/{PIPELINE}/versions/1/model.json")["model_sha256"] for w in (world, twin)}
    assert len(shas) == 1


def _training_rows(world: World) -> int:
    return int(world.mlflow.versions[-1].parameters["training_rows"])


@pytest.mark.parametrize(("window", "days"), [("{partitions: 2}", 20 - 2), ("{days: 5}", 5), ("{}", 40 - 2)])
def test_a_window_limits_what_teaches(world: World, window: str, days: int) -> None:
    world.write_spec(f"{SPEC}window: {window}\n")
    for day in range(0, 40, 10):
        world.upload(f"{day:02d}.csv", rows(day))
    record = world.run()
    assert record["outcome"] == "promoted", record["sentence"]
    # A tenth of the rows only stops training.
    assert _training_rows(world) == pytest.approx(days * 60 * 0.9, rel=0.1)
    lineage = world.read(f"models/{PIPELINE}/versions/1/model.json")["lineage"]
    assert len(lineage["partitions"]) == {"{partitions: 2}": 2, "{days: 5}": 1, "{}": 4}[window]


def test_a_file_from_before_the_window_changes_nothing(world: World) -> None:
    world.write_spec(f"{SPEC}window: {{partitions: 1}}\n")
    world.upload("b.csv", rows(10))
    world.run()
    path = world.upload("a.csv", rows(0))
    record = world.run()
    assert record["outcome"] == "nothing_to_do"
    assert "no row within the pipeline's window" in record["sentence"]
    assert world.ledger.state(path) == "included"
    assert (world.mlflow.alias["champion"], len(world.mlflow.versions)) == (1, 1)
    # It is remembered as judged, so that no sweep asks for it again; a run that is asked for is made all the same.
    assert not look_over(PIPELINE, world.to).stale
    assert world.run(world.start(force=True))["outcome"] == "kept"


HASHED = SPEC.replace("holdout: {days: 2}", "holdout: {by: hash, fraction: 0.25}")
GROUPED = SPEC.replace("holdout: {days: 2}", "holdout: {by: group, column: shop, fraction: 0.5}").replace(
    "  town: category\n", "  town: category\n  shop: text\n"
)


def with_shops(data: bytes) -> bytes:
    header, *lines = data.splitlines()
    return b"\n".join([header + b",shop", *(line + b",S%d" % (number % 60) for number, line in enumerate(lines))])


def replace_upload(world: World, old: str, new: str, data: bytes) -> None:
    world.blobs.delete(f"training/{PIPELINE}/{old}")
    world.ledger.forget(PIPELINE, f"{PIPELINE}/{old}", sequencer="", now=world.to.now())
    world.upload(new, data)


def test_a_renamed_file_is_the_one_that_taught_the_champion(world: World) -> None:
    world.write_spec(HASHED)
    data = rows(0)
    world.upload("a.csv", data)
    world.run()

    replace_upload(world, "a.csv", "b.csv", data)
    world.upload("new.csv", rows(10, days=4, seed=2))
    record = world.run()

    assert record["judged_rows"] == (folds(f"{PIPELINE}/new.csv", 4 * 60) < 0.25).sum()
    assert "holdout rows did not teach the champion" in record["decision"]["warnings"][0]


def test_files_that_were_put_together_anew_are_warned_about(world: World) -> None:
    world.write_spec(HASHED)
    data = rows(0)
    world.upload("a.csv", data)
    world.run()

    replace_upload(world, "a.csv", "whole.csv", data + rows(10, days=4, seed=2).partition(b"\n")[2])
    record = world.run()

    assert "files with 600 rows that taught the champion are no longer there" in " ".join(
        record["decision"]["warnings"]
    )


def test_rows_held_out_by_hash_judge_both_models_and_others_neither(world: World) -> None:
    world.write_spec(HASHED)
    world.upload("a.csv", rows(0))
    first = world.run()
    assert first["judged_rows"] == pytest.approx(150, abs=40)
    # More is held out now; of the file that the champion saw, only what it held out counts.
    world.write_spec(HASHED.replace("0.25", "0.5"))
    wider = world.run()
    assert wider["champion"]["version"] == 1
    assert wider["judged_rows"] == first["judged_rows"]
    if wider["outcome"] == "kept":
        # A file that the champion never saw counts as it is held out now.
        world.upload("b.csv", rows(10))
        assert world.run()["judged_rows"] == pytest.approx(first["judged_rows"] + 300, abs=60)


def test_a_file_that_is_uploaded_again_may_have_its_rows_in_other_places(world: World) -> None:
    world.write_spec(HASHED)
    world.upload("a.csv", rows(0))
    world.run()
    world.upload("a.csv", rows(0) + b"\n")
    record = world.run()
    assert record["judged_rows"] == 0
    assert record["decision"]["warnings"][0].endswith("holdout rows taught the champion and do not count; 0 remain")


def test_groups_are_held_out_as_a_whole(world: World) -> None:
    world.write_spec(GROUPED)
    world.upload("a.csv", with_shops(rows(0)))
    first = world.run()
    assert first["judged_rows"] % 10 == 0
    assert 0 < first["judged_rows"] < 600
    world.upload("b.csv", with_shops(rows(10)))
    second = world.run()
    assert second["judged_rows"] == 2 * first["judged_rows"]
    # The same groups are held out of a file that is uploaded again.
    world.upload("a.csv", with_shops(rows(0)) + b"\n")
    assert world.run(world.start(force=True))["judged_rows"] == second["judged_rows"]


def test_a_graph_that_answers_otherwise_fails_the_run_with_the_row(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models import parity

    monkeypatch.setitem(parity.TOLERANCES, "exact", -1.0)
    world.upload("a.csv", rows(0))
    record = world.run()
    assert record["outcome"] == "failed"
    assert "of the row price=" in record["sentence"]
    assert world.mlflow.versions == []


def test_a_filter_and_its_count_are_in_the_record(world: World) -> None:
    world.write_spec(f"{SPEC}filter: price > 20\n")
    world.upload("a.csv", rows(0))
    (partition,) = world.run()["partitions"]
    assert partition["left_out"] > 50
    assert partition["left_out"] + partition["rows"] == 600


def test_features_computed_in_another_way_do_not_read_uploads_again(world: World) -> None:
    world.upload("a.csv", rows(0))
    world.run()
    world.blobs.reads.clear()
    world.write_spec(f"{SPEC}features: [{{column: price, clip: [5, 90]}}, town]\n")
    assert world.run()["outcome"] in {"promoted", "kept"}
    assert not [path for path in world.blobs.reads if path.startswith("training/")]
