"""How long a storage client tries before it says that storage is away. One answer for blobs and tables."""

from __future__ import annotations

CONNECT_SECONDS, READ_SECONDS = 5, 30
RETRIES = 2
"""The SDK's own retries, one to three seconds apart. Few: activities have a retry policy, and serving has a model to go
on with."""
PATIENCE = {
    "connection_timeout": CONNECT_SECONDS,
    "read_timeout": READ_SECONDS,
    "retry_total": RETRIES,
    "retry_connect": RETRIES,
    "retry_read": RETRIES,
}
"""Keyword arguments that the clients of both kinds know."""
