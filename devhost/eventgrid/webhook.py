"""One webhook: the handshake it has to answer first, and an attempt to deliver an event to it.

Each delivery schema has a handshake of its own. With the Event Grid schema a SubscriptionValidation event is posted,
and the answer repeats its code. With CloudEvents it is an OPTIONS request, and the answer allows the origin that asks
(https://github.com/cloudevents/spec/blob/v1.0/http-webhook.md, abuse protection).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

import aiohttp

from devhost.eventgrid.events import STORAGE_TOPIC, TOPIC, Event, as_cloud_event, is_cloud_event, validation_event
from devhost.eventgrid.subscriptions import STORAGE, Subscription

RESPONSE_SECONDS = 30.0
"""Azure's window for an answer."""
ORIGIN = "eventgrid.azure.net"
"""As whom the real Event Grid asks."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request went: `status` is None when there was no answer; `absent` when nobody listens at all."""

    status: int | None
    outcome: str
    absent: bool = False
    body: str = ""
    allowed_origin: str = ""

    @property
    def good(self) -> bool:
        """Whether it is one that Event Grid takes for success."""
        return self.status is not None and HTTPStatus.OK <= self.status <= HTTPStatus.NO_CONTENT


class Webhook:
    """The webhook of one subscription, over a shared session."""

    def __init__(self, subscription: Subscription, session: aiohttp.ClientSession) -> None:
        self._subscription = subscription
        self._session = session

    async def handshake(self) -> str:
        """Empty when the webhook agreed, otherwise what was wrong."""
        return await (self._options() if self._subscription.cloud_events else self._validation())

    def as_delivered(self, event: Event) -> Event:
        """The event in the subscription's schema. A CloudEvent stays one: it cannot be put into the other schema."""
        return as_cloud_event(event) if self._subscription.cloud_events else event

    async def deliver(self, event: Event, *, attempts: int) -> Answer:
        """One attempt, after so many failed ones."""
        event = self.as_delivered(event)
        headers = {"aeg-event-type": "Notification", "aeg-delivery-count": str(attempts)}
        return await self._post(event if is_cloud_event(event) else [event], headers)

    async def _validation(self) -> str:
        code = str(uuid.uuid4()).upper()
        kind, _, topic_name = self._subscription.source.partition("/")
        topic = STORAGE_TOPIC if kind == STORAGE else TOPIC + topic_name
        event = validation_event(topic, code, now=datetime.now(UTC))
        answer = await self._post([event], {"aeg-event-type": "SubscriptionValidation"})
        if not answer.good:
            return answer.outcome
        try:
            echoed = json.loads(answer.body)["validationResponse"]
        except (ValueError, KeyError, TypeError):
            echoed = None
        return "" if echoed == code else "it did not answer the handshake with the validation code"

    async def _options(self) -> str:
        answer = await self._request("OPTIONS", {"WebHook-Request-Origin": ORIGIN})
        if not answer.good:
            return answer.outcome
        if answer.allowed_origin in {ORIGIN, "*"}:
            return ""
        return f"it did not answer OPTIONS with WebHook-Allowed-Origin: {ORIGIN}"

    async def _post(self, content: object, headers: Mapping[str, str]) -> Answer:
        kind = "application/json" if isinstance(content, list) else "application/cloudevents+json"
        every = {"Content-Type": f"{kind}; charset=utf-8", "aeg-metadata-version": "1"}
        return await self._request("POST", {**every, **headers}, json.dumps(content).encode())

    async def _request(self, method: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        try:
            async with self._session.request(
                method,
                self._subscription.endpoint,
                data=body,
                headers={"aeg-subscription-name": self._subscription.name.upper(), **headers},
                timeout=aiohttp.ClientTimeout(total=RESPONSE_SECONDS),
                allow_redirects=False,
            ) as response:
                return Answer(
                    response.status,
                    f"it answered {response.status} {response.reason or ''}".strip(),
                    body=await response.text(errors="replace"),
                    allowed_origin=response.headers.get("WebHook-Allowed-Origin", ""),
                )
        except aiohttp.ClientConnectorError:
            return Answer(None, "nobody listens at its address", absent=True)
        except TimeoutError:
            return Answer(None, f"it did not answer within {RESPONSE_SECONDS:.0f} s")
        except aiohttp.ClientError as error:
            return Answer(None, f"the connection broke ({type(error).__name__})")
