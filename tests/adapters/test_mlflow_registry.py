"""The registry in a real MLflow: what is there after a crash between any two calls, and after a repeat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from mlflow.tracking import MlflowClient

from adapters.mlflow_registry import MlflowRegistry
from adapters.registry import DataSource, NoSuchVersion, RegistryError, Submission
from devhost.ports import free_port
from models.manifest import InputColumn, Signature

pytestmark = pytest.mark.integration


@pytest.fixture
def client(mlflow_url: str) -> MlflowClient:
    return MlflowClient(mlflow_url, mlflow_url)


def submission(run: str, **changed: Any) -> Submission:
    whole = Submission(
        pipeline="stores",
        run=run,
        key=f"key of {run}",
        model=b"a graph",
        signature=Signature((InputColumn("price", "number"), InputColumn("town", "category")), ("no", "yes"), "yes"),
        description="Promoted: it is better.",
        started="2026-01-02T03:04:05+00:00",
        example={"price": [1.0, None], "town": ["Ghent", None]},
        parameters={"seed": "7"},
        metrics={"auc": 0.75},
        curves={"training_log_loss": [0.5, 0.25], "validation_log_loss": [1 / step for step in range(1, 1500)]},
        tags={"ratchet.decision": "promoted"},
        dataset="d1",
        sources=[DataSource(f"training/stores/{number}.csv", f'"0x{number}"', 10 * number) for number in (1, 2)],
        files=lambda: {"spec.yaml": b"name: stores\n", "plots/roc.png": b"a picture"},
    )
    return replace(whole, **changed)


def versions(client: MlflowClient, run: str) -> list[Any]:
    return list(client.search_model_versions(f"name = 'stores' and tags.`ratchet.run` = '{run}'"))


def test_a_version_has_what_people_look_for(mlflow_url: str, client: MlflowClient, tmp_path: Path) -> None:
    number = MlflowRegistry(mlflow_url).register(submission("r-whole"))
    version = client.get_model_version("stores", str(number))
    assert version.description == "Promoted: it is better."
    assert version.tags["ratchet.decision"] == "promoted"
    assert version.run_id is not None
    run = client.get_run(version.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "r-whole")
    assert (run.data.params["seed"], run.data.metrics["auc"]) == ("7", 0.75)
    assert len(client.get_metric_history(version.run_id, "validation_log_loss")) == 1499
    model = Path(client.download_artifacts(version.run_id, "model", str(tmp_path)))
    assert (model / "model.onnx").read_bytes() == b"a graph"
    assert "town" in (model / "MLmodel").read_text()
    assert run.info.start_time == 1767323045000
    assert run.data.tags["mlflow.note.content"] == version.description
    inputs = {entry.dataset.name: entry.dataset for entry in run.inputs.dataset_inputs}
    second = inputs["training/stores/2.csv"]
    assert (second.digest, json.loads(second.profile)) == ("0x2", {"num_rows": 20})
    assert json.loads(second.source) == {"uri": "training/stores/2.csv", "etag": '"0x2"'}
    assert {entry.path for entry in client.list_artifacts(version.run_id, "plots")} == {"plots/roc.png"}


def test_many_partitions_and_a_long_description_are_cut_to_what_the_page_shows(
    mlflow_url: str, client: MlflowClient
) -> None:
    sources = [DataSource(f"training/stores/{number:04}.csv", '"0x1"', 1) for number in range(150)]
    number = MlflowRegistry(mlflow_url).register(submission("r-many", sources=sources, description="long " * 2000))
    version = client.get_model_version("stores", str(number))
    assert len(version.description) == 5000
    shown = [entry.dataset.name for entry in client.get_run(version.run_id).inputs.dataset_inputs]
    assert sorted(shown) == [source.path for source in sources[50:]]


def test_a_repeat_finds_the_same_version(mlflow_url: str, client: MlflowClient) -> None:
    registry = MlflowRegistry(mlflow_url)
    assert registry.register(submission("r-again")) == registry.register(submission("r-again"))
    assert len(versions(client, "r-again")) == 1


class Killed(BaseException):
    """The process ends here: nobody catches it."""


def test_a_crash_between_any_two_requests_leaves_one_whole_version(
    mlflow_url: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = requests.Session.send
    sent, last = 0, 0

    def send(self: requests.Session, request: Any, **options: Any) -> Any:
        nonlocal sent
        sent += 1
        if sent == last:
            raise Killed
        return original(self, request, **options)

    monkeypatch.setattr(requests.Session, "send", send)
    MlflowRegistry(mlflow_url).register(submission("r-0", curves={"validation_log_loss": [0.5, 0.25]}))
    everything = sent
    assert everything > 15
    for stop in range(1, everything + 1):
        tried = submission(f"r-killed-{stop}", curves={"validation_log_loss": [0.5, 0.25]})
        sent, last = 0, stop
        with pytest.raises(Killed):
            MlflowRegistry(mlflow_url).register(tried)
        last = 0
        number = MlflowRegistry(mlflow_url).register(tried)
        (version,) = versions(client, tried.run)
        assert int(version.version) == number
        (run,) = client.search_runs(
            [client.get_experiment_by_name("stores").experiment_id], f"tags.`ratchet.run` = '{tried.run}'"
        )
        assert (run.info.run_id, run.info.status) == (version.run_id, "FINISHED")
        assert [point.value for point in client.get_metric_history(version.run_id, "validation_log_loss")] == [
            0.5,
            0.25,
        ]
        assert len(run.inputs.dataset_inputs) == 2
        assert {entry.path for entry in client.list_artifacts(version.run_id)} == {"model", "plots", "spec.yaml"}
        assert len(client.list_artifacts(version.run_id, "model")) == 9


def test_another_run_with_the_same_key_finds_the_version_and_brings_it_up_to_date(
    mlflow_url: str, client: MlflowClient
) -> None:
    registry = MlflowRegistry(mlflow_url)
    first = registry.register(submission("r-one", key="the same"))
    later = submission(
        "r-two",
        key="the same",
        started="2026-01-03T03:04:05+00:00",
        description="The champion stays.",
        metrics={"auc": 0.5},
        tags={"ratchet.decision": "rejected"},
        files=lambda: {"spec.yaml": b"name: stores\n", "decision.json": b"{}"},
    )
    assert registry.register(later, anew=False) == first
    assert versions(client, "r-two") == []
    for _ in range(2):
        assert registry.register(later) == first
    (version,) = versions(client, "r-two")
    assert (int(version.version), versions(client, "r-one")) == (first, [])
    assert (version.tags["ratchet.decision"], version.description) == ("rejected", "The champion stays.")
    run = client.get_run(version.run_id)
    assert (run.data.tags["ratchet.decision"], run.data.tags["mlflow.note.content"]) == (
        "rejected",
        version.description,
    )
    assert [point.value for point in client.get_metric_history(version.run_id, "auc")] == [0.75, 0.5]
    assert len(client.get_metric_history(version.run_id, "validation_log_loss")) == 1499
    assert "decision.json" in {entry.path for entry in client.list_artifacts(version.run_id)}


def test_figures_that_come_later_are_there_once(mlflow_url: str, client: MlflowClient) -> None:
    registry = MlflowRegistry(mlflow_url)
    number = registry.register(submission("r-costs"))
    for _ in range(2):
        registry.measured("stores", number, {"cost/gb_seconds": 1.5}, at="2026-01-02T03:04:05+00:00")
    run_id = client.get_model_version("stores", str(number)).run_id
    assert [point.value for point in client.get_metric_history(run_id, "cost/gb_seconds")] == [1.5]


def test_a_version_that_is_not_there_is_told(mlflow_url: str) -> None:
    registry = MlflowRegistry(mlflow_url)
    registry.register(submission("r-there"))
    with pytest.raises(NoSuchVersion):
        registry.set_alias("stores", "previous", 999)
    with pytest.raises(NoSuchVersion):
        registry.tag("stores", 999, "ratchet.decision", "promoted")


def test_of_two_versions_of_one_run_the_first_stays(
    mlflow_url: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = MlflowClient.create_model_version

    def twice(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        original(self, *args, **kwargs)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_model_version", twice)
    number = MlflowRegistry(mlflow_url).register(submission("r-twice"))
    assert [int(version.version) for version in versions(client, "r-twice")] == [number]


def test_what_somebody_deletes_there_is_known_to_be_gone(mlflow_url: str, client: MlflowClient) -> None:
    registry = MlflowRegistry(mlflow_url)
    number = registry.register(submission("r-gone", pipeline="gone"))
    registry.set_alias("gone", "champion", number)
    assert (registry.knows("gone", number), registry.knows("gone", number + 1)) == (True, False)
    for _ in range(2):
        registry.remove_alias("gone", "champion")
        assert registry.aliases("gone") == {}
    client.delete_model_version("gone", str(number))
    assert not registry.knows("gone", number)
    client.delete_registered_model("gone")
    assert (registry.knows("gone", number), registry.aliases("gone")) == (False, {})
    registry.remove_alias("gone", "champion")


def test_an_alias_moves(mlflow_url: str, client: MlflowClient) -> None:
    registry = MlflowRegistry(mlflow_url)
    first, second = registry.register(submission("r-1")), registry.register(submission("r-2"))
    for number in (first, second):
        registry.set_alias("stores", "champion", number)
        assert int(client.get_model_version_by_alias("stores", "champion").version) == number


def test_a_registry_that_is_away_says_so_and_keeps_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = MlflowRegistry(f"http://user:hunter2@127.0.0.1:{free_port()}")
    with pytest.raises(RegistryError, match="cannot be used") as caught:
        registry.set_alias("stores", "champion", 1)
    assert "hunter2" not in str(caught.value)


def test_a_registry_that_comes_back_is_gone_on_with(
    mlflow_url: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes away in the middle of a registration, with some of it done: nobody listens where it was."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    there, nowhere = urlsplit(mlflow_url).netloc, f"127.0.0.1:{free_port()}"
    log_artifacts, send = MlflowClient.log_artifacts, requests.Session.send
    away = False

    def ending(self: MlflowClient, *args: Any, **options: Any) -> Any:
        nonlocal away
        away = True
        return log_artifacts(self, *args, **options)

    def sending(self: requests.Session, request: Any, **options: Any) -> Any:
        if away:
            request.url = request.url.replace(there, nowhere)
        return send(self, request, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", ending)
        patch.setattr(requests.Session, "send", sending)
        for _ in range(2):
            with pytest.raises(RegistryError, match="cannot be used"):
                MlflowRegistry(mlflow_url).register(submission("r-away"))
    assert versions(client, "r-away") == []
    number = MlflowRegistry(mlflow_url).register(submission("r-away"))
    assert [int(version.version) for version in versions(client, "r-away")] == [number]
    assert len(client.get_metric_history(versions(client, "r-away")[0].run_id, "validation_log_loss")) == 1499


def test_two_threads_can_need_the_client_for_the_first_time_at_once() -> None:
    """MLflow's packages import each other in circles: a thread that finds half of them there breaks them for good."""
    program = """
import sys, threading
from adapters.mlflow_registry import MlflowRegistry
from adapters.registry import RegistryError
told = []
def ask():
    try:
        MlflowRegistry("http://127.0.0.1:9").measured("p", 1, {}, at="2026-01-01T00:00:00+00:00")
    except (RegistryError, ImportError, AttributeError) as exc:
        told.append(type(exc).__name__)
threads = [threading.Thread(target=ask) for _ in range(2)]
threads[0].start()
while "mlflow.exceptions" not in sys.modules:
    pass
threads[1].start()
for thread in threads:
    thread.join()
print(*told)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
    )
    assert done.stdout == "RegistryError RegistryError\n", done.stderr
