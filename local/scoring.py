"""How well a model tells late flights from punctual ones: the live model asked over HTTP, the frozen one run here."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import orjson
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from local.client import AppClient, Tensor
from local.uploads import Storage
from models.errors import RatchetError, bounded
from models.manifest import Manifest

BATCH_ROWS = 2_000
"""Rows of one request: about 0.3 MB of JSON, answered in well under a second."""
POSITIVE = 1
"""Place of the positive class among the probabilities of a binary pipeline."""


class FrozenModelUnusable(RatchetError):
    """A stored version cannot be run here. `path` is the container/name of its manifest."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path} cannot be used to compare with: {problem}")
        self.path = path


@dataclass(frozen=True, slots=True)
class HttpScores:
    """Probabilities of being late, float64 [N], and how they came: who answered, in how many requests and seconds."""

    late: NDArray[np.float64]
    versions: frozenset[int]
    requests: int
    seconds: float


def auc(labels: NDArray[np.bool_], probability: NDArray[np.float64]) -> float:
    """Area under the ROC curve. Both [N]; NaN unless there are rows of both classes."""
    if len(np.unique(labels)) != POSITIVE + 1:
        return float("nan")
    return float(roc_auc_score(labels, probability))


def score_over_http(client: AppClient, features: pl.DataFrame) -> HttpScores:
    """Sends every row of `features`, in order, to the served model. Raises ClientError."""
    parts: list[NDArray[np.float64]] = []
    versions: set[int] = set()
    started = time.monotonic()
    for batch in features.iter_slices(BATCH_ROWS):
        answer = client.infer([_tensor(column) for column in batch])
        parts.append(answer.probability[:, POSITIVE])
        versions.add(answer.served_by.version)
    late = np.concatenate(parts) if parts else np.empty(0, dtype=np.float64)
    return HttpScores(late, frozenset(versions), len(parts), time.monotonic() - started)


def _tensor(column: pl.Series) -> Tensor:
    if column.dtype == pl.String:
        return Tensor(column.name, "BYTES", column.to_list())
    return Tensor(column.name, "FP64", column.cast(pl.Float64).to_list())


class FrozenModel:
    """One immutable version, run in this process from its stored graph: what serving would be without retraining."""

    def __init__(self, manifest: Manifest, graph: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # The host's workers need the other core.
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._signature = manifest.signature
        self.version = manifest.version

    @classmethod
    def load(cls, storage: Storage, pipeline: str, version: int) -> FrozenModel:
        """The stored version. Raises BlobNotFound, StorageUnavailable, FrozenModelUnusable."""
        folder = f"models/{pipeline}/versions/{version}"
        path = f"{folder}/model.json"
        try:
            manifest = Manifest.from_dict(orjson.loads(storage.read(path)))
        except (ValueError, KeyError, TypeError) as exc:
            raise FrozenModelUnusable(path, bounded(exc)) from exc
        graph = storage.read(f"{folder}/model.onnx")
        if hashlib.sha256(graph).hexdigest() != manifest.model_sha256:
            raise FrozenModelUnusable(path, "model.onnx beside it has another sha256")
        return cls(manifest, graph)

    def late(self, features: pl.DataFrame) -> NDArray[np.float64]:
        """Probability of being late for each row of `features`, float64 [N]."""
        feed = {column.name: _input(features[column.name], column.kind) for column in self._signature.inputs}
        (probability,) = self._session.run(["probability"], feed)
        positive = self._signature.classes.index(self._signature.positive)
        late: NDArray[np.float64] = np.asarray(probability, dtype=np.float64)[:, positive]
        return late


def _input(column: pl.Series, kind: str) -> NDArray[Any]:
    if kind == "category":
        return np.array(column.fill_null("").to_list(), dtype=object)
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
