"""The sweep: the ledger against the container, so that a lost event costs minutes and not data. And the warmup."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

import azure.durable_functions as df
import azure.functions as func
from azure.functions.warmup import WarmUpContext

from activities.dependencies import utc_now
from activities.uploads import TRAINING
from adapters.ledger import Partition, Sighting
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
        missed, waiting, claims = await asyncio.to_thread(compare, pipeline)
        if missed:
            log.warning("%s: %d uploads had not been noticed", pipeline, missed)
        # Asked after the claims were read: a run that begins in between has claims of its own, which are not touched.
        status = await run_status(client, pipeline)
        if status is not None and status["runtime"] in ACTIVE:
            continue
        await asyncio.to_thread(free, claims)
        if waiting or claims:
            await ensure_run(client, pipeline)


def compare(pipeline: str) -> tuple[int, int, list[Partition]]:
    """Brings the ledger in line with the container: (changes, pending partitions, claimed partitions)."""
    ledger, now = services.ledger(), utc_now().isoformat(timespec="microseconds")
    changes, waiting, present, claims = 0, 0, set(), []
    for blob in services.blobs().list(f"{TRAINING}/{pipeline}/"):
        path = blob.path.removeprefix(f"{TRAINING}/")
        present.add(path)
        changes += ledger.see(pipeline, Sighting(path, blob.etag, blob.size), now=now)
    for row in list(ledger.rows(pipeline)):
        if row.state != "removed" and row.path not in present:
            changes += ledger.forget(pipeline, row.path, sequencer="", now=now)
        elif row.state == "claimed":
            claims.append(row)
        else:
            waiting += row.state == "pending"
    return changes, waiting, claims


def free(claims: Iterable[Partition]) -> None:
    """Gives back the claims of runs that are no more."""
    ledger, now = services.ledger(), utc_now().isoformat(timespec="microseconds")
    for row in claims:
        ledger.release(row.pipeline, row.path, run=row.run, reason="its run ended without settling it", now=now)


@warming.function_name("warmup")
@warming.warm_up_trigger(arg_name="warmup_context")
def warmup(warmup_context: WarmUpContext) -> None:
    """Loads every champion before the instance gets its first request."""
    services.inference().warm(services.specs().names())
