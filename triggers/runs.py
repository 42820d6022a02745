"""Start a pipeline's run, or be content that one is under way."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import azure.durable_functions as df

from activities.contracts import Finish, RetrainRequest
from activities.dependencies import utc_now
from models.errors import RatchetError, bounded
from orchestrations.retrain import FORCE, RETRAIN, instance_id
from orchestrations.steps import with_step

FORCE_TRIES = 3
STOP_LOOKS, STOP_LOOK_SECONDS = 100, 0.1
"""How often, and how far apart, an instance that was terminated is looked at until it has ended."""

ACTIVE = frozenset({"Pending", "Running", "ContinuedAsNew", "Suspended"})


class RunsKeepEnding(RatchetError):
    """Each time that a run was to be told something it had just ended. Worth trying again."""

    def __init__(self, pipeline: str) -> None:
        super().__init__(f"{pipeline}'s runs end faster than they can be told to go on; ask again")
        self.pipeline = pipeline


class NotUnderWay(RatchetError):
    """A run that is to be cancelled has ended, or is none."""

    def __init__(self, pipeline: str, run: str) -> None:
        super().__init__(f"run {bounded(run, 60)!r} of {pipeline} is not under way")
        self.pipeline, self.run = pipeline, run


async def ensure_run(
    client: df.DurableOrchestrationClient, pipeline: str, *, force: bool = False, stale: bool = False
) -> bool:
    """Asks for a run; whether this call started it.

    Starting first and asking afterwards leaves no gap between check and start. The platform refuses a second start
    with a bare Exception, so whether it was a refusal is seen from the instance itself.
    """
    request = RetrainRequest(pipeline, force=force, stale=stale, hub=task_hub(client))
    try:
        await client.start_new(RETRAIN, instance_id(pipeline), request.to_dict())
    except Exception:
        status = await run_status(client, pipeline)
        if status is None or status["runtime"] not in ACTIVE:
            raise
        return False
    return True


async def force_run(client: df.DurableOrchestrationClient, pipeline: str) -> bool:
    """Asks for a run that trains whatever there is; whether this call started it.

    A run under way is told: in its quiet period it is forced itself, later on another one follows it. It may end
    between being asked and being told; then it is started again.
    """
    for _ in range(FORCE_TRIES):
        if await ensure_run(client, pipeline, force=True):
            return True
        try:
            await client.raise_event(instance_id(pipeline), FORCE, "now")
        except Exception:
            status = await run_status(client, pipeline)
            if status is not None and status["runtime"] in ACTIVE:
                raise
        else:
            return False
    raise RunsKeepEnding(pipeline)


async def stop_run(client: df.DurableOrchestrationClient, pipeline: str, run: str) -> Finish:
    """Terminates the pipeline's instance if it is at this run; how far that had come. Raises NotUnderWay."""
    status = await run_status(client, pipeline)
    progress = status["progress"] if status is not None else None
    if status is None or status["runtime"] not in ACTIVE or not progress or progress["run"] != run:
        raise NotUnderWay(pipeline, run)
    if await _terminated(client, pipeline, f"run {run} was cancelled on request") != "Terminated":
        raise NotUnderWay(pipeline, run)
    since = datetime.fromisoformat(progress["since"]) if progress["since"] else utc_now()
    return Finish(
        pipeline,
        run,
        progress["started"],
        "cancelled",
        "Cancelled on request.",
        seconds=tuple(with_step(progress.get("seconds", ()), progress["step"], since, utc_now())),
        busy=tuple(progress.get("busy", ())),
        executions=progress.get("executions", 0),
    )


async def is_under_way(client: df.DurableOrchestrationClient, pipeline: str) -> bool:
    """Whether a run is. An instance whose run is over, but which a step that hangs keeps from ending, is ended."""
    status = await run_status(client, pipeline)
    if status is None or status["runtime"] not in ACTIVE:
        return False
    if not (status["progress"] or {}).get("over"):
        return True
    return await _terminated(client, pipeline, "its run was given up") in ACTIVE


async def _terminated(client: df.DurableOrchestrationClient, pipeline: str, why: str) -> str:
    """The status in which the pipeline's instance has ended; an active one when it is slow to end."""
    await client.terminate(instance_id(pipeline), why)
    runtime = ""
    for _ in range(STOP_LOOKS):
        status = await run_status(client, pipeline)
        runtime = status["runtime"] if status is not None else ""
        if runtime not in ACTIVE:
            break
        await asyncio.sleep(STOP_LOOK_SECONDS)
    return runtime


def task_hub(client: df.DurableOrchestrationClient) -> str:
    """The name of the app's task hub. The client binding carries it; the SDK has no public name for it."""
    bindings = getattr(client, "_orchestration_bindings", None)
    return str(bindings.task_hub_name) if bindings is not None else ""


async def run_status(client: df.DurableOrchestrationClient, pipeline: str) -> dict[str, Any] | None:
    """Runtime status and custom status of the pipeline's instance, or None when it never ran."""
    status = await client.get_status(instance_id(pipeline))
    if status is None or status.runtime_status is None:
        return None
    return {"runtime": status.runtime_status.name, "progress": status.custom_status, "output": status.output}
