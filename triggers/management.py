"""`/api/pipelines/...`: what there is, how it goes, and a push."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from activities.live import read_champion
from activities.waiting import read_waiting
from activities.workspace import record_path
from adapters.blobs import BlobNotFound
from adapters.ledger import TRANSITIONS
from models.errors import bounded
from triggers import services
from triggers.admin import AdminBlueprint
from triggers.answers import answer_json, answering, known_pipeline
from triggers.runs import ACTIVE, ensure_run, run_status

blueprint = AdminBlueprint()


@blueprint.function_name("list_pipelines")
@blueprint.route("api/pipelines", methods=["GET"])
@answering
def list_pipelines(req: func.HttpRequest) -> func.HttpResponse:
    """Every pipeline and its champion."""
    return answer_json(
        {"pipelines": [{"name": name, "champion": _champion(name)} for name in services.specs().names()]}
    )


@blueprint.function_name("show_pipeline")
@blueprint.route("api/pipelines/{pipeline}", methods=["GET"])
@blueprint.durable_client_input(client_name="client")
@answering
async def show_pipeline(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Champion, partitions by state, the run under way with its progress, how the last one ended.

    `problem` is what made the latest attempt fail, with or without a run's record, or null.
    """
    pipeline = known_pipeline(req)
    status = await run_status(client, pipeline)
    active = status is not None and status["runtime"] in ACTIVE
    run = _progress(status["progress"]) if status is not None and active else None
    problem = None if status is None or active else _problem(status)
    return answer_json(
        {"pipeline": pipeline, "run": run, "problem": problem, **await asyncio.to_thread(_stored, pipeline)}
    )


@blueprint.function_name("list_runs")
@blueprint.route("api/pipelines/{pipeline}/runs", methods=["GET"])
@answering
def list_runs(req: func.HttpRequest) -> func.HttpResponse:
    """Finished runs, oldest first."""
    pipeline = known_pipeline(req)
    return answer_json({"runs": [_summary(pipeline, run) for run in _runs(pipeline)]})


@blueprint.function_name("show_run")
@blueprint.route("api/pipelines/{pipeline}/runs/{run}", methods=["GET"])
@answering
def show_run(req: func.HttpRequest) -> func.HttpResponse:
    """The record of a finished run."""
    pipeline, run = known_pipeline(req), req.route_params["run"]
    return answer_json(_record(pipeline, run))


@blueprint.function_name("retrain_now")
@blueprint.route("api/pipelines/{pipeline}/retrain", methods=["POST"])
@blueprint.durable_client_input(client_name="client")
@answering
async def retrain_now(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Asks for a run, with `?force=true` even when nothing new waits."""
    pipeline = known_pipeline(req)
    force = req.params.get("force", "").lower() in {"1", "true", "yes"}
    started = await ensure_run(client, pipeline, force=force)
    return answer_json({"pipeline": pipeline, "started": started, "force": force and started}, status=202)


def _stored(pipeline: str) -> dict[str, Any]:
    counts = Counter(row.state for row in services.ledger().rows(pipeline))
    runs = _runs(pipeline)
    return {
        "champion": _champion(pipeline),
        "waiting": _waiting(pipeline),
        "partitions": {state: counts[state] for state in TRANSITIONS},
        "last_run": _summary(pipeline, runs[-1]) if runs else None,
    }


def _champion(pipeline: str) -> dict[str, Any] | None:
    champion = read_champion(services.blobs(), pipeline)
    if champion is None:
        return None
    pointer, manifest = champion.pointer, champion.manifest
    return {
        "version": manifest.version,
        "run": manifest.run,
        "since": pointer.since,
        "generation": pointer.generation,
        "why": pointer.why,
        "metrics": dict(manifest.metrics),
    }


def _waiting(pipeline: str) -> dict[str, Any] | None:
    """The challenger that waits for approval or for its window, if there is one."""
    found = read_waiting(pipeline, services.dependencies())
    return asdict(found[0]) if found is not None and found[0].open else None


def _problem(status: Mapping[str, Any]) -> str | None:
    output = status["output"]
    if status["runtime"] == "Failed":
        return bounded(output)
    return str(output["sentence"]) if isinstance(output, dict) and output.get("outcome") == "failed" else None


def _progress(custom: Mapping[str, Any] | None) -> dict[str, Any]:
    if custom is None:
        return {
            "id": None,
            "step": "quiet",
            "index": 1,
            "steps": 0,
            "done": 0,
            "total": 0,
            "since": None,
            "waiting": True,
        }
    named = {name: custom[name] for name in ("step", "index", "steps", "done", "total", "since")}
    return {"id": custom["run"], **named, "waiting": custom["step"] == "quiet"}


def _runs(pipeline: str) -> list[str]:
    """Run ids begin with their time, so their order by name is their order in time."""
    prefix = f"runs/{pipeline}/"
    return sorted(info.path.removeprefix(prefix).removesuffix(".json") for info in services.blobs().list(prefix))


def _record(pipeline: str, run: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(services.blobs().get(record_path(pipeline, run)).data)
    except BlobNotFound as exc:
        raise BlobNotFound(exc.path, f"there is no finished run {run!r} of {pipeline}") from exc
    return record


def _summary(pipeline: str, run: str) -> dict[str, Any]:
    record = _record(pipeline, run)
    return {"id": run, **{name: record[name] for name in ("outcome", "finished", "sentence")}}
