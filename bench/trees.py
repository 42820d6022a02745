"""The models that the serving benchmarks serve: flights of 2013, made by the pipeline's own parts, kept in `.bench/`.

One is 300 trees of 63 leaves over 17 columns, three of them texts, from raw columns to probabilities in one graph. Two
of them, taught by different months, are really different: hardly an answer of theirs is equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapters.blobs import BlobStore
from adapters.pointer import LivePointer, LiveVersion, pointer_path, version_path
from local.flights import PIPELINE, features_and_labels, month_csv, pipeline_spec
from models.manifest import GoldenRows, HoldoutRule, Lineage, Manifest, Signature

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".bench"
ROWS = 100
"""Rows that requests are made of: flights of December, which no model has seen."""
FAR = 1e12
"""A holdout that begins after all rows."""


@dataclass(frozen=True, slots=True)
class Trees:
    """An exported model. `sha256` names its bytes."""

    model: bytes
    sha256: str
    signature: Signature
    golden: GoldenRows

    def manifest(self, version: int) -> Manifest:
        """As register writes it."""
        return Manifest(
            pipeline=PIPELINE,
            version=version,
            run=f"run-{version}",
            created="2026-01-01T00:00:00+00:00",
            model_path=version_path(PIPELINE, version, "model.onnx"),
            model_sha256=self.sha256,
            model_bytes=len(self.model),
            signature=self.signature,
            golden=self.golden,
            lineage=Lineage("bench", "bench", FAR, ()),
        )

    def live(self, version: int) -> LiveVersion:
        return LiveVersion(version, f"run-{version}", version_path(PIPELINE, version, "model.json"), self.sha256)


def trees(months: Sequence[int]) -> Trees:
    """The model that these months teach; made once."""
    name = "-".join(map(str, months))
    model, facts = PLACE / "models" / f"{name}.onnx", PLACE / "models" / f"{name}.json"
    if not facts.exists():
        model.parent.mkdir(parents=True, exist_ok=True)
        content, signature, golden = _train(months)
        model.write_bytes(content)
        facts.write_text(json.dumps({"signature": asdict(signature), "golden": asdict(golden)}))
    content, known = model.read_bytes(), json.loads(facts.read_text())
    signature, golden = Signature.from_dict(known["signature"]), GoldenRows.from_dict(known["golden"])
    return Trees(content, hashlib.sha256(content).hexdigest(), signature, golden)


def _train(months: Sequence[int]) -> tuple[bytes, Signature, GoldenRows]:
    from models.export import export
    from models.features import compute_matrix, feature_names, feeds, fit_features, signature
    from models.golden import golden_rows
    from models.matrices import matrix_part
    from models.partitions import clean_partition
    from models.profiles import merge, profile
    from models.training import train

    spec = pipeline_spec()
    frames = [clean_partition(month_csv(month), name=f"{month}.csv", spec=spec).frame for month in months]
    graph = fit_features(merge(profile(frame, spec) for frame in frames), spec)
    parts = [matrix_part(compute_matrix(graph, frame, spec), frame, key=str(i)) for i, frame in enumerate(frames)]
    taught = train(parts, spec=spec, feature_names=feature_names(spec), threads=2, holdout=HoldoutRule("time", FAR))
    model = export(taught.booster_text, graph, signature(spec), kind=spec.export)
    return model, signature(spec), golden_rows(model, feeds(frames[0], spec))


def rows(count: int) -> list[dict[str, Any]]:
    """`count` flights as JSON has them (None for missing), at most ROWS."""
    frame = features_and_labels(12).features
    return frame.gather_every(frame.height // ROWS).head(count).to_dicts()


def publish(blobs: BlobStore, version: int, model: Trees) -> None:
    """Stores a version. `point` makes it the champion."""
    blobs.put(version_path(PIPELINE, version, "model.onnx"), model.model)
    blobs.put(version_path(PIPELINE, version, "model.json"), json.dumps(model.manifest(version).to_dict()).encode())


def point(blobs: BlobStore, version: int, model: Trees, *, generation: int) -> None:
    """Writes the live pointer."""
    pointer = LivePointer(PIPELINE, generation, model.live(version), (), "2026-01-01T00:00:00+00:00", "bench", "bench")
    blobs.put(pointer_path(PIPELINE), json.dumps(pointer.to_dict()).encode())
