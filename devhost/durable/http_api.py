"""The HTTP API of Durable Functions: the SDK's RPC calls and `/runtime/webhooks/durabletask`, one handler for both."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from devhost.durable.engine import Engine
from devhost.durable.errors import AlreadyRunning, Gone, InvalidAction, NotFound
from devhost.durable.history import FINISHED, for_status, parse_timestamp, timestamp
from devhost.durable.store import Instance, Query, StoredEntity, compact

type Reply = tuple[int, dict[str, str], Any]
"""(status, headers, JSON document or None)."""

CONTINUATION = "x-ms-continuation-token"
EVERYTHING = 2**31 - 1
RUNTIME_STATUSES = (
    "Running",
    "Completed",
    "ContinuedAsNew",
    "Failed",
    "Canceled",
    "Terminated",
    "Pending",
    "Suspended",
    "Unknown",
)
LONGEST_TIMESTAMP = len("2026-01-31T12:00:00.000000Z")
_SHORT_YEAR = re.compile(r"^\d{1,3}(?=-)")


class HttpApi:
    """Requests by path (what follows the prefix), query and body."""

    def __init__(self, engine: Engine, *, hub: str, webhook_base: str, rpc_base: str, key: str | None) -> None:
        self._engine, self._control, self._hub, self._key = engine, engine.control, hub, key
        self._base, self._rpc_base = webhook_base.rstrip("/"), rpc_base.rstrip("/") + "/"

    def client_binding(self) -> dict[str, Any]:
        """What the SDK's client is made from."""
        code = f"code={self._key}" if self._key else ""
        create = f"{self._base}/orchestrators/{{functionName}}[/{{instanceId}}]"
        return {
            "taskHubName": self._hub,
            "connectionName": None,
            "creationUrls": {
                "createNewInstancePostUri": f"{create}?{code}",
                "createAndWaitOnNewInstancePostUri": (
                    f"{create}?timeout={{timeoutInSeconds}}&pollingInterval={{intervalInSeconds}}&{code}"
                ),
            },
            "managementUrls": self._links("INSTANCEID", self._base),
            "baseUrl": self._base,
            "requiredQueryStringParameters": code,
            "rpcBaseUrl": self._rpc_base,
            "httpBaseUrl": None,
        }

    async def handle(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        base: str | None,
    ) -> Reply:
        """Never raises for a request that is wrong: that is a reply with its status."""
        request = _Request(method, path, query, headers, body, (base or self._base).rstrip("/"))
        try:
            return await self._route(request)
        except NotFound:
            return 404, {}, None
        except Gone:
            return 410, {}, None
        except (InvalidAction, ValueError, RecursionError) as exc:  # the last for JSON nested too deeply
            return 400, {}, _problem("One or more of the arguments submitted is incorrect", exc)
        except AlreadyRunning as exc:
            return 409, {}, _problem("Something went wrong while processing your request", exc)

    async def _route(self, request: _Request) -> Reply:
        match request.method, request.segments:
            case "POST", ["orchestrators", name]:
                return await self._start(request, name, None)
            case "POST", ["orchestrators", name, instance]:
                return await self._start(request, name, instance)
            case "GET", ["entities", *names] if len(names) < len(("name", "key")):
                return self._entities(request, names[0] if names else "")
            case _, ["entities", name, key]:
                return self._entity(request, name, key)
            case "GET", ["instances"]:
                return self._query(request)
            case "DELETE", ["instances"]:
                return self._purge_many(request)
            case "GET", ["instances", instance]:
                return self._status(request, instance)
            case "DELETE", ["instances", instance]:
                purge = self._engine.entities.purge if instance.startswith("@") else self._control.purge
                return 200, {}, {"instancesDeleted": purge(instance)}
            case "POST", ["instances", instance, operation, *rest]:
                return self._operate(request, instance, operation.lower(), rest)
        return 404, {}, None

    async def _start(self, request: _Request, name: str, instance: str | None) -> Reply:
        started = self._control.start_new(name, instance, request.json_body(), request.text("version") or "")
        timeout = request.text("timeout")
        if timeout and request.text("pollingInterval") and await self._engine.wait(started, float(timeout)):
            there = self._control.existing(started)
            return (200, {}, _value(there.output)) if there.status == "Completed" else self._status(request, started)
        return self._accepted(started, request.base)

    def _entity(self, request: _Request, name: str, key: str) -> Reply:
        if request.method == "GET":
            state = self._engine.entities.state(name, key)
            return (404, {}, None) if state is None else (200, {}, json.loads(state))
        if request.method in {"POST", "DELETE"}:
            operation = "delete" if request.method == "DELETE" else request.text("op") or ""
            # What is no JSON goes to the entity as text.
            data = request.json_body() if request.is_json or not request.body else compact(request.body.decode())
            self._engine.entities.signal(name, key, operation, data)
            return 202, {}, None
        return 404, {}, None

    def _entities(self, request: _Request, name: str) -> Reply:
        top, skip = request.page()
        found = self._engine.store.entities(name.lower(), top=top, skip=skip)
        headers = {CONTINUATION: str(skip + top)} if len(found) == top else {}
        states = request.flag("fetchState", default=False)
        return 200, headers, [_entity_document(entity, states=states) for entity in found]

    def _query(self, request: _Request) -> Reply:
        top, skip = request.page()
        found = self._engine.store.query(request.filters(top=top, skip=skip))
        headers = {CONTINUATION: str(skip + top)} if len(found) == top else {}
        return 200, headers, [self._document(there, request) for there in found]

    def _purge_many(self, request: _Request) -> Reply:
        if not request.text("createdTimeFrom"):
            return 400, {}, "Please provide value for 'createdTimeFrom' parameter."
        found = self._engine.store.query(request.filters(top=EVERYTHING, skip=0))
        deleted = sum(self._control.purge(there.id) for there in found)
        return (200, {}, {"instancesDeleted": deleted}) if deleted else (404, {}, None)

    def _status(self, request: _Request, instance: str) -> Reply:
        there = self._control.existing(instance)
        document = self._document(there, request)
        if there.status not in FINISHED:
            links = self._links(instance, request.base)
            return 202, {"Location": links["statusQueryGetUri"], "Retry-After": "5"}, document
        failed = there.status == "Failed" and request.flag("returnInternalServerErrorOnFailure", default=False)
        return (500 if failed else 200), {}, document

    def _operate(self, request: _Request, instance: str, operation: str, rest: list[str]) -> Reply:
        control, reason = self._control, request.text("reason")
        if operation == "raiseevent" and len(rest) == 1:
            self._raise_event(request, instance, rest[0])
        elif operation == "terminate":
            control.terminate(instance, reason)
        elif operation == "suspend":
            control.suspend(instance, reason)
        elif operation == "resume":
            control.resume(instance, reason)
        elif operation == "rewind":
            control.rewind(instance, reason)
        elif operation == "restart":
            return self._restart(request, instance)
        else:
            return 404, {}, None
        return 202, {}, None

    def _raise_event(self, request: _Request, instance: str, name: str) -> None:
        """Raises NotFound, Gone, ValueError."""
        if self._control.existing(instance).finished:
            raise Gone(f"The instance {instance} has ended.")
        if not request.is_json:
            raise ValueError("Only application/json request content is supported")
        data = request.json_body()
        if data is None:
            raise ValueError("Invalid JSON content")
        self._control.raise_event(instance, name, data)

    def _restart(self, request: _Request, instance: str) -> Reply:
        new_id = request.flag("restartWithNewInstanceId", default=True)
        try:
            return self._accepted(self._control.restart(instance, with_new_id=new_id), request.base)
        except NotFound as exc:
            return 400, {}, _problem("InstanceId does not match a valid orchestration instance.", exc)

    def _accepted(self, instance: str, base: str) -> Reply:
        links = self._links(instance, base)
        shown = {name: url for name, url in links.items() if name != "rewindPostUri"}
        return 202, {"Location": links["statusQueryGetUri"], "Retry-After": "10"}, shown

    def _links(self, instance: str, base: str) -> dict[str, str]:
        # The SDK puts the id in the place of the literal INSTANCEID.
        root = f"{base}/instances/{quote(instance, safe='')}"
        query = f"taskHub={self._hub}&connection=Storage" + (f"&code={self._key}" if self._key else "")
        return {
            "id": instance,
            "statusQueryGetUri": f"{root}?{query}",
            "sendEventPostUri": f"{root}/raiseEvent/{{eventName}}?{query}",
            "terminatePostUri": f"{root}/terminate?reason={{text}}&{query}",
            "rewindPostUri": f"{root}/rewind?reason={{text}}&{query}",
            "purgeHistoryDeleteUri": f"{root}?{query}",
            "restartPostUri": f"{root}/restart?{query}",
            "suspendPostUri": f"{root}/suspend?reason={{text}}&{query}",
            "resumePostUri": f"{root}/resume?reason={{text}}&{query}",
        }

    def _document(self, there: Instance, request: _Request) -> dict[str, Any]:
        document: dict[str, Any] = {
            "name": there.name,
            "instanceId": there.id,
            "runtimeStatus": there.status,
            "input": _value(there.input) if request.flag("showInput", default=True) else None,
            "customStatus": _value(there.custom),
            "output": _value(there.output),
            "createdTime": f"{there.created[:19]}Z",
            "lastUpdatedTime": f"{there.updated[:19]}Z",
        }
        if request.flag("showHistory", default=False):
            outputs = request.flag("showHistoryOutput", default=False)
            document["historyEvents"] = for_status(self._engine.store.history(there.id), outputs=outputs)
        return document


