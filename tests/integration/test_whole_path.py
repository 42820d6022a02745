"""From an uploaded file to a prediction, on the real parts; and the same with everything killed on the way."""

from __future__ import annotations

import json
import os
import signal

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from tests.activities.world import rows
from tests.integration.shop import Shop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
ROW = {"price": 10.0, "town": "Ghent"}
UNDER_WAY = ("claim", "validate", "profile", "features", "train", "export", "evaluate", "gate", "register")


def _versions(shop: Shop) -> list[int]:
    client = MlflowClient(shop.stack.mlflow_url, shop.stack.mlflow_url)
    return sorted(int(version.version) for version in client.search_model_versions(f"name = '{shop.name}'"))


@pytest.mark.pipeline("path")
def test_an_upload_becomes_the_model_that_answers(shop: Shop) -> None:
    early = shop.predict(ROW)
    assert early.status == 503
    assert int(early.headers["retry-after"]) > 0
    assert "no model yet" in early.body["error"]["message"]

    path = shop.upload("a.csv", rows(0))
    record = shop.record_of(path)
    assert record["outcome"] == "promoted", record["sentence"]
    assert [step["name"] for step in record["steps"]][:3] == ["quiet", "claim", "validate"]

    client = MlflowClient(shop.stack.mlflow_url, shop.stack.mlflow_url)
    version = client.get_model_version_by_alias(shop.name, "champion")
    assert int(version.version) == record["challenger"]["version"] == 1
    assert version.tags["ratchet.run"] == record["run"]
    run = client.get_run(version.run_id)
    assert run.data.metrics["auc"] == pytest.approx(record["challenger"]["metrics"]["auc"])
    assert run.data.metrics["cost/gb_seconds"] == pytest.approx(record["cost"]["gb_seconds"])
    assert run.data.metrics["step_seconds/train"] > 0

    pointer = json.loads(shop.download(f"models/{shop.name}/live.json"))
    assert (pointer["champion"]["version"], pointer["generation"]) == (1, 1)

    seen: set[str] = set()
    workers = {str(pid) for pid in shop.stack.worker_pids()}

    def in_every_worker() -> bool:
        reply = shop.predict(ROW)
        if reply.status == 200 and reply.headers["x-ratchet-model-version"] == "1":
            seen.add(reply.headers["x-ratchet-worker"])
        return seen == workers

    assert shop.eventually(in_every_worker)

    second = shop.upload("b.csv", rows(10))
    record = shop.record_of(second)
    assert record["champion"]["version"] == 1
    assert _versions(shop) == [1, 2]
    events = [json.loads(line) for line in shop.stack.events_file.read_text().splitlines()]
    assert "Ratchet.ModelPromoted" in {event["type"] for event in events if event.get("subject") == shop.name}


@pytest.mark.pipeline("path")
def test_what_mlflow_has_is_what_is_served(shop: Shop) -> None:
    path = shop.upload("a.csv", rows(0))
    shop.record_of(path)
    champion = shop.eventually(lambda: shop.status()["champion"])
    mlflow.set_tracking_uri(shop.stack.mlflow_url)
    model = mlflow.onnx.load_model(f"models:/{shop.name}/{champion['version']}")
    stored = shop.download(f"models/{shop.name}/versions/{champion['version']}/model.onnx")
    assert model.SerializeToString(deterministic=True) == stored


@pytest.mark.pipeline("bad")
def test_bad_files_are_quarantined_and_the_champion_goes_on(shop: Shop) -> None:
    good = shop.upload("good.csv", rows(0))
    bad = [
        shop.upload("corrupt.parquet", b"PAR1 nothing"),
        shop.upload("short.csv", b"at,sold,town\n2026-01-01T00:00:00Z,1,Ghent\n"),
        shop.upload("picture.png", b"\x89PNG"),
        shop.upload("empty.csv", b""),
    ]
    # They may be spread over two runs, when one was already under way.
    shop.eventually(lambda: shop.status()["partitions"]["quarantined"] == len(bad) and not shop.status()["run"])
    entries = {entry["path"]: entry for run in shop.runs() for entry in run["partitions"]}
    assert entries[good]["state"] == "included"
    for path in bad:
        assert entries[path]["state"] == "quarantined"
        report = shop.download(entries[path]["report"]).decode()
        assert path.rpartition("/")[2] in report
        assert entries[path]["reason"]
    assert shop.eventually(lambda: shop.predict(ROW).status == 200)
    wrong = shop.predict({"price": "cheap"})
    assert wrong.status == 400
    assert wrong.body["error"]["message"] == "row 0: price is not a number: 'cheap'"
    assert shop.ask("/api/pipelines/nothing/predict", ROW).status == 404
    assert shop.ask("/api/pipelines/nothing").status == 404


@pytest.mark.pipeline("workers")
def test_workers_killed_in_the_middle_do_not_stop_a_run(shop: Shop) -> None:
    path = shop.upload("a.csv", rows(0, days=30, per_day=400))
    for _ in range(2):
        shop.step_reached(*UNDER_WAY)
        for pid in shop.stack.worker_pids():
            os.kill(pid, signal.SIGKILL)
    record = shop.record_of(path)
    assert record["outcome"] == "promoted", record["sentence"]
    assert _versions(shop) == [1]
    assert shop.eventually(lambda: shop.predict(ROW).status == 200)


@pytest.mark.pipeline("crash")
@pytest.mark.parametrize("step", ["validate", "train", "register"])
def test_a_host_killed_in_the_middle_finishes_the_run_with_one_version(shop: Shop, step: str) -> None:
    before = len(_versions(shop)) if shop.status()["champion"] else 0
    path = shop.upload(f"{step}.csv", rows(0, days=30, per_day=400, seed=len(step)))
    shop.step_reached(*UNDER_WAY[UNDER_WAY.index(step) :])
    shop.stack.kill_host()
    shop.stack.start_host()
    record = shop.record_of(path)
    assert record["outcome"] in {"promoted", "kept"}, record["sentence"]
    assert len(_versions(shop)) == before + 1
    assert len([run for run in shop.runs() if path in {entry["path"] for entry in run["partitions"]}]) == 1


@pytest.mark.pipeline("lost")
def test_the_sweep_finds_what_events_missed(shop: Shop) -> None:
    """A row that the ledger lost stands for an event that never came."""
    from azure.data.tables import TableClient

    path = shop.upload("a.csv", rows(0))
    shop.record_of(path)
    with TableClient.from_connection_string(shop.stack.blob_connection_string, "ledger") as table:
        (row,) = table.query_entities("PartitionKey eq 'lost'")
        table.delete_entity(row)
    assert shop.status()["partitions"]["included"] == 0
    reply = shop.ask("/admin/functions/sweep", {"input": ""})
    assert reply.status == 202
    shop.eventually(lambda: shop.status()["partitions"]["included"] == 1 and not shop.status()["run"])


@pytest.mark.pipeline("many")
def test_files_uploaded_together_make_one_run(shop: Shop) -> None:
    paths = [shop.upload(f"{day}.csv", rows(day, days=1, per_day=200)) for day in range(10)]
    record = shop.record_of(*paths)
    assert record["outcome"] == "promoted", record["sentence"]
    assert _versions(shop) == [1]
