"""The blueprint of management: its routes want the master key."""

from __future__ import annotations

from typing import Any

import azure.durable_functions as df
import azure.functions as func


class AdminBlueprint(df.Blueprint):  # type: ignore[misc]
    """Who may ask for predictions may not thereby retrain or roll back, nor see what the data is called.

    A route that says otherwise by its `auth_level` keeps that.
    """

    def route(self, route: str, **options: Any) -> Any:
        return super().route(route, **{"auth_level": func.AuthLevel.ADMIN, **options})
