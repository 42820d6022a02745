"""Composes the app by role. No work of its own; importing it needs no setting and no heavy library.

RATCHET_ROLE is `all` (default), `train` (events, orchestration, sweep) or `serve` (inference): one code base, for one
app or for two that scale apart.
"""

from __future__ import annotations

import os

import azure.durable_functions as df
import azure.functions as func

from adapters.settings import role
from triggers import durable, inference, management, registry, timers, uploads

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)

BLUEPRINTS = {
    "train": (uploads.blueprint, durable.blueprint, timers.sweeping, management.blueprint, registry.blueprint),
    "serve": (inference.blueprint, timers.warming),
}

for part in ("train", "serve"):
    if role(os.environ) in {"all", part}:
        for blueprint in BLUEPRINTS[part]:
            app.register_functions(blueprint)
