"""Entities: what their inbox holds runs as one batch, and its answers go out in the same transaction."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from devhost.durable.errors import NotFound
from devhost.durable.functions import Functions
from devhost.durable.history import Event, Kind, event
from devhost.durable.store import Store, compact

log = logging.getLogger("devhost.durable")

LONGEST_BATCH = 5000
"""Operations that an entity is given at once. As in the extension."""


class Entities:
    """The entities of a task hub. An entity is never in two batches at once: the engine's pump sees to that."""

    def __init__(self, store: Store, functions: Functions, wake: Callable[[str], None]) -> None:
        self._store, self._functions, self._wake = store, functions, wake

    def signal(self, name: str, key: str, operation: str, data: str | None) -> None:
        """A one-way message to an entity. Raises InvalidAction when the app has no such entity function."""
        self._functions.check("entity", name)
        entity = _id(name, key)
        with self._store.transaction():
            self._store.send(entity, {"op": operation, "signal": True, "id": str(uuid.uuid4()), "input": data})
        self._wake(entity)

    def state(self, name: str, key: str) -> str | None:
        """JSON text, or None when the entity does not exist."""
        exists, state = self._store.entity(_id(name, key))
        return state if exists else None

    def purge(self, entity: str) -> int:
        """Entities deleted: 1. Raises NotFound."""
        name, _, key = entity[1:].partition("@")
        with self._store.transaction():
            deleted = self._store.forget_entity(_id(name, key))
        if not deleted:
            raise NotFound(f"There is no entity {entity}.")
        return deleted

    async def work(self, entity: str) -> None:
        """Runs what waits for this entity."""
        messages = self._store.inbox(entity, limit=LONGEST_BATCH)
        if not messages:
            return
        requests = [message for _, _, message in messages]
        exists, state = self._store.entity(entity)
        result = await self._run(entity, requests, exists=exists, state=state)
        wake: set[str] = set()
        with self._store.transaction():
            self._store.taken(entity, messages[-1][0])
            self._store.set_entity(entity, exists=result["entityExists"], state=result["entityState"])
            for request, answer in zip(requests, result["results"], strict=True):
                if request.get("signal"):
                    if answer["isError"]:  # nobody waits for its answer
                        log.warning("the signal %r to %s failed: %s", request["op"], entity, answer["result"])
                    continue
                document = {"result": answer["result"]}
                if answer["isError"]:
                    document["exceptionType"] = "Error"
                raised = event(Kind.EVENT_RAISED, Name=request["id"], Input=compact(document))
                self._store.send(request["parent"], raised, request.get("parentExecution"))
                wake.add(request["parent"])
            if self._store.inbox(entity, limit=1):
                wake.add(entity)
        for other in wake:
            self._wake(other)

    async def _run(self, entity: str, requests: Sequence[Event], *, exists: bool, state: str | None) -> dict[str, Any]:
        _, name, key = entity.split("@", 2)

        def failed(text: str) -> dict[str, Any]:
            answers = [{"isError": True, "result": compact(text)} for _ in requests]
            return {"entityExists": exists, "entityState": state, "results": answers}

        if not self._functions.knows("entity", name):
            return failed(f"Entity function '{name}' does not exist.")
        batch = [
            {"name": r["op"], "input": r.get("input") or "null", "isSignal": bool(r.get("signal"))} for r in requests
        ]
        context = {"self": {"name": name, "key": key}, "exists": exists, "state": state, "batch": batch}
        outcome = await self._functions.call("entity", name, compact(context))
        if not outcome.ok or outcome.value is None:
            return failed(outcome.error)
        result: dict[str, Any] = json.loads(outcome.value[1])
        return result


def _id(name: str, key: str) -> str:
    return f"@{name.lower()}@{key}"
