"""The event port: what Ratchet tells others. One adapter on azure-eventgrid, and one for when nobody listens."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from models.errors import RatchetError, bounded

EventType = Literal[
    "Ratchet.RunStarted",
    "Ratchet.RunFinished",
    "Ratchet.RunFailed",
    "Ratchet.ModelRegistered",
    "Ratchet.ModelPromoted",
    "Ratchet.ModelRejected",
    "Ratchet.ModelRolledBack",
    "Ratchet.ApprovalNeeded",
    "Ratchet.DataQuarantined",
]
"""Stable type names. docs/events.schema.json says what each carries."""

SOURCE = "/ratchet/pipelines"
TIMEOUT_SECONDS = 5.0
"""How long a topic may take to be connected with, and to answer: milliseconds are usual. There is no second try here,
because the outbox is one."""
ONE_SHORT_TRY = {"connection_timeout": TIMEOUT_SECONDS, "read_timeout": TIMEOUT_SECONDS, "retry_total": 0}
"""Given with each event, because the client does not hand on to its transport what it is made with."""
SAYS_TOO_MUCH = "azure.eventgrid._legacy._generated._serialization"
"""This logger warns, for each event, that the above are no part of the event."""
REFUSED = frozenset({400, 413})
"""Statuses that speak of the event, not of the topic."""


class EventsUnavailable(RatchetError):
    """The topic could not be reached or refused. Worth trying again."""


class EventRefused(EventsUnavailable):
    """The topic is there, and does not want this event."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One event. `key` makes its id: the same occurrence told twice carries the same id, so a reader can tell."""

    type: EventType
    pipeline: str
    key: str
    data: Mapping[str, Any]


class EventPublisher(Protocol):
    """Synchronous. Delivery is at least once."""

    def publish(self, notice: Notice) -> None:
        """Raises EventsUnavailable."""
        ...


class NoListeners:
    """The publisher where no topic is configured: an event without a topic has no reader to miss it."""

    def publish(self, notice: Notice) -> None:
        """Does nothing."""


class TopicPublisher:
    """CloudEvents to an Event Grid topic. azure-eventgrid is imported at the first event."""

    def __init__(self, endpoint: str, key: str | None, client_id: str | None = None) -> None:
        self._endpoint, self._key, self._client_id = endpoint, key, client_id
        self._client: Any = None

    def publish(self, notice: Notice) -> None:
        from azure.core.exceptions import AzureError, HttpResponseError
        from azure.core.messaging import CloudEvent

        event = CloudEvent(
            source=f"{SOURCE}/{notice.pipeline}",
            type=notice.type,
            data=dict(notice.data),
            subject=notice.pipeline,
            id=f"{notice.type}-{notice.pipeline}-{notice.key}",
        )
        try:
            self._connected().send(event, **ONE_SHORT_TRY)
        except AzureError as exc:
            refused = isinstance(exc, HttpResponseError) and exc.status_code in REFUSED
            kind = EventRefused if refused else EventsUnavailable
            raise kind(f"the topic at {self._endpoint} cannot be used: {bounded(exc)}") from exc

    def _connected(self) -> Any:
        if self._client is None:
            from azure.eventgrid import EventGridPublisherClient

            credential: Any
            if self._key is not None:
                from azure.core.credentials import AzureKeyCredential

                credential = AzureKeyCredential(self._key)
            else:
                from azure.identity import DefaultAzureCredential

                credential = DefaultAzureCredential(managed_identity_client_id=self._client_id)
            self._client = EventGridPublisherClient(self._endpoint, credential)
            logging.getLogger(SAYS_TOO_MUCH).setLevel(logging.ERROR)
        return self._client
