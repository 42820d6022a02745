"""An invoker that runs the real SDK's orchestrators in this process, for tests of the engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import traceback
import warnings
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from devhost.durable.history import FINISHED
from devhost.durable.service import DurableService
from devhost.durable.versions import Versions
from devhost.protocol import FunctionInfo, HubOptions, Invocation, Outcome

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import azure.durable_functions as df
    from azure.durable_functions.entity import Entity
    from azure.durable_functions.orchestrator import Orchestrator

type Program = Callable[[df.DurableOrchestrationContext], Generator[Any, Any, Any]]

SECONDS = 60.0
"""How long a test may wait: on busy processors a thousand activities take more than twenty seconds."""


class App:
    """Orchestrators, activities and entities by name, as an Invoker."""

    def __init__(self) -> None:
        self.orchestrators: dict[str, Any] = {}
        self.activities: dict[str, Callable[[Any], Any]] = {}
        self.entities: dict[str, Any] = {}
        self.calls: list[str] = []
        self.holding: set[str] = set()
        self.held, self.released = asyncio.Event(), asyncio.Event()

    def orchestrator(self, program: Program) -> Program:
        self.orchestrators[program.__name__] = Orchestrator.create(program)
        return program

    def activity(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        self.activities[function.__name__] = function
        return function

    def entity(self, function: Callable[[Any], None]) -> Callable[[Any], None]:
        self.entities[function.__name__] = Entity.create(function)
        return function

    def take(self, functions: list[Any]) -> None:
        """The functions of a `df.DFApp`, as its `get_functions` gives them."""
        members = {
            "orchestrationTrigger": self.orchestrators,
            "activityTrigger": self.activities,
            "entityTrigger": self.entities,
        }
        for function in functions:
            members[function.get_trigger().type][function.get_function_name()] = function.get_user_function()

    def functions(self) -> list[FunctionInfo]:
        kinds = [
            ("orchestrationTrigger", "orchestration", self.orchestrators),
            ("activityTrigger", "activity", self.activities),
            ("entityTrigger", "entityName", self.entities),
        ]
        return [
            FunctionInfo(f"{kind}:{name}", name, ({"type": kind, "name": "given", field: name},))
            for kind, field, members in kinds
            for name in members
        ]

    async def invoke(self, invocation: Invocation) -> Outcome:
        kind, _, name = invocation.function_id.partition(":")
        ((_, (_, value)),) = invocation.inputs
        self.calls.append(name)
        await asyncio.sleep(0)
        if name in self.holding:
            self.held.set()
            await self.released.wait()
        try:
            if kind == "activityTrigger":
                return Outcome(ok=True, value=("json", json.dumps(self.activities[name](json.loads(value)))))
            handle = self.orchestrators[name] if kind == "orchestrationTrigger" else self.entities[name]
            return Outcome(ok=True, value=("json", handle(value)))
        except Exception as exc:
            return Outcome(ok=False, error=f"{type(exc).__name__}: {exc}", traceback=traceback.format_exc())


@contextlib.asynccontextmanager
async def hub(app: App, database: Path, versions: Versions | None = None) -> AsyncIterator[Hub]:
    """A running task hub for the app."""
    options = HubOptions(
        database=database,
        name="Test",
        max_orchestrators=10,
        max_activities=10,
        webhook_base="http://localhost/runtime/webhooks/durabletask",
        rpc_base="http://localhost/durabletask/",
        versions=versions or Versions(),
    )
    service = DurableService(options, app, app.functions())
    await service.start()
    try:
        yield Hub(service)
    finally:
        await service.stop()


class Hub:
    """What a client does, in short words."""

    def __init__(self, service: DurableService) -> None:
        self.service = service

    def client(self) -> df.DurableOrchestrationClient:
        """The real SDK's client, on this task hub without a network between them."""
        client = df.DurableOrchestrationClient(self.service.client_binding()[1])

        async def send(method: str, url: str, body: Any) -> list[Any]:
            parts = urlsplit(url)
            path = parts.path.removeprefix("/durabletask/")
            return list(await self.ask(method, path, body, **dict(parse_qsl(parts.query))))

        async def post(url: str, data: Any = None, *_: Any, **__: Any) -> list[Any]:
            return await send("POST", url, data)

        async def get(url: str, *_: Any) -> list[Any]:
            status, answer = await send("GET", url, None)
            return [status, "" if answer is None else answer]

        async def delete(url: str, *_: Any) -> list[Any]:
            return await send("DELETE", url, None)

        client._post_async_request, client._get_async_request = post, get
        client._delete_async_request = delete
        return client

    async def ask(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        status, _, answer = await self.service.handle(method, path, query, headers, data)
        return status, None if answer is None else json.loads(answer)

    async def start(self, name: str, given: Any = None, instance: str = "one") -> str:
        # The SDK's client sends the input as JSON that holds JSON.
        status, answer = await self.ask("POST", f"orchestrators/{name}/{instance}", json.dumps(given))
        assert status == 202, answer
        return str(answer["id"])

    async def status(self, instance: str = "one", **query: str) -> Any:
        return (await self.ask("GET", f"instances/{instance}", **query))[1]

    async def until(self, condition: Callable[[Any], bool], instance: str = "one") -> Any:
        """Polls the status until the condition holds."""
        async with asyncio.timeout(SECONDS):
            while True:
                there = await self.status(instance)
                if there is not None and condition(there):
                    return there
                await asyncio.sleep(0.005)

    async def eventually_entity(self, name: str, key: str) -> Any:
        """The entity's state, once it has one."""
        async with asyncio.timeout(SECONDS):
            while True:
                status, state = await self.ask("GET", f"entities/{name}/{key}")
                if status == 200:
                    return state
                await asyncio.sleep(0.005)

    async def ended(self, instance: str = "one") -> Any:
        return await self.until(lambda there: there["runtimeStatus"] in FINISHED, instance)

    async def run(self, name: str, given: Any = None, instance: str = "one") -> Any:
        await self.start(name, given, instance)
        return await self.ended(instance)
