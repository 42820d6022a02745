"""The warmup: every champion is loaded before an instance gets its first request."""

from __future__ import annotations

import azure.functions as func
from azure.functions.warmup import WarmUpContext

from triggers import services

blueprint = func.Blueprint()


@blueprint.function_name("warmup")
@blueprint.warm_up_trigger(arg_name="warmup_context")
def warmup(warmup_context: WarmUpContext) -> None:
    """Loads every champion before the instance gets its first request."""
    services.inference().warm(services.specs().names())
