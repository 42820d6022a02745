"""The learning core as a single script: files to a model with nothing around it. What a run is measured against."""

from __future__ import annotations

from collections.abc import Mapping

from models.export import export
from models.features import compute_matrix, feature_names, fit_features, signature
from models.manifest import HoldoutRule
from models.matrices import matrix_part
from models.partitions import clean_partition
from models.profiles import merge, profile
from models.spec import PipelineSpec
from models.training import train

SECONDS_A_DAY = 86_400.0


def model_of(files: Mapping[str, bytes], spec: PipelineSpec, *, threads: int = 1) -> bytes:
    """The ONNX graph that `files` (by path within the training container) make, whatever their order."""
    frames = {path: clean_partition(files[path], name=path, spec=spec).frame for path in sorted(files)}
    merged = merge(profile(frame, spec) for frame in frames.values())
    if merged.time_max is None:
        raise ValueError("there is no usable row in these files")
    graph = fit_features(merged, spec)
    parts = [matrix_part(compute_matrix(graph, frame, spec), frame, key=path) for path, frame in frames.items()]
    trained = train(
        parts,
        spec=spec,
        feature_names=feature_names(spec),
        threads=threads,
        holdout=HoldoutRule("time", merged.time_max - spec.holdout.days * SECONDS_A_DAY),
    )
    return export(trained.booster_text, graph, signature(spec), kind=spec.export)
