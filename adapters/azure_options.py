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


def transport() -> Any:
    """A transport whose pool is large enough. As the SDK's own, which has ten connections, it does not try again."""
    import requests
    from azure.core.pipeline.transport import RequestsTransport
    from requests.adapters import HTTPAdapter
    from urllib3 import Retry

    session = requests.Session()
    never = Retry(total=False, redirect=False, raise_on_status=False)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS, max_retries=never))
    return RequestsTransport(session=session)


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
