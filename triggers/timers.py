"""The sweep: the ledger against the container, so that a lost event costs minutes and not data."""

from __future__ import annotations

import asyncio
import logging

import azure.durable_functions as df
import azure.functions as func

from activities.collect import collect
from activities.sweep import free, look_over
from triggers import services
from triggers.runs import ensure_run, is_under_way, task_hub

blueprint = df.Blueprint()
log = logging.getLogger("ratchet.sweep")


@blueprint.function_name("sweep")
@blueprint.timer_trigger(arg_name="timer", schedule="%RATCHET_SWEEP_SCHEDULE%", run_on_startup=False)
@blueprint.durable_client_input(client_name="client")
async def sweep(timer: func.TimerRequest, client: df.DurableOrchestrationClient) -> None:
    """For each pipeline: record what events missed, free the claims of dead runs, start a run when something waits."""
    await sweep_all(client)


async def sweep_all(client: df.DurableOrchestrationClient) -> None:
    """Raises an ExceptionGroup with what went wrong, after all pipelines were seen to."""
    errors: list[Exception] = []
    for pipeline in services.specs().names():
        try:
            await _sweep(pipeline, client)
        except Exception as exc:
            errors.append(exc)
    if errors:
        raise ExceptionGroup("the sweep could not see to every pipeline", errors)


async def _sweep(pipeline: str, client: df.DurableOrchestrationClient) -> None:
    to = services.dependencies()
    found = await asyncio.to_thread(look_over, pipeline, to)
    if found.changes:
        log.warning("%s: %d changes in the container had not been noticed", pipeline, found.changes)
    # Asked after the claims were read: a run that begins in between has claims of its own, which are not touched.
    if await is_under_way(client, pipeline):
        return
    freed = await asyncio.to_thread(free, found.claims, to, hub=task_hub(client))
    if found.due or freed or found.stale or found.scheduled:
        await ensure_run(client, pipeline, force=found.scheduled, stale=found.stale)
    elif deleted := await asyncio.to_thread(collect, pipeline, to):
        log.info("%s: %d old caches were deleted", pipeline, deleted)
