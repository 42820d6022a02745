"""Events on their way out: each is stored before it is sent, and removed when the topic has taken it.

So a topic that is away, or a process that dies, costs time and no event. Whoever hears one twice knows it by its id.
"""

from __future__ import annotations

import hashlib
import json
import logging

from adapters.blobs import BlobNotFound, BlobStore
from adapters.events import EventPublisher, EventsUnavailable, Notice
from models.documents import read_document

FOLDER = "runs/_outbox/"
log = logging.getLogger("ratchet.events")


class Outbox:
    """An EventPublisher that keeps what another one could not send."""

    def __init__(self, blobs: BlobStore, publisher: EventPublisher) -> None:
        self._blobs, self._publisher = blobs, publisher

    def publish(self, notice: Notice) -> None:
        """Stores the event and tries to send it. Raises what storage raises: whoever tells something may try again."""
        path = _path(notice)
        document = {"type": notice.type, "pipeline": notice.pipeline, "key": notice.key, "data": dict(notice.data)}
        self._blobs.put(path, json.dumps(document).encode(), content_type="application/json")
        try:
            self._send(path, notice)
        except EventsUnavailable as exc:
            log.warning("the event %s of %s waits in the outbox: %s", notice.type, notice.pipeline, exc)

    def flush(self) -> int:
        """Sends what waits; how many events that were. Raises EventsUnavailable at the first that cannot be sent."""
        sent = 0
        for info in list(self._blobs.list(FOLDER)):
            try:
                notice = read_document(Notice, json.loads(self._blobs.get(info.path).data))
            except BlobNotFound:  # another process has sent it meanwhile
                continue
            self._send(info.path, notice)
            sent += 1
        return sent

    def _send(self, path: str, notice: Notice) -> None:
        self._publisher.publish(notice)
        self._blobs.delete(path)


def _path(notice: Notice) -> str:
    """Named by what it tells, so that the same occurrence told twice is one event."""
    digest = hashlib.sha256(f"{notice.type}\n{notice.pipeline}\n{notice.key}".encode()).hexdigest()[:40]
    return f"{FOLDER}{digest}.json"
