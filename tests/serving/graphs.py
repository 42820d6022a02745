"""Tiny serving graphs with the contract of models/manifest.py, and everything that promoting one writes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from adapters.pointer import LivePointer, LiveVersion, pointer_path
from models.manifest import GoldenRows, InputColumn, Lineage, Manifest, Signature
from serving.session import Session, golden_feed
from tests.fakes.blobs import MemoryBlobs

PIPELINE = "flights"
SIGNATURE = Signature(
    inputs=(InputColumn("distance", "number"), InputColumn("carrier", "category"), InputColumn("at", "timestamp")),
    classes=("on time", "late"),
    positive="late",
)


def graph(version: int, factor: float | None = None) -> bytes:
    """P(late) = distance * factor / 1000 + version / 100, so that an answer tells which version gave it."""
    factor = 1.0 if factor is None else factor

    def constant(name: str, value: float) -> onnx.TensorProto:
        return helper.make_tensor(name, TensorProto.DOUBLE, [1], [value])

    nodes = [
        helper.make_node("Mul", ["distance", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["late"]),
        helper.make_node("Sub", ["one", "late"], ["early"]),
        helper.make_node("Unsqueeze", ["late", "axis"], ["late_column"]),
        helper.make_node("Unsqueeze", ["early", "axis"], ["early_column"]),
        helper.make_node("Concat", ["early_column", "late_column"], ["probability"], axis=1),
    ]
    inputs = [
        helper.make_tensor_value_info("distance", TensorProto.DOUBLE, ["N"]),
        helper.make_tensor_value_info("carrier", TensorProto.STRING, ["N"]),
        helper.make_tensor_value_info("at", TensorProto.DOUBLE, ["N"]),
    ]
    output = helper.make_tensor_value_info("probability", TensorProto.DOUBLE, ["N", 2])
    constants = [
        constant("scale", factor / 1000),
        constant("shift", version / 100),
        constant("one", 1.0),
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
    ]
    made = helper.make_graph(nodes, "tiny", inputs, [output], constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString(deterministic=True))


def expected(version: int, distance: float) -> float:
    """What `graph(version)` answers."""
    return float(np.float64(distance) * np.float64(1.0 / 1000) + np.float64(version / 100))


def golden(model: bytes) -> GoldenRows:
    """Three rows and what `model` answers to them."""
    inputs: dict[str, tuple[Any, ...]] = {
        "distance": (100.0, 0.0, 500.0),
        "carrier": ("AA", None, "B6"),
        "at": (0.0, None, 1.0),
    }
    empty = GoldenRows(inputs, ())
    answers = Session(model).run(golden_feed(SIGNATURE, empty))
    return GoldenRows(inputs, tuple(tuple(row) for row in answers.tolist()))


def manifest(version: int, model: bytes, **changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "pipeline": PIPELINE,
        "version": version,
        "run": f"run-{version}",
        "created": "2026-01-01T00:00:00+00:00",
        "model_path": f"models/{PIPELINE}/versions/{version}/model.onnx",
        "model_sha256": hashlib.sha256(model).hexdigest(),
        "model_bytes": len(model),
        "signature": SIGNATURE,
        "golden": golden(graph(version)),
        "lineage": Lineage("dataset", "spec", 0.0, ()),
    }
    return Manifest(**{**fields, **changes})


def publish(blobs: MemoryBlobs, version: int, *, model: bytes | None = None, **changes: Any) -> None:
    """Stores a version and points at it. `model` other than the manifest's makes a version that must be refused."""
    document = manifest(version, graph(version), **changes)
    manifest_path = f"models/{PIPELINE}/versions/{version}/model.json"
    blobs.put(document.model_path, graph(version) if model is None else model)
    blobs.put(manifest_path, json.dumps(document.to_dict()).encode())
    live = LiveVersion(version, document.run, manifest_path, document.model_sha256)
    pointer = LivePointer(PIPELINE, version, live, (), "2026-01-01T00:00:00+00:00", "a test", "because")
    blobs.put(pointer_path(PIPELINE), json.dumps(pointer.to_dict()).encode())
