"""The event port: what Ratchet tells others. One adapter on azure-eventgrid, and one for when nobody listens."""

from __future__ import annotations

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


class EventsUnavailable(RatchetError):
    """The topic could not be reached or refused. Worth trying again."""


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
        from azure.core.exceptions import AzureError
        from azure.core.messaging import CloudEvent

        event = CloudEvent(
            source=f"{SOURCE}/{notice.pipeline}",
            type=notice.type,
            data=dict(notice.data),
            subject=notice.pipeline,
            id=f"{notice.type}-{notice.pipeline}-{notice.key}",
        )
        try:
            self._connected().send(event)
        except AzureError as exc:
            raise EventsUnavailable(f"the topic at {self._endpoint} cannot be used: {bounded(exc)}") from exc

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
        return self._client
