"""An app that plays runs: it takes uploads, steps through a run, promotes, swaps its workers and scores, over HTTP.

What it does wrong is asked for in `Faults`. Nothing in it waits: each look at the status is one step of the run.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import onnx
import orjson
import polars as pl
from aiohttp import web
from numpy.typing import NDArray
from onnx import TensorProto, helper

from adapters.blobs import BlobNotFound
from local.demo import Stack
from local.flights import PIPELINE, pipeline_spec
from models.manifest import GoldenRows, InputColumn, Lineage, Manifest, Signature

STEPS = [
    "quiet",
    "claim",
    "validate",
    "profile",
    "features",
    "train",
    "export",
    "evaluate",
    "gate",
    "register",
    "promote",
    "pictures",
    "settle",
]
STEPS_EACH_LOOK = 3
WORKERS = (4101, 4102)


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong. Versions and months count from 1."""

    registers: bool = True
    first_goes_live: bool = True
    kept: frozenset[int] = frozenset()
    """Versions that the gate turns down."""
    stuck_worker: int = 0
    """A worker that stays on version 1."""
    loses_rows: int = 0
    """Rows that the run does not account for."""
    unscored: frozenset[int] = frozenset()
    """Months in which the last row of a request gets null instead of a number."""
    includes_broken: bool = False
    improves: bool = True
    never_finishes: bool = False
    fails: bool = False
    """Runs end in failure: their records name no partition, which all go back to pending for a later run."""
    refuses_infer: bool = False
    shifted: float = 0.0
    """Served probabilities differ from the graph's by noise of this size."""


