"""What the parts of devhost say to each other: functions as the worker indexes them, invocations, outcomes.

Only plain tuples, dictionaries, bytes and strings cross the socket to a worker process, so the host itself imports
no azure package. What is made for every request is a named tuple: a frozen dataclass takes three times as long to make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from devhost.durable.versions import Versions

type Datum = tuple[str, Any]
"""(kind, value) as the language worker knows it: ("string", str), ("json", str), ("bytes", bytes), ("int", int),
("http", (method, url, headers, body, route parameters, query)) inwards and
("http", (status, [(header, value)], body bytes)) outwards."""


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """One function of the app, as the language worker's indexing describes it."""

    id: str
    name: str
    bindings: tuple[Mapping[str, Any], ...]
    retry: Mapping[str, Any] | None = None

    @property
    def trigger(self) -> Mapping[str, Any]:
        """The binding whose type ends in Trigger. Every function has exactly one."""
        return next(binding for binding in self.bindings if str(binding["type"]).lower().endswith("trigger"))


class Outcome(NamedTuple):
    """How an invocation ended. `error` is `Type: message` when `ok` is false."""

    ok: bool
    value: Datum | None = None
    outputs: tuple[tuple[str, Datum], ...] = ()
    error: str = ""
    traceback: str = ""


class Invocation(NamedTuple):
    """A call of one function. `redispatch` says that it may run again on another worker when its worker dies."""

    function_id: str
    inputs: Sequence[tuple[str, Datum]]
    metadata: Mapping[str, Datum] = MappingProxyType({})
    redispatch: bool = False
    trace_parent: str = ""
    trace_state: str = ""
    retry_count: int = 0
    max_retry_count: int = 0


@dataclass(frozen=True, slots=True)
class HubOptions:
    """A task hub of Durable Functions. The limits are for the host as a whole, both bases are URLs.

    `key`, where there is one, goes into the links that are handed out.
    """

    database: Path
    name: str
    max_orchestrators: int
    max_activities: int
    webhook_base: str
    rpc_base: str
    key: str | None = None
    versions: Versions = field(default_factory=Versions)


class Invoker(Protocol):
    """Runs invocations somewhere: a pool of worker processes, or a fake in tests."""

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Never raises for a failing function: that is an Outcome with ok = False."""
        ...
