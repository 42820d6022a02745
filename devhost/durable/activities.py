"""Activities: each waits in the store until it has run, and its answer goes to its orchestration's inbox."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Callable

import aiohttp

from devhost.durable.functions import Functions
from devhost.durable.history import Event, Kind, event
from devhost.durable.http_call import HttpCalls
from devhost.durable.replay import HTTP_ACTIVITY
from devhost.durable.store import ActivityItem, Store
from devhost.durable.trying import until_it_works
from devhost.protocol import Datum


class Activities:
    """Runs at most `limit` at once, the HTTP calls of orchestrators among them."""

    def __init__(
        self, store: Store, functions: Functions, http: HttpCalls, wake: Callable[[str], None], *, limit: int
    ) -> None:
        self._store, self._functions, self._http, self._wake = store, functions, http, wake
        self._places = asyncio.Semaphore(limit)

    async def run(self, item: ActivityItem) -> None:
        """Runs an activity, again when its worker dies, and answers in one transaction."""
        async with self._places:
            if not self._store.has_activity(item.n):
                return
            answer = await (self._call_http(item) if item.name == HTTP_ACTIVITY else self._call(item))

        async def settle() -> None:
            with self._store.transaction():
                self._store.end_activity(item.n)
                self._store.send(item.instance, answer, item.execution)

        await until_it_works(settle, f"the end of the activity {item.name}")
        self._wake(item.instance)

    async def _call(self, item: ActivityItem) -> Event:
        value = item.input if item.input is not None else "null"
        metadata: dict[str, Datum] = {"instanceId": ("string", item.instance)}
        outcome = await self._functions.call("activity", item.name, value, metadata)
        if outcome.ok:
            result = outcome.value[1] if outcome.value is not None else None
            return event(Kind.TASK_COMPLETED, TaskScheduledId=item.task, Result=result)
        reason = f"Activity function '{item.name}' failed: {outcome.error}"
        return event(Kind.TASK_FAILED, TaskScheduledId=item.task, Reason=reason, Details=outcome.traceback)

    async def _call_http(self, item: ActivityItem) -> Event:
        try:
            result = await self._http.send(json.loads(item.input or "{}"))
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            reason = str(error) or type(error).__name__
            details = traceback.format_exc()
            return event(Kind.TASK_FAILED, TaskScheduledId=item.task, Reason=reason, Details=details)
        return event(Kind.TASK_COMPLETED, TaskScheduledId=item.task, Result=result)
