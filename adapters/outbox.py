"""Events on their way out: each is stored before it is sent, and removed when the topic has taken it.

So a topic that is away, or a process that dies, costs time and no event. Whoever hears one twice knows it by its id.
Whoever tells something waits for storage alone: sending is somebody else's work (adapters/background.py).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from itertools import islice

from adapters.background import Start
from adapters.blobs import BlobNotFound, BlobStore
from adapters.events import EventPublisher, EventRefused, EventsUnavailable, Notice
from models.documents import read_document

FOLDER = "runs/_outbox/"
MOST_AT_ONCE, FLUSH_SECONDS = 200, 20.0
"""What one look at the outbox sends, and how long it may take. The next one, a minute later, goes on."""
REST_SECONDS = 30.0
"""How long a topic that is away is left alone by those who tell: each try would cost its time-out."""

log = logging.getLogger("ratchet.events")


class Outbox:
    """An EventPublisher that keeps what another one has not sent yet.

    `start` is given the sending of each event, to be done soon by whoever can wait for the topic.
    """

    def __init__(
        self,
        blobs: BlobStore,
        publisher: EventPublisher,
        start: Start,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._blobs, self._publisher, self._start, self._clock = blobs, publisher, start, clock
        self._rests_until = clock()

    def publish(self, notice: Notice) -> None:
        """Stores the event, and has it sent. Raises what storage raises: whoever tells something may try again."""
        path = _path(notice)
        document = {"type": notice.type, "pipeline": notice.pipeline, "key": notice.key, "data": dict(notice.data)}
        self._blobs.put(path, json.dumps(document).encode(), content_type="application/json")
        try:
            self._start(partial(self._try_to_send, path, notice))
        except RuntimeError as exc:  # what it tells has happened all the same, and the next look sends it
            log.warning("the event %s of %s waits in the outbox: %s", notice.type, notice.pipeline, exc)

    def flush(self) -> int:
        """Sends what waits, or a part of it; how many events that were. Raises EventsUnavailable at the first that
        cannot be sent because the topic is away; one that the topic does not want keeps no other from being sent.
        """
        sent, until = 0, self._clock() + FLUSH_SECONDS
        for info in list(islice(self._blobs.list(FOLDER), MOST_AT_ONCE)):
            if self._clock() > until:
                break
            try:
                notice = read_document(Notice, json.loads(self._blobs.get(info.path).data))
                self._send(info.path, notice)
                sent += 1
            except BlobNotFound:  # another process has sent it meanwhile
                continue
            except (EventRefused, ValueError, TypeError) as exc:  # or it is of newer code, which can read it
                log.warning("the event %s stays in the outbox: %s", info.path, exc)
        return sent

    def _try_to_send(self, path: str, notice: Notice) -> None:
        if self._clock() < self._rests_until:
            return
        try:
            self._send(path, notice)
        except EventsUnavailable as exc:
            if not isinstance(exc, EventRefused):
                self._rests_until = self._clock() + REST_SECONDS
            log.warning("the event %s of %s waits in the outbox: %s", notice.type, notice.pipeline, exc)

    def _send(self, path: str, notice: Notice) -> None:
        self._publisher.publish(notice)
        self._blobs.delete(path)


def _path(notice: Notice) -> str:
    """Named by what it tells, so that the same occurrence told twice is one event."""
    digest = sha256(f"{notice.type}\n{notice.pipeline}\n{notice.key}".encode()).hexdigest()[:40]
    return f"{FOLDER}{digest}.json"
