"""The inference handlers: bytes in, an Answer out. What HTTP library carries them is the caller's business."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from adapters.blobs import BlobStore
from models.errors import bounded
from serving import oip
from serving.answers import Answer, Protocol, answer, refusal
from serving.cache import ActiveModel, Limits, ModelCache
from serving.errors import BadRequest, BodyTooLarge, NoModelYet, ServingError, UnknownModel

MAX_BODY_BYTES = 10 * 2**20
"""Longest request body: ten megabytes hold a hundred thousand rows."""
SERVER = {"name": "ratchet", "version": "0.1.0", "extensions": []}


class InferenceService:
    """Predictions from the live models. Safe to share between threads.

    `known` says which pipelines there are, so that a name from a URL neither reaches storage nor fills the cache.
    """

    def __init__(
        self,
        blobs: BlobStore,
        cache_dir: Path,
        ttl_seconds: float,
        known: Callable[[], Iterable[str]],
        *,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = ModelCache(blobs, cache_dir, ttl_seconds, limits=limits, clock=clock)
        self._known = known
        self._names: frozenset[str] = frozenset()

    def predict(self, pipeline: str, body: bytes) -> Answer:
        """Plain JSON for people: a record, a list of records, or {"records": [...]}."""
        return _answering(lambda: self._predict(pipeline, body))

    def infer(self, pipeline: str, body: bytes, version: str | None = None) -> Answer:
        """POST v2/models/{name}[/versions/{version}]/infer."""
        return _answering(lambda: self._infer(pipeline, body, version), protocol="oip")

    def metadata(self, pipeline: str, version: str | None = None) -> Answer:
        """GET v2/models/{name}[/versions/{version}]."""

        def work() -> Answer:
            model = self._model(pipeline, version)
            return answer(oip.model_metadata(model.manifest), headers=model.headers)

        return _answering(work, protocol="oip")

    def model_ready(self, pipeline: str, version: str | None = None) -> Answer:
        """GET v2/models/{name}/ready: 200 when a model would answer."""

        def work() -> Answer:
            model = self._model(pipeline, version)
            document = {"name": pipeline, "ready": True, "details": self._cache.status(pipeline)}
            return answer(document, headers=model.headers)

        return _answering(work, protocol="oip")

    def server_metadata(self) -> Answer:
        """GET v2."""
        return answer(SERVER)

    def live(self) -> Answer:
        """GET v2/health/live."""
        return answer({"live": True})

    def ready(self) -> Answer:
        """GET v2/health/ready: 200 when every pipeline has a model."""
        details = []
        for pipeline in self._known():
            # Without a model the details say so: their version is null.
            with suppress(NoModelYet):
                self._cache.active(pipeline)
            details.append(self._cache.status(pipeline))
        ready = all(entry["version"] is not None for entry in details)
        return answer({"ready": ready, "models": details}, status=200 if ready else 503)

    def status(self, pipeline: str) -> dict[str, Any]:
        """For health details of one pipeline: version, run, since, last_check, age_seconds, last_error."""
        return self._cache.status(pipeline)

    def warm(self, pipelines: Iterable[str]) -> None:
        """Loads the champions, so that the first request finds them."""
        for pipeline in pipelines:
            self._cache.refresh(pipeline)

    def _model(self, pipeline: str, version: str | None = None) -> ActiveModel:
        # Whoever knows the names may read a directory for them: asked again only for a name that is new.
        if pipeline not in self._names:
            self._names = frozenset(self._known())
        if pipeline not in self._names:
            raise UnknownModel(f"there is no pipeline {bounded(pipeline, 60)!r}")
        return self._cache.active(pipeline) if version is None else self._cache.version(pipeline, version)

    def _predict(self, pipeline: str, body: bytes) -> Answer:
        model = self._model(pipeline)
        records = _records(_json(body))
        probabilities = model.session.run(model.reader.from_records(records)).tolist()
        manifest = model.manifest
        classes = manifest.signature.classes
        positive = classes.index(manifest.signature.positive)
        predictions = [
            {
                "label": classes[row.index(max(row))],
                "probability": row[positive],
                "probabilities": dict(zip(classes, row, strict=True)),
            }
            for row in probabilities
        ]
        document = {
            "pipeline": pipeline,
            "version": manifest.version,
            "run": manifest.run,
            "predictions": predictions,
        }
        return answer(document, headers=model.headers)

    def _infer(self, pipeline: str, body: bytes, version: str | None) -> Answer:
        model = self._model(pipeline, version)
        request = _json(body)
        columns, rows = oip.read_columns(request)
        wanted = oip.requested_outputs(request)
        probabilities = model.session.run(model.reader.from_columns(columns, rows))
        outputs: list[dict[str, Any]] = []
        if "probability" in wanted:
            shape = list(probabilities.shape)
            outputs.append({"name": "probability", "datatype": "FP64", "shape": shape, "data": probabilities.ravel()})
        if "label" in wanted:
            classes = model.manifest.signature.classes
            labels = [classes[index] for index in probabilities.argmax(axis=1).tolist()]
            outputs.append({"name": "label", "datatype": "BYTES", "shape": [rows], "data": labels})
        document: dict[str, Any] = {
            "model_name": pipeline,
            "model_version": str(model.manifest.version),
            "outputs": outputs,
            "parameters": {"run": model.manifest.run},
        }
        if isinstance(request.get("id"), str):
            document["id"] = request["id"]
        return answer(document, headers=model.headers)


def _answering(work: Callable[[], Answer], *, protocol: Protocol = "plain") -> Answer:
    try:
        return work()
    except ServingError as exc:
        return refusal(exc, protocol=protocol)


def _json(body: bytes) -> Any:
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLarge(f"the body has {len(body):,} bytes; at most {MAX_BODY_BYTES:,} are taken")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadRequest(f"the body is not JSON: {bounded(exc)}") from exc


def _records(document: Any) -> list[Any]:
    if isinstance(document, dict) and isinstance(document.get("records"), list):
        document = document["records"]
    return document if isinstance(document, list) else [document]
