"""The sweep: the ledger against the container, so that a lost event costs minutes and not data. And the warmup."""

from __future__ import annotations

import asyncio
import logging

import azure.durable_functions as df
import azure.functions as func
from azure.functions.warmup import WarmUpContext

from activities.dependencies import utc_now
from activities.uploads import TRAINING
from adapters.ledger import Sighting
from triggers import services
from triggers.runs import ACTIVE, ensure_run, run_status

sweeping = df.Blueprint()
warming = df.Blueprint()
log = logging.getLogger("ratchet.sweep")


@sweeping.function_name("sweep")
@sweeping.timer_trigger(arg_name="timer", schedule="%RATCHET_SWEEP_SCHEDULE%", run_on_startup=False)
@sweeping.durable_client_input(client_name="client")
async def sweep(timer: func.TimerRequest, client: df.DurableOrchestrationClient) -> None:
    """For each pipeline: record what events missed, free the claims of dead runs, start a run when something waits."""
    for pipeline in services.specs().names():
        status = await run_status(client, pipeline)
        active = status is not None and status["runtime"] in ACTIVE
        missed, waiting = await asyncio.to_thread(compare, pipeline, free_claims=not active)
        if missed:
            log.warning("%s: %d uploads had not been noticed", pipeline, missed)
        if waiting and not active:
            await ensure_run(client, pipeline)


def compare(pipeline: str, *, free_claims: bool) -> tuple[int, int]:
    """Brings the ledger in line with the container: (changes, pending partitions).

    With `free_claims`, claims are given back: the caller knows that no run of the pipeline is alive.
    """
    ledger, now = services.ledger(), utc_now().isoformat(timespec="microseconds")
    changes, present = 0, set()
    for blob in services.blobs().list(f"{TRAINING}/{pipeline}/"):
        path = blob.path.removeprefix(f"{TRAINING}/")
        present.add(path)
        changes += ledger.see(pipeline, Sighting(path, blob.etag, blob.size), now=now)
    waiting = 0
    for row in list(ledger.rows(pipeline)):
        if row.state != "removed" and row.path not in present:
            changes += ledger.forget(pipeline, row.path, sequencer="", now=now)
        elif row.state == "claimed" and free_claims:
            ledger.release(pipeline, row.path, run=row.run, reason="its run ended without settling it", now=now)
            waiting += 1
        else:
            waiting += row.state == "pending"
    return changes, waiting


@warming.function_name("warmup")
@warming.warm_up_trigger(arg_name="warmup_context")
def warmup(warmup_context: WarmUpContext) -> None:
    """Loads every champion before the instance gets its first request."""
    services.inference().warm(services.specs().names())
