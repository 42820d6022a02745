"""What the host needs of Durable Functions: start it, stop it, hand it requests, and make clients for functions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from devhost.durable.engine import Engine
from devhost.durable.http_api import HttpApi
from devhost.durable.store import Store
from devhost.protocol import Datum, FunctionInfo, HubOptions, Invoker


class DurableService:
    """A task hub. It belongs to the event loop that starts it."""

    def __init__(self, options: HubOptions, invoker: Invoker, functions: Sequence[FunctionInfo]) -> None:
        self._store = Store(options.database)
        self._engine = Engine(
            self._store,
            invoker,
            functions,
            max_orchestrators=options.max_orchestrators,
            max_activities=options.max_activities,
            versions=options.versions,
        )
        self._api = HttpApi(
            self._engine,
            hub=options.name,
            webhook_base=options.webhook_base,
            rpc_base=options.rpc_base,
            key=options.key,
        )

    async def start(self) -> None:
        """Goes on with everything that was under way when the task hub was last used."""
        self._engine.start()

    async def stop(self) -> None:
        """Leaves what is under way for the next start."""
        await self._engine.stop()
        self._store.close()

    def client_binding(self) -> Datum:
        """The input of a function with a durableClient binding."""
        return "string", json.dumps(self._api.client_binding())

    async def handle(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        base: str | None = None,
    ) -> tuple[int, Mapping[str, str], bytes | None]:
        """`path` is what follows the prefix, `base` the URL prefix for links in the answer. JSON body or None."""
        status, extra, document = await self._api.handle(method, path, query, headers, body, base)
        return status, extra, None if document is None else json.dumps(document).encode()