class _Request:
    """A request's parts; query names are case-insensitive."""

    def __init__(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes, base: str
    ) -> None:
        self.method, self.base, self.body = method, base, body
        parts = [unquote(part) for part in path.strip("/").split("/")]
        self.segments = [parts[0].lower(), *parts[1:]]
        self._query = {name.lower(): value for name, value in query.items()}
        self.headers = {name.lower(): value for name, value in headers.items()}

    def text(self, name: str) -> str | None:
        return self._query.get(name.lower()) or None

    def flag(self, name: str, *, default: bool) -> bool:
        return {"true": True, "false": False}.get((self.text(name) or "").lower(), default)

    def json_body(self) -> str | None:
        """The body as compact JSON text. Raises ValueError when it is not JSON."""
        return compact(json.loads(self.body)) if self.body else None

    @property
    def is_json(self) -> bool:
        """Whether the body says that it is JSON."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"

    def page(self) -> tuple[int, int]:
        """How many to show and how many to pass over. Raises ValueError."""
        return _count(self.text("top") or "100"), _count(self.headers.get(CONTINUATION) or "0")

    def filters(self, *, top: int, skip: int) -> Query:
        """Raises ValueError: a filter that cannot be read must not let everything pass, least of all a purge."""
        statuses = [_status(text.strip()) for text in (self.text("runtimeStatus") or "").split(",") if text.strip()]
        return Query(self._time("createdTimeFrom"), self._time("createdTimeTo"), statuses, self._prefix, top, skip)

    @property
    def _prefix(self) -> str | None:
        return self.text("instanceIdPrefix")

    def _time(self, name: str) -> str | None:
        """As the store has times, whatever time zone it was given in. Raises ValueError."""
        text = self.text(name)
        if text is None:
            return None
        try:
            # strftime leaves out the zeros before years under 1000, and so does the SDK.
            moment = parse_timestamp(_SHORT_YEAR.sub(lambda year: year[0].zfill(4), text))
            return timestamp(moment).rjust(LONGEST_TIMESTAMP, "0")
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{name} is {text!r} and should be a time such as 2026-01-31T12:00:00Z") from error


def _count(text: str) -> int:
    """No more than SQLite takes. Raises ValueError."""
    return min(max(int(text), 0), EVERYTHING)


def _status(text: str) -> str:
    known = next((status for status in RUNTIME_STATUSES if status.lower() == text.lower()), None)
    if known is None:
        raise ValueError(f"runtimeStatus is {text!r} and should be one of {', '.join(RUNTIME_STATUSES)}")
    return known


def _entity_document(entity: StoredEntity, *, states: bool) -> dict[str, Any]:
    _, name, key = entity.id.split("@", 2)
    document: dict[str, Any] = {"entityId": {"name": name, "key": key}, "lastOperationTime": entity.updated}
    return {**document, "state": _value(entity.state)} if states else document


def _value(text: str | None) -> Any:
    """JSON when it is JSON; a failure's output is plain text."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def _problem(message: str, exc: Exception) -> dict[str, str]:
    return {
        "Message": message,
        "ExceptionMessage": str(exc),
        "ExceptionType": type(exc).__name__,
        "StackTrace": "",
    }
