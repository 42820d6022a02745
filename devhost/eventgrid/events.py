"""The events themselves: blob events as Azure's storage raises them, and what a topic accepts.

An event is a plain dictionary, in the Event Grid schema or as a CloudEvent 1.0, exactly as it is delivered.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from devhost.eventgrid.access_log import BlobWrite
from devhost.eventgrid.errors import BadEvents

type Event = dict[str, Any]

EVENT_GRID_FIELDS = ("id", "subject", "eventType", "eventTime", "data", "dataVersion")
"""What an event in the Event Grid schema must have when it is published."""
CLOUD_EVENT_FIELDS = ("id", "source", "type", "specversion")
STORAGE_TOPIC = (
    "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/local"
    "/providers/Microsoft.Storage/storageAccounts/"
)
TOPIC = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/local/providers/Microsoft.EventGrid/topics/"
SEQUENCER_DIGITS = 32


@dataclass(frozen=True, slots=True)
class BlobProperties:
    """What the access log does not tell: from a HEAD request. `etag` has no quotes, `length` is in bytes."""

    etag: str
    content_type: str
    length: int
    blob_type: str


def blob_event(write: BlobWrite, *, properties: BlobProperties | None, endpoint: str, sequence: int) -> Event:
    """The event of a write, in the Event Grid schema. `endpoint` is the account's blob endpoint, without a slash.

    `sequence` grows from event to event; it becomes the sequencer, a left-padded hexadecimal string that compares as
    text. Deletions have no properties. Request ids are not in the log: `requestId` is the event's own id.
    """
    event_id = str(uuid.uuid4())
    data: dict[str, Any] = {"api": write.api, "clientRequestId": "", "requestId": event_id}
    if properties is not None:
        data |= {
            "eTag": properties.etag,
            "contentType": properties.content_type,
            "contentLength": properties.length,
        }
    data |= {
        "blobType": "BlockBlob" if properties is None else properties.blob_type,
        "url": f"{endpoint}/{write.container}/{write.path}",
        "sequencer": f"{sequence:0{SEQUENCER_DIGITS}x}",
        "storageDiagnostics": {},
    }
    return {
        "topic": STORAGE_TOPIC + write.account,
        "subject": write.subject,
        "eventType": write.event_type,
        "id": event_id,
        "eventTime": instant(write.time),
        "data": data,
        "dataVersion": "",
        "metadataVersion": "1",
    }


def validation_event(topic: str, code: str, *, now: datetime) -> Event:
    """The event of the handshake that Event Grid opens with every new webhook."""
    return {
        "id": str(uuid.uuid4()),
        "topic": topic,
        "subject": "",
        "data": {"validationCode": code},
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "eventTime": instant(now),
        "metadataVersion": "1",
        "dataVersion": "2",
    }


def published_events(body: bytes, *, topic: str) -> list[Event]:
    """The events of a request to a topic, completed as Event Grid completes them. Raises BadEvents."""
    try:
        parsed = json.loads(body)
    except ValueError as error:
        raise BadEvents(f"The body is not JSON: {error}.") from error
    events = parsed if isinstance(parsed, list) else [parsed]
    if not events:
        raise BadEvents("The array of events is empty.")
    return [_published(event, topic, number) for number, event in enumerate(events)]


def _published(event: object, topic: str, number: int) -> Event:
    if not isinstance(event, dict):
        raise BadEvents(f"Event {number} is not a JSON object.")
    fields = CLOUD_EVENT_FIELDS if is_cloud_event(event) else EVENT_GRID_FIELDS
    missing = [field for field in fields if field not in event]
    if missing:
        raise BadEvents(f"Event {number} has no {', '.join(missing)}.")
    if is_cloud_event(event):
        return event
    return {**event, "topic": TOPIC + topic, "metadataVersion": "1"}


def is_cloud_event(event: Mapping[str, Any]) -> bool:
    """Whether the event is in the CloudEvents schema, not in the Event Grid schema."""
    return "specversion" in event


def as_cloud_event(event: Event) -> Event:
    """The event in the CloudEvents schema, as Event Grid translates one; a CloudEvent is left as it is."""
    if is_cloud_event(event):
        return event
    return {
        "id": event["id"],
        "source": event["topic"],
        "type": event["eventType"],
        "specversion": "1.0",
        "subject": event["subject"],
        "time": event["eventTime"],
        "data": event["data"],
    }


def event_type(event: Mapping[str, Any]) -> str:
    """The event's type, whichever schema it has."""
    return str(event.get("type" if is_cloud_event(event) else "eventType", ""))


def subject(event: Mapping[str, Any]) -> str:
    """The event's subject; empty when a CloudEvent has none."""
    return str(event.get("subject") or "")


def instant(time: datetime) -> str:
    """A time as events have it: UTC, ISO 8601, with a Z."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
