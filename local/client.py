"""A typed client for the running app: status, runs and predictions of one pipeline, over HTTP.

ClientError
├── AppUnavailable    nobody answers, or not in time: the host is down or starting
├── NoModelYet        a prediction got 503 with Retry-After: the pipeline has no champion
├── RequestRefused    any other error status (status, detail)
└── UnexpectedAnswer  an answer that is not what the API promises
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal, Self
from urllib.parse import quote

import numpy as np
import orjson
import urllib3
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from models.errors import RatchetError, bounded

ANSWER_SECONDS = 30.0
"""Longest wait for one answer: a batch of 2,000 rows takes a fraction of a second, a cold worker a few seconds."""
CONNECTIONS = 16
"""Connections kept open: enough for as many concurrent requests as it takes to meet every worker."""
VERSION_HEADER, WORKER_HEADER = "x-ratchet-model-version", "x-ratchet-worker"

type Metrics = Mapping[str, float | None]
type Cell = float | int | str | bool | None


class ClientError(RatchetError):
    """A request to the app failed. `url` is what was asked."""

    def __init__(self, url: str, message: str) -> None:
        super().__init__(message)
        self.url = url


class AppUnavailable(ClientError):
    """Nobody answers at the address, or not in time."""


class NoModelYet(ClientError):
    """The pipeline has no champion. `retry_after` is in seconds, as the app says."""

    def __init__(self, url: str, retry_after: float, detail: str) -> None:
        super().__init__(url, f"{url} has no model to answer with: {detail}")
        self.retry_after = retry_after


class RequestRefused(ClientError):
    """The app answered with an error status."""

    def __init__(self, url: str, status: int, detail: str) -> None:
        super().__init__(url, f"{url} answered {status}: {detail}")
        self.status, self.detail = status, detail


class UnexpectedAnswer(ClientError):
    """The answer is not JSON, or not of the promised shape."""


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RunProgress(_Answer):
    """A run under way. `index` counts its step from 1 of `steps`; `done` of `total` parts where the step fans out.

    A run that has only been asked for has no `id` and no `steps` yet.
    """

    id: str | None
    step: str
    index: int
    steps: int
    done: int = 0
    total: int = 0
    since: str | None = None
    waiting: bool = False


class Champion(_Answer):
    """The version that is served."""

    version: int
    run: str = ""
    since: str = ""
    metrics: Metrics = {}


class LastRun(_Answer):
    """The run that finished last."""

    id: str
    outcome: str
    sentence: str = ""


class PipelineStatus(_Answer):
    """`GET /api/pipelines/{pipeline}`. `partitions` counts the ledger's rows by state.

    `problem` is why the latest attempt at a run failed.
    """

    pipeline: str
    champion: Champion | None = None
    partitions: Mapping[str, int] = {}
    run: RunProgress | None = None
    last_run: LastRun | None = None
    problem: str | None = None


class RunSummary(_Answer):
    """One line of the list of runs."""

    id: str
    outcome: str
    finished: str = ""


class Partition(_Answer):
    """A partition that a run claimed: `rows` clean ones, `rejected` ones in quarantine; `reason` when all of it is."""

    path: str
    state: str
    rows: int = 0
    rejected: int = 0
    reason: str = ""
    report: str = ""


class JudgedVersion(_Answer):
    """A version and what it measured on the rows that neither side had seen."""

    version: int
    metrics: Metrics = {}

    @property
    def auc(self) -> float | None:
        """Area under the ROC curve on the judged rows, if it was measured."""
        return self.metrics.get("auc")


class Decision(_Answer):
    """What the gate decided, and why in a sentence."""

    promote: bool
    sentence: str


class RunRecord(_Answer):
    """`GET /api/pipelines/{pipeline}/runs/{run}`. `champion` is the one compared with: None for the first model."""

    run: str
    pipeline: str
    outcome: Literal["promoted", "kept", "nothing_to_do", "failed"]
    sentence: str = ""
    started: str = ""
    finished: str = ""
    partitions: tuple[Partition, ...] = ()
    challenger: JudgedVersion | None = None
    champion: JudgedVersion | None = None
    judged_rows: int = 0
    decision: Decision | None = None

    def partition(self, path: str) -> Partition | None:
        """What the run made of the blob `path`; None when it did not claim it."""
        return next((partition for partition in self.partitions if partition.path == path), None)


class _Runs(_Answer):
    runs: tuple[RunSummary, ...]
    before: str | None = None


class _HostStatus(_Answer):
    workers: tuple[Any, ...]


class _Tensor(_Answer):
    name: str
    shape: tuple[int, ...]
    data: list[Any]


class _Inference(_Answer):
    outputs: tuple[_Tensor, ...]


@dataclass(frozen=True, slots=True)
class ServedBy:
    """Who answered: the model's version, and the process id of the worker."""

    version: int
    worker: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """One column of a request in the Open Inference Protocol: None is a missing value."""

    name: str
    datatype: Literal["FP64", "BYTES"]
    data: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Inference:
    """`probability` is float64 [N, K]; `served_by` is the process that computed it."""

    probability: NDArray[np.float64]
    served_by: ServedBy


