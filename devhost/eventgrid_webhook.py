"""Event Grid's side of the door: POST /runtime/webhooks/EventGrid?functionName=F runs the Event Grid function F.

A delivery holds one event or an array of them, in the Event Grid schema or as CloudEvents; each is one call. If any of
them fails, the answer is 500 and Event Grid sends the whole batch again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from aiohttp import web

from devhost.caller import Caller
from devhost.catalog import EVENT_GRID, Catalog, kind
from devhost.protocol import FunctionInfo, Outcome

EVENT_TYPE_HEADER = "aeg-event-type"
NOTIFICATION = "notification"
SUBSCRIPTION_VALIDATION = "subscriptionvalidation"
UNSUBSCRIBE = "unsubscribe"
CLOUD_EVENTS = frozenset({"application/cloudevents+json", "application/cloudevents-batch+json"})
ORIGIN_HEADER = "WebHook-Request-Origin"


class EventGridWebhook:
    """Answers Event Grid: handshakes and deliveries."""

    def __init__(self, catalog: Catalog, caller: Caller, *, trigger: str = EVENT_GRID) -> None:
        self._catalog = catalog
        self._trigger = trigger
        self._caller = caller

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """202 for a delivery that was worked off, 500 when any of its events failed; 400 and 404 for a bad request."""
        name = next((value for key, value in request.query.items() if key.lower() == "functionname"), "")
        function = self._function(name)
        if function is None or kind(function.trigger) != self._trigger:
            return _refusal(HTTPStatus.NOT_FOUND, f"cannot find function: '{name}'")
        if request.method == "OPTIONS":
            return _cloud_events_handshake(request.headers)
        if request.method != "POST":
            return _refusal(HTTPStatus.NOT_FOUND, f"{request.method} is not for Event Grid")
        message = request.headers.get(EVENT_TYPE_HEADER, "").lower()
        if not message and request.content_type in CLOUD_EVENTS:
            message = NOTIFICATION
        if message == UNSUBSCRIBE:
            return web.Response(status=HTTPStatus.ACCEPTED)
        if message not in {NOTIFICATION, SUBSCRIPTION_VALIDATION}:
            return _refusal(HTTPStatus.BAD_REQUEST, f"the header {EVENT_TYPE_HEADER} is missing or unknown")
        try:
            events = _events(await request.read())
            if message == SUBSCRIPTION_VALIDATION:
                return _validated(events)
        except (ValueError, RecursionError) as error:  # the latter for JSON nested too deeply
            return _refusal(HTTPStatus.BAD_REQUEST, str(error))
        return await self._deliver(function, events)

    def _function(self, name: str) -> FunctionInfo | None:
        return self._catalog.find(name)

    async def _call(self, function: FunctionInfo, event: Mapping[str, Any]) -> Outcome:
        return await self._caller.call(function, ("json", json.dumps(event)))

    async def _deliver(self, function: FunctionInfo, events: list[Any]) -> web.Response:
        calls = [self._call(function, event) for event in events]
        outcomes = await asyncio.gather(*calls)
        failed = [outcome for outcome in outcomes if not outcome.ok]
        if failed:
            return _refusal(HTTPStatus.INTERNAL_SERVER_ERROR, failed[0].error)
        return web.Response(status=HTTPStatus.ACCEPTED)


def _events(body: bytes) -> list[dict[str, Any]]:
    """The events of a body that is one event or an array. Raises ValueError."""
    content = json.loads(body)
    events = content if isinstance(content, list) else [content]
    if not all(isinstance(event, dict) for event in events):
        raise ValueError("the body is neither an event nor an array of events")
    return events


def _validated(events: list[dict[str, Any]]) -> web.Response:
    """The answer to a SubscriptionValidation: its code."""
    data = events[0].get("data") if events else None
    if isinstance(data, str):
        data = json.loads(data)
    code = data.get("validationCode") if isinstance(data, dict) else None
    if code is None:
        return _refusal(HTTPStatus.BAD_REQUEST, "the validation event has no validationCode")
    return web.json_response({"validationResponse": code})


def _cloud_events_handshake(headers: Mapping[str, str]) -> web.Response:
    origin = headers.get(ORIGIN_HEADER)
    if not origin:
        return _refusal(HTTPStatus.BAD_REQUEST, f"the header {ORIGIN_HEADER} is missing")
    return web.Response(headers={"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"})


def _refusal(status: HTTPStatus, text: str) -> web.Response:
    return web.Response(status=status, text=text)
