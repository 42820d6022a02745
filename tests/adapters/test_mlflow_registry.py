"""The registry in a real MLflow: what is there after a crash between any two calls, and after a repeat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from adapters.mlflow_registry import MlflowRegistry
from adapters.registry import RegistryError, Submission
from devhost.azurite import AzuritePorts
from devhost.ports import free_port
from devhost.supervisor import Supervisor
from local.parts import Places, mlflow_part
from models.manifest import InputColumn, Signature

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running MLflow server."""
    folder = tmp_path_factory.mktemp("mlflow")
    places = Places(folder, AzuritePorts(0, 0, 0), app=0, mlflow=free_port(), events=0)
    with Supervisor(folder / "logs") as supervisor:
        supervisor.start(mlflow_part(places))
        yield places.mlflow_url


@pytest.fixture
def client(uri: str) -> MlflowClient:
    return MlflowClient(uri, uri)


def submission(run: str) -> Submission:
    return Submission(
        pipeline="shops",
        run=run,
        key=run,
        model=b"a graph",
        signature=Signature((InputColumn("price", "number"), InputColumn("town", "category")), ("no", "yes"), "yes"),
        description="Promoted: it is better.",
        parameters={"seed": "7"},
        metrics={"auc": 0.75},
        curve=[(step, 1 / step) for step in range(1, 1500)],
        tags={"ratchet.decision": "promoted"},
        documents={"spec.yaml": "name: shops\n"},
    )


def versions(client: MlflowClient, run: str) -> list[Any]:
    return list(client.search_model_versions(f"name = 'shops' and tags.`ratchet.run` = '{run}'"))


def test_a_version_has_what_people_look_for(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    number = MlflowRegistry(uri).register(submission("r-whole"))
    version = client.get_model_version("shops", str(number))
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


def test_a_repeat_finds_the_same_version(uri: str, client: MlflowClient) -> None:
    registry = MlflowRegistry(uri)
    assert registry.register(submission("r-again")) == registry.register(submission("r-again"))
    assert len(versions(client, "r-again")) == 1


STOPS = ["log_batch", "log_artifacts", "log_text", "create_model_version", "search_model_versions", "set_terminated"]


@pytest.mark.parametrize("call", STOPS)
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_crash_at_any_call_leaves_one_finished_version(
    uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, call: str, *, done: bool
) -> None:
    run = f"r-{call}-{done}"
    original = getattr(MlflowClient, call)

    def crashing(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        if done:
            original(self, *args, **kwargs)
        raise ConnectionResetError("the worker is gone")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, crashing)
        with pytest.raises(RegistryError):
            MlflowRegistry(uri).register(submission(run))
    number = MlflowRegistry(uri).register(submission(run))
    (version,) = versions(client, run)
    assert int(version.version) == number
    assert client.get_run(version.run_id).info.status == "FINISHED"


def test_of_two_versions_of_one_run_the_first_stays(
    uri: str, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = MlflowClient.create_model_version

    def twice(self: MlflowClient, *args: Any, **kwargs: Any) -> Any:
        original(self, *args, **kwargs)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "create_model_version", twice)
    number = MlflowRegistry(uri).register(submission("r-twice"))
    assert [int(version.version) for version in versions(client, "r-twice")] == [number]


def test_an_alias_moves(uri: str, client: MlflowClient) -> None:
    registry = MlflowRegistry(uri)
    first, second = registry.register(submission("r-1")), registry.register(submission("r-2"))
    for number in (first, second):
        registry.set_alias("shops", "champion", number)
        assert int(client.get_model_version_by_alias("shops", "champion").version) == number


def test_a_registry_that_is_away_says_so_and_keeps_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = MlflowRegistry(f"http://user:hunter2@127.0.0.1:{free_port()}")
    with pytest.raises(RegistryError, match="cannot be used") as caught:
        registry.set_alias("shops", "champion", 1)
    assert "hunter2" not in str(caught.value)
