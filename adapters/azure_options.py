"""How long a storage client tries before it says that storage is away. One answer for blobs and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.settings import Settings

CONNECT_SECONDS = 5
RETRIES = 2
"""The SDK's own retries, one to three seconds apart. Few: activities have a retry policy, and serving has a model to go
on with."""
CONNECTIONS = 32
"""Kept open by each client. A step that looks at every partition has 16 requests under way, and a worker has two steps
and requests of its own; what is above the pool's size is opened anew each time, and warned about."""


BLOCK_BYTES = 256 * 1024
"""What is read from a connection at once."""


def client_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments that the clients of both kinds know.

    The transport is the SDK's own but for its pool, which has ten connections there; neither tries again by itself. The
    clients hand what they know of times and blocks to a transport of theirs only, so this one is told of them here.
    """
    import requests
    from azure.core.pipeline.transport import RequestsTransport
    from requests.adapters import HTTPAdapter
    from urllib3 import Retry

    session = requests.Session()
    never = Retry(total=False, redirect=False, raise_on_status=False)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS, max_retries=never))
    seconds = settings.storage_timeout_seconds
    transport = RequestsTransport(
        session=session,
        connection_timeout=min(CONNECT_SECONDS, seconds),
        read_timeout=seconds,
        connection_data_block_size=BLOCK_BYTES,
    )
    return {"transport": transport, "retry_total": RETRIES, "retry_connect": RETRIES, "retry_read": RETRIES}
