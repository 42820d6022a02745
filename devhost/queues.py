"""Queue triggers: messages of a storage queue, each one call of its function.

A message whose call fails shows again, after host.json's visibilityTimeout, until it has been tried maxDequeueCount
times; then it moves to the queue NAME-poison. A message of a poison queue itself stays hidden for a while instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from devhost.caller import Caller
from devhost.protocol import Datum, FunctionInfo
from devhost.queue_client import Message, Queue, decode
from devhost.settings import QueueSettings, Settings
from devhost.storage import Storage, StorageRefused

POISON_SUFFIX = "-poison"
HIDDEN_SECONDS = 60.0
"""How long a message under way is hidden; renewed at half time. So long one waits after a host was killed."""
SHORTEST_PAUSE_SECONDS = 0.1
"""Between two looks into a queue; while it is empty the pause doubles up to maxPollingInterval."""
GONE = frozenset({"PopReceiptMismatch", "MessageNotFound", "QueueNotFound", "QueueBeingDeleted", "QueueDisabled"})
"""The message belongs to somebody else by now, or to nobody."""
TROUBLE = (StorageRefused, aiohttp.ClientError, TimeoutError)

_log = logging.getLogger("devhost.queues")


@dataclass(slots=True)
class _Held:
    """A message under way, with its newest receipt."""

    queue: Queue
    message: Message
    receipt: str

    async def delete(self) -> None:
        with _unless_gone():
            await self.queue.delete(self.message, self.receipt)

    async def hide(self, seconds: float) -> None:
        with _unless_gone():
            self.receipt = await self.queue.hide(self.message, self.receipt, seconds)


@dataclass(frozen=True, slots=True)
class _Listener:
    function: FunctionInfo
    queue: Queue


class QueueTriggers:
    """Runs the app's queue functions for the messages of their queues."""

    def __init__(self, functions: Sequence[FunctionInfo], caller: Caller, settings: Settings, storage: Storage) -> None:
        """Raises ConnectionInvalid and SettingMissing."""
        self._caller = caller
        self._settings: QueueSettings = settings.queues
        self._listeners = [_Listener(function, _queue(function, settings, storage)) for function in functions]
        self._looking: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to look into the queues."""
        loop = asyncio.get_running_loop()
        self._looking = [loop.create_task(self._look_for_ever(listener)) for listener in self._listeners]

    async def stop(self) -> None:
        """Takes no more messages. Calls that have begun go on: the caller drains them."""
        for task in self._looking:
            task.cancel()
        await asyncio.gather(*self._looking, return_exceptions=True)

    def run_now(self, function: FunctionInfo, text: str) -> None:
        """Begins a call with a message that is in no queue."""
        self._caller.begin(self._caller.call(function, ("string", text), metadata={"DequeueCount": ("int", 1)}))

    async def _look_for_ever(self, listener: _Listener) -> None:
        running: set[asyncio.Task[None]] = set()
        pause, in_trouble = SHORTEST_PAUSE_SECONDS, False
        while True:
            messages: Sequence[Message] = ()
            try:
                messages = await listener.queue.receive(self._settings.batch_size, HIDDEN_SECONDS)
                if in_trouble:
                    _log.warning("the queue %s can be read again", listener.queue.name)
                in_trouble = False
            except TROUBLE as error:
                if not in_trouble:
                    _log.warning("the queue %s cannot be read for now: %s", listener.queue.name, _said(error))
                in_trouble = True
            if not messages:
                await asyncio.sleep(pause * random.uniform(0.8, 1.0))  # noqa: S311 - hosts should not look in step
                pause = min(pause * 2, max(SHORTEST_PAUSE_SECONDS, self._settings.max_polling_interval))
                continue
            pause = SHORTEST_PAUSE_SECONDS
            running |= {self._caller.begin(self._work_off(listener, message)) for message in messages}
            while len(running) > self._settings.new_batch_threshold:
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

    async def _work_off(self, listener: _Listener, message: Message) -> None:
        held = _Held(listener.queue, message, message.receipt)
        try:
            await self._run(listener, held)
        except asyncio.CancelledError:  # the host stops and could not wait: the next one need not wait for it either
            with contextlib.suppress(*TROUBLE):
                await held.hide(0)
            raise
        except TROUBLE as error:
            _log.warning("message %s of the queue %s: %s", message.id, listener.queue.name, _said(error))

    async def _run(self, listener: _Listener, held: _Held) -> None:
        message, most = held.message, self._settings.max_dequeue_count
        if message.dequeue_count > most:  # it took a host down with it each time
            await self._to_poison(held, f"it has been tried {most} times")
            return
        try:
            content = decode(message.text, base64_text=self._settings.base64_text)
        except ValueError as error:
            await self._to_poison(held, f"{error}, as messageEncoding in host.json wants it")
            return
        datum, metadata = trigger_data(message, content)
        async with _kept_hidden(held):
            outcome = await self._caller.call(listener.function, datum, metadata=metadata)
        if outcome.ok:
            await held.delete()
        elif message.dequeue_count >= most:
            await self._to_poison(held, f"it has failed {most} times")
        elif not listener.queue.name.endswith(POISON_SUFFIX):
            await held.hide(self._settings.visibility_timeout)

    async def _to_poison(self, held: _Held, reason: str) -> None:
        name = held.queue.name
        if name.endswith(POISON_SUFFIX):
            return
        _log.warning(
            "message %s of the queue %s: %s; it moves to %s%s", held.message.id, name, reason, name, POISON_SUFFIX
        )
        await held.queue.beside(name + POISON_SUFFIX).put(held.message.text)
        await held.delete()


def trigger_data(message: Message, content: bytes) -> tuple[Datum, Mapping[str, Datum]]:
    """What a queue function receives: the content, and what the queue knows of the message."""
    metadata: dict[str, Datum] = {
        "Id": ("string", message.id),
        "PopReceipt": ("string", message.receipt),
        "DequeueCount": ("int", message.dequeue_count),
        "InsertionTime": ("string", message.inserted.isoformat()),
        "ExpirationTime": ("string", message.expires.isoformat()),
        "NextVisibleTime": ("string", message.next_visible.isoformat()),
    }
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return ("bytes", content), metadata
    return ("string", text), {**metadata, "QueueTrigger": ("string", text)}


@contextlib.asynccontextmanager
async def _kept_hidden(held: _Held) -> AsyncIterator[None]:
    """Hides the message again and again while the block runs."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(HIDDEN_SECONDS / 2)
            try:
                await held.hide(HIDDEN_SECONDS)
            except TROUBLE as error:
                _log.warning("message %s cannot be kept hidden: %s", held.message.id, _said(error))

    renewing = asyncio.get_running_loop().create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except StorageRefused as refusal:
        if refusal.code not in GONE:
            raise


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _queue(function: FunctionInfo, settings: Settings, storage: Storage) -> Queue:
    wanted_by = f"The queue trigger of function {function.name}"
    account = storage.account(str(function.trigger.get("connection") or ""), wanted_by=wanted_by)
    name = settings.resolve(str(function.trigger["queueName"]), wanted_by=wanted_by)
    return Queue(storage, account, name.lower())
