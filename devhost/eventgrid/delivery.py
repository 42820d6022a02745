"""Delivery of accepted events to one webhook: handshake, retry with back-off, dead letters.

A webhook gets nothing before it has answered the handshake. While nobody listens at its address
the courier waits, which costs no attempt: a local host is started later, or again, all the time. Order of delivery is
not promised, and an event may come twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus

import aiohttp

from devhost.eventgrid.events import instant, is_cloud_event
from devhost.eventgrid.store import Delivery, Store
from devhost.eventgrid.subscriptions import Subscription
from devhost.eventgrid.webhook import Answer, Webhook

AT_ONCE = 16
"""Deliveries in flight to one webhook."""
STATE_AWAY_SECONDS = 1.0
"""Pause after the state could not be written, as on a full disk."""
GRACE_SECONDS = 1.0
"""What deliveries under way get at a stop: without its answer taken down, an event would come once more."""
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


class Courier:
    """Serves one subscription. `problem` says why it is waiting, and is empty once the webhook has been validated."""

    def __init__(
        self, subscription: Subscription, *, store: Store, session: aiohttp.ClientSession, back_off: BackOff
    ) -> None:
        self.subscription = subscription
        self.problem = "the webhook has not been reached yet"
        self._store = store
        self._webhook = Webhook(subscription, session)
        self._back_off = back_off
        self._present = asyncio.Event()
        self._work = asyncio.Event()
        self._busy: dict[int, asyncio.Task[None]] = {}

    @property
    def validated(self) -> bool:
        """Whether the webhook has answered the handshake, and was there at the last attempt."""
        return self._present.is_set()

    def wake(self) -> None:
        """There may be something to deliver."""
        self._work.set()

    async def run(self) -> None:
        """Until cancelled; what is under way then has a moment to end."""
        async with asyncio.TaskGroup() as attempts:
            try:
                while True:
                    if not self.validated:
                        await self._introduce()
                    self._work.clear()
                    room = AT_ONCE - len(self._busy)
                    for delivery in self._store.due(self.subscription.name, limit=room, busy=self._busy):
                        self._busy[delivery.id] = attempts.create_task(self._deliver(delivery))
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._work.wait(), IDLE_SECONDS)
            finally:
                if self._busy:
                    await asyncio.wait(self._busy.values(), timeout=GRACE_SECONDS)

    async def _introduce(self) -> None:
        """The handshake, tried until the webhook is there and answers it."""
        tries = 0
        pause = BackOff(first=0.2, most=2.0)
        while problem := await self._webhook.handshake():
            if problem != self.problem:
                print(f"{self.subscription.name}: waiting for the webhook: {problem}.", flush=True)
            self.problem = problem
            tries += 1
            await asyncio.sleep(pause.seconds(tries))
        self.problem = ""
        self._present.set()
        print(f"{self.subscription.name}: the webhook answered the handshake.", flush=True)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            await self._attempt(delivery)
        except sqlite3.Error as error:  # it is still due, and comes again
            print(f"{self.subscription.name}: the state cannot be written ({error}). Trying again.", flush=True)
            await asyncio.sleep(STATE_AWAY_SECONDS)
        finally:
            del self._busy[delivery.id]
            self._work.set()

    async def _attempt(self, delivery: Delivery) -> None:
        """Raises sqlite3.Error."""
        if time.time() - delivery.accepted > self.subscription.ttl_minutes * 60:
            self._give_up(delivery, delivery.attempts, delivery.outcome, "TimeToLiveExceeded")
            return
        self._settle(delivery, await self._webhook.deliver(delivery.event, attempts=delivery.attempts))

    def _settle(self, delivery: Delivery, answer: Answer) -> None:
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
        event = self._webhook.as_delivered(delivery.event)
        why = {
            "deadLetterReason": reason,
            "deliveryAttempts": attempts,
            "lastDeliveryOutcome": outcome,
            "publishTime": instant(datetime.fromtimestamp(delivery.accepted, UTC)),
            "lastDeliveryAttemptTime": instant(datetime.now(UTC)),
            "subscription": self.subscription.name,
        }
        if is_cloud_event(event):  # whose attributes have lower-case names
            why = {name.lower(): value for name, value in why.items()}
        self._store.dead_letter(delivery, {**event, **why})
        print(f"{self.subscription.name}: gave up on an event ({reason}): {outcome}.", flush=True)
