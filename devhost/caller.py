"""Calls a function on behalf of its trigger: adds what its other bindings want, and keeps count of what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from devhost.catalog import DURABLE_CLIENT, kind
from devhost.protocol import Datum, FunctionInfo, Invocation, Invoker, Outcome


class Caller:
    """Turns a trigger's datum into an invocation. `client_binding` gives the datum of a durableClient input."""

    def __init__(self, invoker: Invoker, client_binding: Callable[[], Datum] | None = None) -> None:
        self._invoker = invoker
        self._client_binding = client_binding
        self._running: set[asyncio.Task[None]] = set()
        self._known: dict[str, tuple[str, tuple[str, ...]]] = {}

    def invocation(
        self,
        function: FunctionInfo,
        datum: Datum,
        *,
        metadata: Mapping[str, Datum] | None = None,
        trace_parent: str = "",
        trace_state: str = "",
        retry_count: int = 0,
        max_retry_count: int = 0,
    ) -> Invocation:
        """The invocation of this function with this trigger datum."""
        trigger, clients = self._names(function)
        inputs: list[tuple[str, Datum]] = [(trigger, datum)]
        if self._client_binding is not None:
            inputs += [(name, self._client_binding()) for name in clients]
        return Invocation(
            function_id=function.id,
            inputs=inputs,
            metadata=metadata or {},
            trace_parent=trace_parent,
            trace_state=trace_state,
            retry_count=retry_count,
            max_retry_count=max_retry_count,
        )

    def _names(self, function: FunctionInfo) -> tuple[str, tuple[str, ...]]:
        """Of the trigger's parameter and of the durable clients'. Kept, because each request asks."""
        names = self._known.get(function.id)
        if names is None:
            clients = (str(binding["name"]) for binding in function.bindings if kind(binding) == DURABLE_CLIENT)
            names = self._known[function.id] = (str(function.trigger["name"]), tuple(clients))
        return names

    async def call(
        self,
        function: FunctionInfo,
        datum: Datum,
        *,
        metadata: Mapping[str, Datum] | None = None,
        trace_parent: str = "",
        trace_state: str = "",
    ) -> Outcome:
        """Runs the function once and waits for it."""
        return await self._invoker.invoke(
            self.invocation(function, datum, metadata=metadata, trace_parent=trace_parent, trace_state=trace_state)
        )

    async def call_with_retries(self, function: FunctionInfo, datum: Datum) -> Outcome:
        """Runs the function, again and again while its retry policy says so. A negative count is without end."""
        policy = function.retry or {}
        most = int(policy.get("max_retry_count", 0))
        retries = 0
        while True:
            outcome = await self._invoker.invoke(
                self.invocation(function, datum, retry_count=retries, max_retry_count=most)
            )
            if outcome.ok or 0 <= most <= retries:
                return outcome
            retries += 1
            await asyncio.sleep(retry_delay(policy, retries))

    def begin(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
        """Runs `work` in the background; `drain` waits for it."""

        async def run() -> None:
            await work

        task = asyncio.get_running_loop().create_task(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def drain(self, seconds: float) -> None:
        """Waits for what runs in the background, for this long at most, then cancels the rest."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        rest = list(self._running)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


def retry_delay(policy: Any, retry: int) -> float:
    """Seconds before the `retry`-th retry (from 1): the fixed delay, or one that doubles between its two bounds."""
    if "delay_interval" in policy:
        return float(policy["delay_interval"])
    shortest, longest = float(policy.get("minimum_interval", 0)), float(policy.get("maximum_interval", 0))
    return min(longest, shortest * 2.0 ** min(retry - 1, 32))
