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

from activities.live import DoesNotServe, read_champion, read_champions_manifest
from activities.settle import abandon
from activities.waiting import read_waiting
from activities.workspace import in_parallel, record_path
from adapters.blobs import BlobNotFound
from adapters.ledger import TRANSITIONS
from models.errors import bounded
from triggers import services
from triggers.admin import AdminBlueprint
from triggers.answers import BadRequest, answer_json, answering, known_pipeline
from triggers.runs import ACTIVE, ensure_run, force_run, run_status, stop_run

blueprint = AdminBlueprint()

FLAGS = {"1": True, "true": True, "yes": True, "": True, "0": False, "false": False, "no": False}
"""What a query parameter may say. Given without a value (`?force`) it is true."""

RUNS_A_PAGE, MAX_RUNS_A_PAGE = 100, 1000
"""Each is a blob to be read."""


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

    `problem` is what is wrong with the pipeline's file now, or else what made the latest attempt fail, or null.
    """
    pipeline = known_pipeline(req)
    status = await run_status(client, pipeline)
    active = status is not None and status["runtime"] in ACTIVE
    run = _progress(status["progress"]) if status is not None and active else None
    problem = await asyncio.to_thread(_mistake, pipeline)
    if problem is None and status is not None and not active:
        problem = _problem(status)
    return answer_json(
        {"pipeline": pipeline, "run": run, "problem": problem, **await asyncio.to_thread(_stored, pipeline)}
    )


@blueprint.function_name("list_runs")
@blueprint.route("api/pipelines/{pipeline}/runs", methods=["GET"])
@answering
def list_runs(req: func.HttpRequest) -> func.HttpResponse:
    """The latest finished runs, oldest first: at most `limit`, of those before the run `before` when that is given.

    `before` of the answer asks for the page before this one, and is null when there is none.
    """
    pipeline = known_pipeline(req)
    limit, before = _limit(req), req.params.get("before", "")
    older = [run for run in _runs(pipeline) if not before or run < before]
    page = older[-limit:]
    summaries = in_parallel(lambda run: _summary(pipeline, run), page)
    return answer_json({"runs": summaries, "before": page[0] if len(older) > len(page) else None})


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
    force = _flag(req, "force")
    started = await (force_run(client, pipeline) if force else ensure_run(client, pipeline))
    return answer_json({"pipeline": pipeline, "started": started, "force": force}, status=202)


@blueprint.function_name("cancel_run")
@blueprint.route("api/pipelines/{pipeline}/runs/{run}/cancel", methods=["POST"])
@blueprint.durable_client_input(client_name="client")
@answering
async def cancel_run(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Ends the run under way without a model; its partitions go back to waiting. 409 when it is not under way.

    A step that has begun comes to its end, and nobody waits for it.
    """
    pipeline, run = known_pipeline(req), req.route_params["run"]
    finish = await stop_run(client, pipeline, run)
    await asyncio.to_thread(abandon, finish, services.dependencies())
    return answer_json({"pipeline": pipeline, "run": run, "outcome": "cancelled"})


def _limit(req: func.HttpRequest) -> int:
    """How many runs are asked for. Raises BadRequest."""
    value = req.params.get("limit", str(RUNS_A_PAGE))
    if not (value.isascii() and value.isdigit() and 0 < int(value[:9]) <= MAX_RUNS_A_PAGE):
        raise BadRequest(f"limit={bounded(value, 40)} means nothing; write a number from 1 to {MAX_RUNS_A_PAGE}")
    return int(value)


def _flag(req: func.HttpRequest, name: str) -> bool:
    """A query parameter that is true or false; absent is false. Raises BadRequest."""
    value = req.params.get(name, "false").strip().lower()
    if value not in FLAGS:
        raise BadRequest(f"{name}={bounded(value, 40)} means nothing; write {name}=true or {name}=false")
    return FLAGS[value]


def _stored(pipeline: str) -> dict[str, Any]:
    counts = Counter(row.state for row in services.ledger().rows(pipeline))
    runs = _runs(pipeline)
    return {
        "champion": _champion(pipeline),
        "waiting": _waiting(pipeline),
        "partitions": {state: counts[state] for state in TRANSITIONS if state != "superseded"},
        "last_run": _summary(pipeline, runs[-1]) if runs else None,
    }


def _champion(pipeline: str) -> dict[str, Any] | None:
    champion = read_champion(services.blobs(), pipeline)
    if champion is None:
        return None
    pointer = champion.pointer
    found = {
        "version": champion.version,
        "run": pointer.champion.run,
        "since": pointer.since,
        "generation": pointer.generation,
        "why": pointer.why,
    }
    try:
        return {**found, "metrics": dict(read_champions_manifest(champion, services.blobs()).metrics)}
    except DoesNotServe as exc:
        return {**found, "metrics": {}, "problem": bounded(exc)}


def _waiting(pipeline: str) -> dict[str, Any] | None:
    """The challenger that waits for approval or for its window, if there is one."""
    found = read_waiting(pipeline, services.dependencies())
    return asdict(found[0]) if found is not None and found[0].open else None


def _mistake(pipeline: str) -> str | None:
    """What is wrong with the pipeline's file as it is now."""
    from models.spec import SpecError

    try:
        services.specs().load(pipeline)
    except SpecError as exc:
        return bounded(exc)
    return None


def _problem(status: Mapping[str, Any]) -> str | None:
    """What made the latest attempt fail. A mistake in the file that it met may have been mended: see _mistake."""
    output = status["output"]
    if status["runtime"] == "Failed":
        return bounded(output)
    failed = isinstance(output, dict) and output.get("outcome") == "failed" and not output.get("mistake")
    return str(output["sentence"]) if failed else None


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
            "problem": "",
            "waiting": True,
        }
    named = {name: custom[name] for name in ("step", "index", "steps", "done", "total", "since", "problem")}
    return {"id": custom["run"], **named, "waiting": custom["step"] == "quiet"}


def _runs(pipeline: str) -> list[str]:
    """Run ids begin with their time, so their order by name is their order in time."""
    prefix = f"runs/{pipeline}/"
    return sorted(info.path.removeprefix(prefix).removesuffix(".json") for info in services.blobs().list(prefix))


def _record(pipeline: str, run: str) -> dict[str, Any]:
    path = record_path(pipeline, run)
    if "/" in run:  # another place than this pipeline's
        raise _no_such_run(path, pipeline, run)
    try:
        record: dict[str, Any] = json.loads(services.blobs().get(path).data)
    except BlobNotFound as exc:
        raise _no_such_run(path, pipeline, run) from exc
    return record


def _no_such_run(path: str, pipeline: str, run: str) -> BlobNotFound:
    return BlobNotFound(path, f"there is no finished run {bounded(repr(run), 60)} of {pipeline}")


def _summary(pipeline: str, run: str) -> dict[str, Any]:
    record = _record(pipeline, run)
    return {"id": run, **{name: record[name] for name in ("outcome", "finished", "sentence")}}