@dataclass
class FakeApp:
    """The state of the app, and of the account it works on."""

    faults: Faults = field(default_factory=Faults)
    blobs: dict[str, bytes] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    claimed: list[str] = field(default_factory=list)
    step: int = 0
    champion: int | None = None
    versions: int = 0
    worker_version: dict[int, int | None] = field(default_factory=lambda: dict.fromkeys(WORKERS))
    away: int = 0
    """How many times the status is not answered, but with `away_status`."""
    away_status: int = 503
    turns: Iterator[int] = field(default_factory=lambda: itertools.cycle(WORKERS))

    # The storage that the demo uploads to.

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def upload(self, path: str, data: bytes) -> None:
        self.blobs[path] = data
        self.uploads.append(path)
        self.pending.append(path.removeprefix("training/"))

    def has(self, path: str) -> bool:
        return path in self.blobs

    def read(self, path: str) -> bytes:
        if path not in self.blobs:
            raise BlobNotFound(path, f"there is no blob {path}")
        return self.blobs[path]

    # Runs.

    def look(self) -> dict[str, Any] | None:
        """Moves on a little, and gives the run as the status shows it."""
        if not self.claimed and self.pending and not (self.faults.fails and self.records):
            self.claimed, self.pending, self.step = self.pending, [], 1
        elif self.claimed and self.step + STEPS_EACH_LOOK <= len(STEPS):
            self.step += STEPS_EACH_LOOK
        elif self.claimed and not self.faults.never_finishes:
            self._finish()
        if not self.claimed:
            return None
        fans_out = STEPS[self.step - 1] in {"validate", "profile", "features"}
        done, total = (1, 2) if fans_out else (0, 0)
        return {
            "id": None if self.step == 1 else f"run-{len(self.records) + 1}",
            "step": STEPS[self.step - 1],
            "index": self.step,
            "steps": 0 if self.step == 1 else len(STEPS),
            "done": done,
            "total": total,
            "since": None if self.step == 1 else "2026-01-01T00:00:00Z",
            "waiting": self.step == 1,
        }

    def _finish(self) -> None:
        if self.faults.fails:
            self.records.append(_failed(f"run-{len(self.records) + 1}"))
            self.pending, self.claimed = self.claimed, []
            return
        partitions = [self._partition(path) for path in self.claimed]
        compared = self.champion
        challenger = None
        promote = False
        if self.faults.registers:
            self.versions += 1
            challenger = {"version": self.versions, "metrics": {"auc": 0.7 + self.versions / 100}}
            promote = self.versions not in self.faults.kept and (self.versions > 1 or self.faults.first_goes_live)
        if promote:
            self.champion = self.versions
            self._store(self.versions)
        sentence = "the gain is above zero with 90 % confidence" if promote else "the gain is not above zero"
        run = f"run-{len(self.records) + 1}"
        self.records.append(
            {
                "run": run,
                "pipeline": PIPELINE,
                "started": "2026-01-01T00:00:00Z",
                "finished": "2026-01-01T00:00:09Z",
                "outcome": "promoted" if promote else "kept",
                "sentence": sentence,
                "partitions": partitions,
                "challenger": challenger,
                "champion": {"version": compared, "metrics": {"auc": 0.7}} if compared else None,
                "judged_rows": 6154,
                "decision": {"promote": promote, "sentence": sentence, "checks": []},
                "steps": [{"name": name, "seconds": 0.1} for name in STEPS],
            }
        )
        self.claimed = []

    def _partition(self, path: str) -> dict[str, Any]:
        rows = pl.read_csv(io.BytesIO(self.blobs[f"training/{path}"]), infer_schema_length=None)
        answer = {"path": path, "state": "included", "rows": rows.height, "rejected": 0, "reason": "", "report": ""}
        if "arr_delay" in rows.columns:
            rejected = rows["arr_delay"].null_count()
            return answer | {"rows": rows.height - rejected - self.faults.loses_rows, "rejected": rejected}
        if self.faults.includes_broken:
            return answer
        reason = f"{path} has no column `arr_delay`; columns found: {', '.join(rows.columns)}"
        return answer | {"state": "quarantined", "rows": 0, "reason": reason, "report": f"quarantine/{path}.json"}

    # Models: version 1 looks at the hour alone, the others at the rain as well.

    def _store(self, version: int) -> None:
        graph = hour_graph()
        manifest = Manifest(
            pipeline=PIPELINE,
            version=version,
            run=f"run-{version}",
            created="2026-01-01T00:00:09Z",
            model_path=f"models/{PIPELINE}/versions/{version}/model.onnx",
            model_sha256=hashlib.sha256(graph).hexdigest(),
            model_bytes=len(graph),
            signature=signature(),
            golden=GoldenRows(inputs={}, probabilities=()),
            lineage=Lineage(dataset="d", spec="s", holdout_from=0.0, partitions=()),
        )
        self.blobs[f"models/{PIPELINE}/versions/{version}/model.onnx"] = graph
        self.blobs[f"models/{PIPELINE}/versions/{version}/model.json"] = orjson.dumps(manifest.to_dict())

    def answer(self) -> tuple[int | None, dict[str, str]]:
        """The version that the next worker in turn answers with. Like a real one it looks for news after answering."""
        worker = next(self.turns)
        version = self.worker_version[worker]
        if version is None or worker != self.faults.stuck_worker:
            self.worker_version[worker] = self.champion
        if version is None:
            version = self.worker_version[worker]
        return version, {"x-ratchet-model-version": str(version), "x-ratchet-worker": str(worker)}

    def probability(self, version: int, columns: dict[str, list[Any]]) -> NDArray[np.float64]:
        hour = np.array(columns["hour"], dtype=np.float64) / 24
        late = hour
        if version > 1 and self.faults.improves:
            late = hour / 2 + (np.array(columns["precip"], dtype=np.float64) > 0) * 0.25
        if self.faults.shifted:
            late = np.clip(late + np.random.default_rng(7).normal(0, self.faults.shifted, len(late)), 0, 1)
        return np.stack([1 - late, late], axis=1)

    # HTTP.

    def routes(self) -> web.Application:
        app = web.Application(client_max_size=16 * 1024**2)
        base = f"/api/pipelines/{PIPELINE}"
        app.add_routes(
            [
                web.get("/admin/host/status", self._host),
                web.get(base, self._status),
                web.get(f"{base}/runs", self._runs),
                web.get(f"{base}/runs/{{run}}", self._record),
                web.post(f"{base}/predict", self._predict),
                web.post(f"/v2/models/{PIPELINE}/infer", self._infer),
            ]
        )
        return app

    async def _host(self, _: web.Request) -> web.Response:
        return web.json_response({"state": "Running", "workers": list(WORKERS)})

    async def _status(self, _: web.Request) -> web.Response:
        if self.away:
            self.away -= 1
            return web.json_response({"error": "no worker"}, status=self.away_status)
        run = self.look()
        champion = {"version": self.champion, "run": "r", "since": "s", "metrics": {"auc": 0.7}}
        last = self.records[-1] if self.records else None
        summary = {"id": last["run"], "outcome": last["outcome"], "sentence": last["sentence"]} if last else None
        return web.json_response(
            {
                "pipeline": PIPELINE,
                "champion": champion if self.champion else None,
                "partitions": {"pending": len(self.pending), "claimed": len(self.claimed)},
                "run": run,
                "last_run": summary,
            }
        )

    async def _runs(self, _: web.Request) -> web.Response:
        runs = [{"id": one["run"], "outcome": one["outcome"], "finished": one["finished"]} for one in self.records]
        return web.json_response({"runs": runs})

    async def _record(self, request: web.Request) -> web.Response:
        found = [one for one in self.records if one["run"] == request.match_info["run"]]
        return web.json_response(found[0]) if found else web.json_response({"error": "no such run"}, status=404)

    async def _predict(self, request: web.Request) -> web.Response:
        record = orjson.loads(await request.read())
        version, headers = self.answer()
        if version is None:
            return web.json_response({"error": "no model yet"}, status=503, headers={"Retry-After": "5"})
        late = float(self.probability(version, {name: [value] for name, value in record.items()})[0, 1])
        prediction = {"label": "late", "probability": late, "probabilities": {"late": late, "on time": 1 - late}}
        document = {"pipeline": PIPELINE, "version": version, "run": "r", "predictions": [prediction]}
        return web.json_response(document, headers=headers)

    async def _infer(self, request: web.Request) -> web.Response:
        document = orjson.loads(await request.read())
        if self.faults.refuses_infer:
            return web.json_response({"error": "input `hour` is missing"}, status=400)
        version, headers = self.answer()
        if version is None:
            return web.json_response({"error": "no model yet"}, status=503, headers={"Retry-After": "5"})
        columns = {tensor["name"]: tensor["data"] for tensor in document["inputs"]}
        missing = set(pipeline_spec().inputs) ^ set(columns)
        if missing:
            return web.json_response({"error": f"columns: {sorted(missing)}"}, status=400)
        values: list[float | None] = [*self.probability(version, columns).ravel().tolist()]
        if columns["month"][0] in self.faults.unscored:
            values[-1] = None
        output = {"name": "probability", "datatype": "FP64", "shape": [len(values) // 2, 2], "data": values}
        answer = {"model_name": PIPELINE, "model_version": str(version), "outputs": [output]}
        return web.Response(body=orjson.dumps(answer), content_type="application/json", headers=headers)


def _failed(run: str) -> dict[str, Any]:
    return {
        "run": run,
        "pipeline": PIPELINE,
        "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:00:09Z",
        "outcome": "failed",
        "sentence": "Activity function 'train' failed: MemoryError",
        "partitions": [],
        "dataset": None,
        "challenger": None,
        "champion": None,
        "judged_rows": 0,
        "decision": None,
        "steps": [],
    }


def signature() -> Signature:
    """All features of the pipeline, as its models take them."""
    spec = pipeline_spec()
    kinds: dict[str, Any] = {name: spec.columns[name].type for name in spec.inputs}
    return Signature(tuple(InputColumn(name, kind) for name, kind in kinds.items()), ("on time", "late"), "late")


def hour_graph() -> bytes:
    """Version 1 as a graph: probability late = hour / 24, from the pipeline's raw columns."""
    inputs = [
        helper.make_tensor_value_info(
            column.name, TensorProto.STRING if column.kind == "category" else TensorProto.DOUBLE, ["N"]
        )
        for column in signature().inputs
    ]
    output = helper.make_tensor_value_info("probability", TensorProto.DOUBLE, ["N", 2])
    constants = [
        helper.make_tensor("hours_a_day", TensorProto.DOUBLE, [1], [24.0]),
        helper.make_tensor("one", TensorProto.DOUBLE, [1], [1.0]),
        helper.make_tensor("as_column", TensorProto.INT64, [2], [-1, 1]),
    ]
    nodes = [
        helper.make_node("Div", ["hour", "hours_a_day"], ["late"]),
        helper.make_node("Sub", ["one", "late"], ["punctual"]),
        helper.make_node("Reshape", ["late", "as_column"], ["late_column"]),
        helper.make_node("Reshape", ["punctual", "as_column"], ["punctual_column"]),
        helper.make_node("Concat", ["punctual_column", "late_column"], ["probability"], axis=1),
    ]
    graph = helper.make_graph(nodes, "hour", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized


class Served:
    """Serves an aiohttp application from a thread of its own, on a free port of the loopback."""

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-app")

    def __enter__(self) -> str:
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> str:
        self._runner = web.AppRunner(self._app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"


@dataclass(frozen=True, slots=True)
class FakeStack:
    """What `start_stack` gives, without a process behind it."""

    app_url: str
    log_dir: Path
    blob_connection_string: str = "UseDevelopmentStorage=true"
    mlflow_url: str = "http://127.0.0.1:5000"


def stack_of(app: FakeApp, events: list[str] | None = None) -> Stack:
    """A stack that serves `app` while it is up, and notes in `events` when it started and stopped."""
    noted = events if events is not None else []

    @contextmanager
    def start(data: Path) -> Iterator[FakeStack]:
        noted.append("started")
        try:
            with Served(app.routes()) as url:
                yield FakeStack(app_url=url, log_dir=data / "logs")
        finally:
            noted.append("stopped")

    return Stack(start=start, storage=lambda _: app)
