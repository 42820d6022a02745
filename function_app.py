"""Composes the app by role. No work of its own; importing it needs no setting and no heavy library.

RATCHET_ROLE is `all` (default), `train` (events, orchestration, sweep) or `serve` (inference): one code base, for one
app or for two that scale apart. A role imports its own triggers only: serving installs no durable functions, and starts
without them.
"""

from __future__ import annotations

import os

import azure.functions as func

from adapters.settings import Role, role


def compose(chosen: Role) -> func.FunctionApp:
    """The app with the functions of a role."""
    if chosen == "serve":
        app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
    else:
        import azure.durable_functions as df

        from triggers import durable, management, registry, timers, uploads

        app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)
        for part in (uploads, durable, timers, management, registry):
            app.register_functions(part.blueprint)
    if chosen != "train":
        from triggers import inference, warming

        for blueprint in (inference.blueprint, warming.blueprint):
            app.register_functions(blueprint)
    return app


app = compose(role(os.environ))
