"""Delivery of accepted events to one webhook: handshake, retry with back-off, dead letters.

A webhook gets nothing before it has answered the SubscriptionValidation handshake. While nobody listens at its address
the courier waits, which costs no attempt: a local host is started later, or again, all the time. Order of delivery is
not promised, and an event may come twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

import aiohttp

from devhost.eventgrid.events import STORAGE_TOPIC, TOPIC, instant, is_cloud_event, validation_event
from devhost.eventgrid.store import Delivery, Store
from devhost.eventgrid.subscriptions import STORAGE, Subscription

RESPONSE_SECONDS = 30.0
"""Azure's window for an answer."""
AT_ONCE = 16
"""Deliveries in flight to one webhook."""
STATE_AWAY_SECONDS = 1.0
"""Pause after the state could not be written, as on a full disk."""
IDLE_SECONDS = 0.25
"""How often retries that fall due are looked for; new events wake the courier at once."""
HOPELESS = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}
)
"""Answers of a webhook that Azure does not retry: the same request would get them again."""


@dataclass(frozen=True, slots=True)
class BackOff:
    """Seconds between attempts: `first`, doubling up to `most`, each varied by up to a fifth.

    Azure waits from 10 seconds to 12 hours. On one machine nobody else suffers from an early retry.
    """

    first: float = 0.5
    most: float = 15.0

    def seconds(self, attempts: int) -> float:
        """The pause after so many failed attempts (from 1 on)."""
        return min(self.most, self.first * 2.0 ** min(attempts - 1, 32)) * random.uniform(0.8, 1.2)  # noqa: S311


@dataclass(frozen=True, slots=True)
class _Answer:
    """How an attempt went: `status` is None when there was no answer; `absent` when nobody listens at all."""

    status: int | None
    outcome: str
    absent: bool = False

    @property
    def good(self) -> bool:
        return self.status is not None and HTTPStatus.OK <= self.status <= HTTPStatus.NO_CONTENT


