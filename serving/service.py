"""The inference handlers: bytes in, an Answer out. What HTTP library carries them is the caller's business."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.blobs import BlobStore
from models.errors import bounded
from serving import oip, openapi, plain, scoring
from serving.answers import Answer, Protocol, answer, refusal
from serving.cache import ActiveModel, CacheLimits, ModelCache
from serving.compression import compressed, decompressed
from serving.errors import BadRequest, BodyTooLarge, NoModelYet, ServingError, UnknownModel
from serving.limits import Deadline, Limits
from serving.plain import load_json

if TYPE_CHECKING:
    import numpy as np

    from serving.session import Feed

SERVER = {"name": "ratchet", "version": "0.1.0", "extensions": oip.EXTENSIONS}
NO_HEADERS: Mapping[str, str] = {}
CHUNK_ROWS = 4096
"""Rows that run through a model at once: about 40 ms, after which the request's time is looked at."""


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
        limits: Limits | None = None,
        cache_limits: CacheLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache = ModelCache(blobs, cache_dir, ttl_seconds, limits=cache_limits or CacheLimits(), clock=clock)
        self._known, self._limits, self._clock = known, limits or Limits(), clock
        self._names: frozenset[str] = frozenset()

    def would_wait(self, pipeline: str, version: str | None = None) -> bool:
        """Whether a request for that model may have to wait for storage, so that it belongs on a thread of its own."""
        return self._cache.would_wait(pipeline, version)

    def predict(self, pipeline: str, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
        """Plain JSON for people: a record, a list of records, {"records": [...]}, or {"columns": {name: [...]}}."""

        def work(model: ActiveModel, sent: bytes, deadline: Deadline) -> Answer:
            asked = plain.read_request(sent)
            self._limits.check_rows(asked.rows)
            feed = (
                model.reader.from_records(asked.records)
                if asked.columns is None
                else model.reader.from_columns(asked.columns, asked.rows)
            )
            return plain.write_answer(asked, model.manifest, _run(model, feed, asked.rows, deadline), model.headers)

        return self._answering(pipeline, None, body, headers, work)

    def infer(
        self, pipeline: str, body: bytes, version: str | None = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> Answer:
        """POST v2/models/{name}[/versions/{version}]/infer. Header names are looked up in lower case."""

        def work(model: ActiveModel, sent: bytes, deadline: Deadline) -> Answer:
            document, raw = oip.split(sent, headers)
            if raw is None and (row := model.one_row.read(document)) is not None:
                return model.one_row.write(document.get("id"), _run(model, row, 1, deadline))
            asked = oip.read_request(document, raw, model.manifest.signature)
            self._limits.check_rows(asked.rows)
            probabilities = _run(model, model.reader.from_columns(asked.columns, asked.rows), asked.rows, deadline)
            return oip.write_answer(asked, model.manifest, probabilities, model.headers)

        return self._answering(pipeline, version, body, headers, work, protocol="oip")

    def invocations(self, pipeline: str | None, body: bytes, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
        """POST [mlflow/{name}/]invocations: MLflow's scoring protocol. Without a name, of the only pipeline."""

        def work(model: ActiveModel, sent: bytes, deadline: Deadline) -> Answer:
            table = scoring.read_table(sent, headers.get("content-type"))
            if table.rows:
                self._limits.check_rows(table.rows)
            feed = scoring.read_feed(table, model.manifest.signature)
            if not table.rows:
                return scoring.write_answer(None, model.manifest.signature, model.headers)
            answers = _run(model, feed, table.rows, deadline)
            return scoring.write_answer(answers, model.manifest.signature, model.headers)

        return self._answering(pipeline, None, body, headers, work, protocol="mlflow")

    def ping(self, pipeline: str | None) -> Answer:
        """GET [mlflow/{name}/]ping and health: 200 when a model would answer."""

        def work() -> Answer:
            self._model(pipeline, None, self._deadline())
            return scoring.ALIVE

        return _refusing(work, protocol="mlflow")

    def mlflow_version(self, pipeline: str) -> Answer:
        """GET mlflow/{name}/version: of which MLflow this is the protocol."""

        def work() -> Answer:
            self._check_name(pipeline)
            return scoring.VERSION

        return _refusing(work, protocol="mlflow")

    def metadata(self, pipeline: str, version: str | None = None) -> Answer:
        """GET v2/models/{name}[/versions/{version}]."""

        def work() -> Answer:
            model = self._model(pipeline, version, self._deadline())
            return answer(oip.model_metadata(model.manifest), headers=model.headers)

        return _refusing(work)

    def model_ready(self, pipeline: str, version: str | None = None) -> Answer:
        """GET v2/models/{name}/ready: 200 when a model would answer."""

        def work() -> Answer:
            model = self._model(pipeline, version, self._deadline())
            document = {"name": pipeline, "ready": True, "details": self._cache.status(pipeline)}
            return answer(document, headers=model.headers)

        return _refusing(work)

    def server_metadata(self) -> Answer:
        """GET v2."""
        return answer(SERVER)

    def description(self) -> Answer:
        """GET openapi.json."""
        return answer(openapi.describe(self._known()))

    def ready(self) -> Answer:
        """GET v2/health/ready: 200 from a process that answers requests, and what it knows of each model.

        Storage is not asked. Whether one model would answer is for `model_ready`.
        """
        return answer({"ready": True, "models": [self._cache.status(pipeline) for pipeline in self._known()]})

    def repository_index(self, body: bytes = b"", headers: Mapping[str, str] = NO_HEADERS) -> Answer:
        """POST v2/repository/index: every pipeline with its version, or why it has none; {"ready": true} for the first
        kind alone."""

        def work() -> Answer:
            sent, deadline = self._opened(body, headers), self._deadline()
            asked = load_json(sent) if sent.strip() else {}
            if not isinstance(asked, dict) or not isinstance(asked.get("ready", False), bool):
                raise BadRequest('the index is asked for with nothing, or with {"ready": true} or {"ready": false}')
            entries = [self._index_entry(pipeline, deadline) for pipeline in self._known()]
            return answer([e for e in entries if e["state"] == "READY"] if asked.get("ready") else entries)

        return compressed(_refusing(work), headers)

    def status(self, pipeline: str) -> dict[str, Any]:
        """For health details of one pipeline: version, run, since, last_check, age_seconds, last_error."""
        return self._cache.status(pipeline)

    def warm(self, pipelines: Iterable[str]) -> None:
        """Loads the champions, so that the first request finds them."""
        for pipeline in pipelines:
            self._cache.refresh(pipeline)

    def _only(self) -> str:
        names = list(self._known())
        if len(names) == 1:
            return names[0]
        message = f"there are {len(names)} pipelines here, so the address has to name one: /mlflow/{{pipeline}}/..."
        raise UnknownModel(f"{message}, with one of {', '.join(names)}" if names else "there is no pipeline here")

    def _model(self, pipeline: str | None, version: str | None, deadline: Deadline) -> ActiveModel:
        """None is the only pipeline."""
        if pipeline is None:
            pipeline = self._only()
        self._check_name(pipeline)
        if version is None:
            return self._cache.active(pipeline, deadline)
        return self._cache.version(pipeline, version, deadline)

    def _deadline(self) -> Deadline:
        return Deadline(self._clock, self._limits.seconds)

    def _check_name(self, pipeline: str) -> None:
        # Whoever knows the names may read a directory for them: asked again only for a name that is new.
        if pipeline not in self._names:
            self._names = frozenset(self._known())
        if pipeline not in self._names:
            raise UnknownModel(f"there is no pipeline {bounded(pipeline, 60)!r}")

    def _index_entry(self, pipeline: str, deadline: Deadline) -> dict[str, str]:
        try:
            version = str(self._cache.active(pipeline, deadline).manifest.version)
        except NoModelYet as exc:
            return {"name": pipeline, "version": "", "state": "UNAVAILABLE", "reason": str(exc)}
        return {"name": pipeline, "version": version, "state": "READY", "reason": ""}

    def _opened(self, body: bytes, headers: Mapping[str, str]) -> bytes:
        """The body without its compression. Raises BodyTooLarge, UnknownEncoding and BadRequest."""
        if len(body) > self._limits.body_bytes:
            raise BodyTooLarge(f"the body has {len(body):,} bytes; at most {self._limits.body_bytes:,} are taken")
        if "content-encoding" in headers:
            return decompressed(body, headers["content-encoding"], self._limits.body_bytes)
        return body

    def _answering(
        self,
        pipeline: str | None,
        version: str | None,
        body: bytes,
        headers: Mapping[str, str],
        work: Callable[[ActiveModel, bytes, Deadline], Answer],
        *,
        protocol: Protocol = "plain",
    ) -> Answer:
        deadline = self._deadline()
        model: ActiveModel | None = None
        try:
            sent = self._opened(body, headers)
            model = self._model(pipeline, version, deadline)
            result = work(model, sent, deadline)
        except ServingError as exc:
            result = refusal(exc, protocol=protocol, headers=model.headers if model is not None else {})
        return compressed(result, headers)


def _refusing(work: Callable[[], Answer], *, protocol: Protocol = "oip") -> Answer:
    try:
        return work()
    except ServingError as exc:
        return refusal(exc, protocol=protocol)


def _run(model: ActiveModel, feed: Feed, rows: int, deadline: Deadline) -> np.ndarray[Any, Any]:
    """Probabilities, float64 [N, K]. Raises OutOfTime."""
    deadline.check()
    if rows <= CHUNK_ROWS:
        return model.session.run(feed)
    import numpy as np

    parts = []
    for start in range(0, rows, CHUNK_ROWS):
        deadline.check()
        parts.append(model.session.run({name: values[start : start + CHUNK_ROWS] for name, values in feed.items()}))
    return np.concatenate(parts)
