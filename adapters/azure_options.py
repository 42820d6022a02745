"""How long a storage client tries before it says that storage is away. One answer for blobs and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.settings import Settings

CONNECT_SECONDS = 5
RETRIES = 2
"""The SDK's own retries, one to three seconds apart. Few: activities have a retry policy, and serving has a model to go
on with."""


def patience(settings: Settings) -> dict[str, Any]:
    """Keyword arguments that the clients of both kinds know."""
    seconds = settings.storage_timeout_seconds
    return {
        "connection_timeout": min(CONNECT_SECONDS, seconds),
        "read_timeout": seconds,
        "retry_total": RETRIES,
        "retry_connect": RETRIES,
        "retry_read": RETRIES,
    }
