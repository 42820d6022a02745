"""Every task from an upload to an answer, on data of other people, with nothing but a pipeline's file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sklearn import datasets

from serving.service import InferenceService
from tests.activities.world import PIPELINE, World

SMALL = """
holdout: {by: hash, fraction: 0.3}
quiet: {seconds: 0, longest_wait_seconds: 0}
categories: {minimum_count: 2}
"""
CANCER = """
name: shops
columns:
  diagnosis: integer
  mean radius: number
  mean texture: number
  worst area: number
  worst concave points: number
label: {column: diagnosis, negative: malignant, positive: benign}
training: {rounds: 60, minimum_rows: 100, class_weights: balanced, parameters: {num_leaves: 7, min_data_in_leaf: 5}}
gate: {minimum_rows: 50, maximum_latency_ms: 1000, minimum_auc: 0.9}
"""
WINE = """
name: shops
task: multiclass
columns:
  cultivar: integer
  alcohol: number
  flavanoids: number
  color_intensity: number
  proline: number
label: {column: cultivar, classes: [0, 1, 2]}
features: [alcohol, flavanoids, {column: proline, clip: [300, 1500]}, {ratio: [color_intensity, alcohol], name: tint}]
training: {rounds: 60, minimum_rows: 50, parameters: {num_leaves: 5, min_data_in_leaf: 5}}
gate: {minimum_rows: 20, maximum_latency_ms: 1000, minimum: {accuracy: 0.7}, maximum: {log_loss: 1}}
"""
DIABETES = """
name: shops
task: regression
columns:
  progression: number
  age: number
  sex: category
  bmi: number
  bp: number
  s5: number
label: {column: progression}
slices: [sex]
training: {rounds: 60, minimum_rows: 50, monotone: {bmi: increasing}, parameters: {num_leaves: 7, min_data_in_leaf: 5}}
gate: {minimum_rows: 50, maximum_latency_ms: 1000, maximum: {rmse: 75}, slice_loss: 50}
"""


def cancer() -> pl.DataFrame:
    data = datasets.load_breast_cancer()
    return pl.DataFrame(data.data, schema=list(data.feature_names)).with_columns(diagnosis=pl.Series(data.target))


def wine() -> pl.DataFrame:
    data = datasets.load_wine()
    return pl.DataFrame(data.data, schema=list(data.feature_names)).with_columns(cultivar=pl.Series(data.target))


def diabetes() -> pl.DataFrame:
    data = datasets.load_diabetes()
    frame = pl.DataFrame(data.data, schema=list(data.feature_names)).with_columns(progression=pl.Series(data.target))
    return frame.with_columns(sex=pl.when(pl.col("sex") > 0).then(pl.lit("f")).otherwise(pl.lit("m")))


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


CASES = [(CANCER, cancer), (WINE, wine), (DIABETES, diabetes)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    pipelines = tmp_path / "pipelines"
    pipelines.mkdir()
    return World(pipelines)


@pytest.mark.parametrize("export", ["exact", "portable"])
@pytest.mark.parametrize(("spec", "made"), CASES, ids=["binary", "multiclass", "regression"])
def test_a_table_becomes_a_model_that_answers(world: World, tmp_path: Path, spec: str, made: Any, export: str) -> None:
    frame = made()
    world.write_spec(f"{spec}export: {export}{SMALL}")
    half = frame.height // 2
    world.upload("a.parquet", parquet(frame[:half]))
    world.upload("b.csv", frame[half:].write_csv().encode())
    record = world.run()
    assert record["outcome"] == "promoted", record["sentence"]
    manifest = world.read(f"models/{PIPELINE}/versions/1/model.json")
    assert manifest["opset"]["ai.onnx.ml"] == (5 if export == "exact" else 4)
    assert all(len(row) == (len(manifest["signature"]["classes"]) or 1) for row in manifest["golden"]["probabilities"])

    service = InferenceService(world.blobs, tmp_path / "cache", 0.0, lambda: (PIPELINE,))
    names = [column["name"] for column in manifest["signature"]["inputs"]]
    rows = frame.select(names)[:20].to_dicts()
    answer = service.predict(PIPELINE, json.dumps(rows).encode())
    assert answer.status == 200
    predictions = json.loads(answer.body)["predictions"]
    tensors = [
        {"name": name, "datatype": "BYTES" if frame[name].dtype == pl.String else "FP64", "shape": [20],
         "data": frame[name][:20].to_list()}
        for name in names
    ]  # fmt: skip
    outputs = json.loads(service.infer(PIPELINE, json.dumps({"inputs": tensors}).encode()).body)["outputs"]
    if manifest["signature"]["task"] == "regression":
        assert [output["name"] for output in outputs] == ["value"]
        assert outputs[0]["data"] == [prediction["value"] for prediction in predictions]
        assert 40 < sum(outputs[0]["data"]) / 20 < 300
    else:
        assert [output["name"] for output in outputs] == ["probability", "label"]
        assert outputs[1]["data"] == [prediction["label"] for prediction in predictions]
        right = [frame[spec.split("label: {column: ")[1].split(",", maxsplit=1)[0]][row] for row in range(20)]
        classes = manifest["signature"]["classes"]
        assert sum(classes[code] == label for code, label in zip(right, outputs[1]["data"], strict=True)) >= 15
        assert all(sum(prediction["probabilities"].values()) == pytest.approx(1) for prediction in predictions)


@pytest.mark.parametrize(("spec", "made"), CASES, ids=["binary", "multiclass", "regression"])
def test_the_champion_is_judged_on_exactly_the_same_rows(world: World, spec: str, made: Any) -> None:
    frame = made()
    world.write_spec(spec + SMALL)
    world.upload("a.parquet", parquet(frame))
    first = world.run()
    again = world.run(world.start(force=True))
    assert again["judged_rows"] == first["judged_rows"]
    assert again["champion"]["metrics"] == again["challenger"]["metrics"]
    assert again["outcome"] == "kept"
    assert again["decision"]["gain"]["value"] == 0


def test_slices_are_in_the_record(world: World) -> None:
    world.write_spec(DIABETES + SMALL)
    world.upload("a.parquet", parquet(diabetes()))
    record = world.run()
    assert {(part["column"], part["value"]) for part in record["slices"]} == {("sex", "f"), ("sex", "m")}
    assert sum(part["challenger"]["rows"] for part in record["slices"]) == record["judged_rows"]


def test_another_task_is_not_compared_with(world: World) -> None:
    world.write_spec(CANCER + SMALL)
    world.upload("a.parquet", parquet(cancer()))
    world.run()
    world.write_spec(WINE + SMALL)
    world.upload("a.parquet", parquet(wine()))
    record = world.run()
    assert "cannot be compared: it is a binary model" in record["sentence"]
