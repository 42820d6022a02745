"""The lineage question: which rows taught a version, and what would it answer for a row? By the calls of the docs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pytest
from azure.storage.blob import BlobServiceClient

from adapters.ledger import Sighting
from adapters.mlflow_registry import MlflowRegistry
from tests.activities.world import SPEC, World, rows

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(180),
    # MLflow warns of itself when it is imported.
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
]

DOCS = Path(__file__).parents[2] / "docs" / "registry.md"
NAME = "lineage"


@pytest.fixture
def service(storage: str) -> Iterator[BlobServiceClient]:
    with BlobServiceClient.from_connection_string(storage) as client:
        yield client


def test_which_rows_taught_a_version_and_what_it_answers(
    mlflow_url: str, service: BlobServiceClient, tmp_path: Path
) -> None:
    world = World(tmp_path, SPEC.replace("name: shops", f"name: {NAME}"), pipeline=NAME)
    world.to = replace(world.to, registry=lambda: MlflowRegistry(mlflow_url))
    container = service.create_container("training")
    for day in (0, 10):
        path, data = f"{NAME}/{day}.csv", rows(day)
        etag = container.upload_blob(path, data).get_blob_properties().etag.strip('"')
        world.blobs.hold(f"training/{path}", data, etag)
        world.ledger.see(NAME, Sighting(path, etag, len(data)), now=world.to.now())
    record = world.run()
    number = str(record["challenger"]["version"])
    mlflow.set_tracking_uri(mlflow_url)

    found = answered(number, service)
    taught, held_out = found["taught"], found["rows"]
    parameters = mlflow.MlflowClient().get_run(found["version"].run_id).data.params
    assert len(taught) == int(parameters["training_rows"]) + int(parameters["validation_rows"])
    assert len(held_out) - len(taught) == record["judged_rows"]
    graph = world.blobs.get(f"models/{NAME}/versions/{number}/model.onnx").data
    row = taught.iloc[0]
    feed = {"price": np.array([row["price"]], np.float64), "town": np.array([row["town"]], object)}
    expected = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"]).run(None, feed)[0]
    assert found["answers"].to_numpy().tobytes() == expected.tobytes()


def answered(number: str, service: BlobServiceClient) -> dict[str, Any]:
    """What the documented lines find, for this pipeline's names."""
    (code,) = re.findall(r"```python\n(import io\n.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    ours = code.replace('"flight-delays", "7"', f'"{NAME}", "{number}"').replace('"time_hour"', '"at"')
    assert f'"{NAME}", "{number}"' in ours
    assert ours.count('"at"') == 2
    names: dict[str, Any] = {"service": service}
    exec(compile(ours, str(DOCS), "exec"), names)  # noqa: S102 (the lines of our own documentation)
    return names
