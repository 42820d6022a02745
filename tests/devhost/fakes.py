"""A function app without workers: functions by their bindings, and an invoker that answers as it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from devhost.protocol import FunctionInfo, Invocation, Outcome
from devhost.settings import Settings

DONE = Outcome(ok=True)


def function(
    name: str, trigger: str, *others: dict[str, Any], retry: dict[str, Any] | None = None, **trigger_fields: Any
) -> FunctionInfo:
    """A function with this trigger, and other bindings besides."""
    binding = {"type": trigger, "name": "trigger", "direction": "IN", **trigger_fields}
    return FunctionInfo(id=f"id-{name}", name=name, bindings=(*others, binding), retry=retry)


def settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings of an app that says nothing about itself."""
    return Settings(
        app_dir=Path("app"),
        environment=environment or {},
        route_prefix="api",
        function_timeout=None,
        log_level="INFO",
        hub="TestHubName",
        max_orchestrators=10,
        max_activities=10,
        body_limit=2**20,
    )


class FakeInvoker:
    """Notes every invocation, and answers it with `answer`."""

    def __init__(self, answer: Callable[[Invocation], Outcome] = lambda _: DONE) -> None:
        self.answer = answer
        self.invocations: list[Invocation] = []

    async def invoke(self, invocation: Invocation) -> Outcome:
        self.invocations.append(invocation)
        return self.answer(invocation)