class AppClient:
    """One pipeline of one running app. Safe to share between threads; close it, or use it in a `with` block."""

    def __init__(self, app_url: str, pipeline: str) -> None:
        self.app_url, self.pipeline = app_url.rstrip("/"), pipeline
        retries = urllib3.Retry(0, redirect=False)
        self._pool = urllib3.PoolManager(maxsize=CONNECTIONS, retries=retries, timeout=ANSWER_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._pool.clear()

    @property
    def predict_url(self) -> str:
        """Where a person posts one record."""
        return f"{self._pipeline_url}/predict"

    @property
    def _pipeline_url(self) -> str:
        return f"{self.app_url}/api/pipelines/{quote(self.pipeline)}"

    def status(self) -> PipelineStatus:
        """Champion, partitions and the run under way. Raises ClientError."""
        return self._read(PipelineStatus, self._pipeline_url)

    def runs(self) -> tuple[RunSummary, ...]:
        """All finished runs, oldest first. Raises ClientError."""
        page = self._read(_Runs, f"{self._pipeline_url}/runs")
        found = page.runs
        while page.before is not None:
            page = self._read(_Runs, f"{self._pipeline_url}/runs?before={quote(page.before, safe='')}")
            found = (*page.runs, *found)
        return found

    def record(self, run: str) -> RunRecord:
        """What a run did. Raises ClientError."""
        return self._read(RunRecord, f"{self._pipeline_url}/runs/{quote(run, safe='')}")

    def workers(self) -> frozenset[int]:
        """Process ids of the host's workers. Raises ClientError."""
        url = f"{self.app_url}/admin/host/status"
        listed = self._read(_HostStatus, url).workers
        return _parsed(frozenset[int], [one["pid"] if isinstance(one, dict) else one for one in listed], url)

    def predict(self, record: Mapping[str, Cell]) -> ServedBy:
        """Sends one record to the predict endpoint and tells who answered. Raises NoModelYet, ClientError."""
        return _served_by(self.predict_url, self._send("POST", self.predict_url, dict(record)))

    def infer(self, columns: Sequence[Tensor]) -> Inference:
        """Sends columns of N values each to the Open Inference Protocol. Raises NoModelYet, ClientError."""
        url = f"{self.app_url}/v2/models/{quote(self.pipeline)}/infer"
        inputs = [
            {"name": column.name, "shape": [len(column.data)], "datatype": column.datatype, "data": list(column.data)}
            for column in columns
        ]
        response = self._send("POST", url, {"inputs": inputs})
        outputs = _parsed(_Inference, _json(url, response), url).outputs
        tensor = next((output for output in outputs if output.name == "probability"), None)
        rows = len(columns[0].data)
        if tensor is None or len(tensor.shape) != 2 or tensor.shape[0] != rows:  # noqa: PLR2004 - [N, K]
            raise UnexpectedAnswer(url, f"{url} gave no output `probability` of shape [{rows}, classes]")
        try:  # The protocol allows the values flat or nested.
            probability = np.array(tensor.data, dtype=np.float64).reshape(tensor.shape)
        except (ValueError, TypeError) as exc:
            message = f"{url} gave values that are not numbers of the shape {list(tensor.shape)}: {bounded(exc)}"
            raise UnexpectedAnswer(url, message) from exc
        return Inference(probability=probability, served_by=_served_by(url, response))

    def _read[T: _Answer](self, shape: type[T], url: str) -> T:
        return _parsed(shape, _json(url, self._send("GET", url)), url)

    def _send(self, method: str, url: str, body: object | None = None) -> urllib3.BaseHTTPResponse:
        headers = {"content-type": "application/json"} if body is not None else {}
        content = orjson.dumps(body) if body is not None else None
        try:
            response = self._pool.request(method, url, body=content, headers=headers)
        except urllib3.exceptions.HTTPError as exc:
            raise AppUnavailable(url, f"{url} does not answer: {bounded(exc, 200)}") from exc
        if response.status < HTTPStatus.BAD_REQUEST:
            return response
        detail = bounded(response.data.decode("utf-8", "replace"))
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            # Asked for a prediction, the app says when to come back; else storage is away, or the host has no worker.
            if method == "POST" and "retry-after" in response.headers:
                raise NoModelYet(url, _seconds(response.headers["retry-after"]), detail)
            raise AppUnavailable(url, f"{url} answered 503: {detail}")
        raise RequestRefused(url, response.status, detail)


def _json(url: str, response: urllib3.BaseHTTPResponse) -> Any:
    try:
        return orjson.loads(response.data)
    except orjson.JSONDecodeError as exc:
        raise UnexpectedAnswer(url, f"{url} did not answer with JSON: {bounded(exc)}") from exc


def _parsed[T](shape: type[T], document: object, url: str) -> T:
    try:
        return TypeAdapter(shape).validate_python(document)
    except ValidationError as exc:
        raise UnexpectedAnswer(url, f"{url} answered in another shape than promised: {bounded(exc)}") from exc


def _served_by(url: str, response: urllib3.BaseHTTPResponse) -> ServedBy:
    try:
        return ServedBy(int(response.headers[VERSION_HEADER]), int(response.headers[WORKER_HEADER]))
    except (KeyError, ValueError) as exc:
        message = f"{url} answered without a whole number in {VERSION_HEADER} and {WORKER_HEADER}"
        raise UnexpectedAnswer(url, message) from exc


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 1.0  # Retry-After may also be a date, which this app does not send.
