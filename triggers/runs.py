"""Start a pipeline's run, or be content that one is under way."""

from __future__ import annotations

from typing import Any

import azure.durable_functions as df

from activities.contracts import RetrainRequest
from orchestrations.retrain import RETRAIN, instance_id

ACTIVE = frozenset({"Pending", "Running", "ContinuedAsNew", "Suspended"})


async def ensure_run(client: df.DurableOrchestrationClient, pipeline: str, *, force: bool = False) -> bool:
    """Asks for a run; whether this call started it.

    Starting first and asking afterwards leaves no gap between check and start. The platform refuses a second start
    with a bare Exception, so whether it was a refusal is seen from the instance itself.
    """
    instance = instance_id(pipeline)
    try:
        await client.start_new(RETRAIN, instance, RetrainRequest(pipeline, force).to_dict())
    except Exception:
        status = await run_status(client, pipeline)
        if status is None or status["runtime"] not in ACTIVE:
            raise
        return False
    return True


async def run_status(client: df.DurableOrchestrationClient, pipeline: str) -> dict[str, Any] | None:
    """Runtime status and custom status of the pipeline's instance, or None when it never ran."""
    status = await client.get_status(instance_id(pipeline))
    if status is None or status.runtime_status is None:
        return None
    return {"runtime": status.runtime_status.name, "progress": status.custom_status, "output": status.output}