class Courier:
    """Serves one subscription. `problem` says why it is waiting, and is empty once the webhook has been validated."""

    def __init__(
        self, subscription: Subscription, *, store: Store, session: aiohttp.ClientSession, back_off: BackOff
    ) -> None:
        self.subscription = subscription
        self.problem = "the webhook has not been reached yet"
        self._store = store
        self._session = session
        self._back_off = back_off
        self._present = asyncio.Event()
        self._work = asyncio.Event()
        self._busy: set[int] = set()

    @property
    def validated(self) -> bool:
        """Whether the webhook has answered the handshake, and was there at the last attempt."""
        return self._present.is_set()

    def wake(self) -> None:
        """There may be something to deliver."""
        self._work.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as attempts:
            while True:
                if not self.validated:
                    await self._introduce()
                self._work.clear()
                room = AT_ONCE - len(self._busy)
                for delivery in self._store.due(self.subscription.name, limit=room, busy=self._busy):
                    self._busy.add(delivery.id)
                    attempts.create_task(self._deliver(delivery))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._work.wait(), IDLE_SECONDS)

    async def _introduce(self) -> None:
        """The handshake, tried until the webhook is there and answers it."""
        tries = 0
        pause = BackOff(first=0.2, most=2.0)
        while problem := await self._handshake():
            if problem != self.problem:
                print(f"{self.subscription.name}: waiting for the webhook: {problem}.", flush=True)
            self.problem = problem
            tries += 1
            await asyncio.sleep(pause.seconds(tries))
        self.problem = ""
        self._present.set()
        print(f"{self.subscription.name}: the webhook answered the handshake.", flush=True)

    async def _handshake(self) -> str:
        """Empty when the webhook echoed the code, otherwise what was wrong."""
        code = str(uuid.uuid4()).upper()
        kind, _, topic_name = self.subscription.source.partition("/")
        topic = STORAGE_TOPIC if kind == STORAGE else TOPIC + topic_name
        event = validation_event(topic, code, now=datetime.now(UTC))
        answer, body = await self._post([event], {"aeg-event-type": "SubscriptionValidation"})
        if not answer.good:
            return answer.outcome
        try:
            echoed = json.loads(body)["validationResponse"]
        except (ValueError, KeyError, TypeError):
            echoed = None
        return "" if echoed == code else "it did not answer the handshake with the validation code"

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            await self._attempt(delivery)
        except sqlite3.Error as error:  # it is still due, and comes again
            print(f"{self.subscription.name}: the state cannot be written ({error}). Trying again.", flush=True)
            await asyncio.sleep(STATE_AWAY_SECONDS)
        finally:
            self._busy.discard(delivery.id)
            self._work.set()

    async def _attempt(self, delivery: Delivery) -> None:
        """Raises sqlite3.Error."""
        if time.time() - delivery.accepted > self.subscription.ttl_minutes * 60:
            self._give_up(delivery, delivery.attempts, delivery.outcome, "TimeToLiveExceeded")
            return
        headers = {"aeg-event-type": "Notification", "aeg-delivery-count": str(delivery.attempts)}
        event = delivery.event
        answer, _ = await self._post(event if is_cloud_event(event) else [event], headers)
        self._settle(delivery, answer)

    def _settle(self, delivery: Delivery, answer: _Answer) -> None:
        attempts = delivery.attempts + (not answer.absent)
        if answer.good:
            self._store.delivered(delivery)
        elif answer.status in HOPELESS:
            self._give_up(delivery, attempts, answer.outcome, "UndeliverableEvent")
        elif answer.absent:
            self._present.clear()
            self._store.retry(delivery, attempts=attempts, outcome=answer.outcome, due=time.time())
        elif attempts >= self.subscription.max_attempts:
            self._give_up(delivery, attempts, answer.outcome, "MaxDeliveryAttemptsExceeded")
        else:
            due = time.time() + self._back_off.seconds(attempts)
            self._store.retry(delivery, attempts=attempts, outcome=answer.outcome, due=due)
            print(f"{self.subscription.name}: attempt {attempts} failed: {answer.outcome}.", flush=True)

    def _give_up(self, delivery: Delivery, attempts: int, outcome: str, reason: str) -> None:
        """The event as Azure dead-letters it, and which subscription it was for."""
        now = datetime.now(UTC)
        letter = {
            **delivery.event,
            "deadLetterReason": reason,
            "deliveryAttempts": attempts,
            "lastDeliveryOutcome": outcome,
            "publishTime": instant(datetime.fromtimestamp(delivery.accepted, UTC)),
            "lastDeliveryAttemptTime": instant(now),
            "subscription": self.subscription.name,
        }
        self._store.dead_letter(delivery, letter)
        print(f"{self.subscription.name}: gave up on an event ({reason}): {outcome}.", flush=True)

    async def _post(self, content: object, headers: Mapping[str, str]) -> tuple[_Answer, str]:
        kind = "application/json" if isinstance(content, list) else "application/cloudevents+json"
        every = {
            "Content-Type": f"{kind}; charset=utf-8",
            "aeg-subscription-name": self.subscription.name.upper(),
            "aeg-metadata-version": "1",
        }
        timeout = aiohttp.ClientTimeout(total=RESPONSE_SECONDS)
        try:
            async with self._session.post(
                self.subscription.endpoint,
                data=json.dumps(content).encode(),
                headers={**every, **headers},
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                body = await response.text(errors="replace")
                return _Answer(response.status, f"it answered {response.status} {response.reason or ''}".strip()), body
        except aiohttp.ClientConnectorError:
            return _Answer(None, "nobody listens at its address", absent=True), ""
        except TimeoutError:
            return _Answer(None, f"it did not answer within {RESPONSE_SECONDS:.0f} s"), ""
        except aiohttp.ClientError as error:
            return _Answer(None, f"the connection broke ({type(error).__name__})"), ""
