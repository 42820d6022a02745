"""The sweep: the ledger against the container, so that a lost event costs minutes and not data."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import azure.durable_functions as df
import azure.functions as func

from activities.dependencies import utc_now
from activities.uploads import TRAINING, is_upload
from adapters.ledger import Partition, Sighting
from triggers import services
from triggers.runs import ACTIVE, ensure_run, run_status

blueprint = df.Blueprint()
log = logging.getLogger("ratchet.sweep")

RETRY_AFTER = timedelta(minutes=15)
"""How long the sweep leaves a pipeline alone after a failed run: what made it fail seldom goes away in a minute, and
each try costs. A new upload, or a request, starts one at once."""


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
    found = await asyncio.to_thread(compare, pipeline)
    if found.changes:
        log.warning("%s: %d changes in the container had not been noticed", pipeline, found.changes)
    # Asked after the claims were read: a run that begins in between has claims of its own, which are not touched.
    status = await run_status(client, pipeline)
    if status is not None and status["runtime"] in ACTIVE:
        return
    await asyncio.to_thread(free, found.claims)
    if found.due or found.claims:
        await ensure_run(client, pipeline)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the sweep found: changes that the ledger did not have, partitions to be run now, and claimed ones."""

    changes: int
    due: int
    claims: tuple[Partition, ...]


def compare(pipeline: str) -> Comparison:
    """Brings the ledger in line with the container.

    The ledger is read first: what is uploaded while the container is listed is then new to both, not missing from one.
    """
    ledger, blobs, now = services.ledger(), services.blobs(), utc_now()
    stamp = now.isoformat(timespec="microseconds")
    known = {row.path: row for row in ledger.rows(pipeline)}
    unseen = {path for path, row in known.items() if row.state != "removed"}
    changes = news = 0
    for blob in blobs.list(f"{TRAINING}/{pipeline}/"):
        path = blob.path.removeprefix(f"{TRAINING}/")
        unseen.discard(path)
        row = known.get(path)
        if is_upload(path) and (row is None or row.etag != blob.etag or row.state == "removed"):
            news += ledger.see(pipeline, Sighting(path, blob.etag, blob.size), now=stamp)
    for path in unseen:
        # Asked for itself: it may have been put back since the listing went past its name.
        if not blobs.exists(f"{TRAINING}/{path}"):
            changes += ledger.forget(pipeline, path, sequencer="", now=stamp)
            del known[path]
    return Comparison(
        changes=changes + news,
        due=news + sum(_is_due(row, now) for row in known.values()),
        claims=tuple(row for row in known.values() if row.state == "claimed"),
    )


def _is_due(row: Partition, now: datetime) -> bool:
    """Whether a partition waits for a run. One that a failed run gave back (with a reason) waits a while first."""
    if row.state != "pending":
        return False
    return not row.reason or now - datetime.fromisoformat(row.changed) >= RETRY_AFTER


def free(claims: Iterable[Partition]) -> None:
    """Gives back the claims of runs that are no more."""
    ledger, now = services.ledger(), utc_now().isoformat(timespec="microseconds")
    for row in claims:
        ledger.release(row.pipeline, row.path, run=row.run, reason="its run ended without settling it", now=now)
