"""Subscriptions: which events go to which webhook, and how often delivery is tried.

In a file (`--subscriptions FILE`) they are a JSON array, or an object with a `subscriptions` array, of

    {"name": "on-upload", "endpoint": "http://127.0.0.1:7071/...", "source": "storage",
     "includedEventTypes": ["Microsoft.Storage.BlobCreated"], "subjectBeginsWith": "", "subjectEndsWith": "",
     "isSubjectCaseSensitive": false, "maxDeliveryAttempts": 30, "eventTimeToLiveInMinutes": 1440,
     "eventDeliverySchema": "EventGridSchema"}

with Azure's names and defaults. `name` and `endpoint` are required; `source` is `storage` or `topics/NAME`;
`eventDeliverySchema` may be `CloudEventSchemaV1_0` instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devhost.eventgrid.errors import BadSubscription

STORAGE = "storage"
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_ATTEMPTS = 30
TIME_TO_LIVE_MINUTES = 1440
EVENT_GRID_SCHEMA, CLOUD_EVENTS_SCHEMA = "EventGridSchema", "CloudEventSchemaV1_0"
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

_FIELDS: Mapping[str, tuple[str, type]] = {
    "name": ("name", str),
    "endpoint": ("endpoint", str),
    "source": ("source", str),
    "includedEventTypes": ("event_types", list),
    "subjectBeginsWith": ("begins_with", str),
    "subjectEndsWith": ("ends_with", str),
    "isSubjectCaseSensitive": ("case_sensitive", bool),
    "maxDeliveryAttempts": ("max_attempts", int),
    "eventTimeToLiveInMinutes": ("ttl_minutes", int),
    "eventDeliverySchema": ("schema", str),
}


@dataclass(frozen=True, slots=True)
class Subscription:
    """One subscription. Raises BadSubscription for an endpoint elsewhere, an unknown schema, or limits below 1.

    `event_types` empty means all. `ttl_minutes` counts from when the event was accepted.
    """

    name: str
    endpoint: str
    source: str = STORAGE
    event_types: tuple[str, ...] = ()
    begins_with: str = ""
    ends_with: str = ""
    case_sensitive: bool = False
    max_attempts: int = MAX_ATTEMPTS
    ttl_minutes: int = TIME_TO_LIVE_MINUTES
    schema: str = EVENT_GRID_SCHEMA

    def __post_init__(self) -> None:
        """Checks what a user can get wrong."""
        url = urlsplit(self.endpoint)
        if not NAME.fullmatch(self.name):
            raise BadSubscription(self.name or "(no name)", "a name has 1 to 64 letters, digits, hyphens, underscores")
        if url.scheme != "http" or url.hostname not in LOOPBACK_HOSTS:
            raise BadSubscription(
                self.name, f"the endpoint {self.endpoint!r} is not an http URL on this machine (http://127.0.0.1:...)"
            )
        if self.source != STORAGE and not self.source.startswith("topics/"):
            raise BadSubscription(self.name, f"the source {self.source!r} is neither storage nor topics/NAME")
        if self.schema not in {EVENT_GRID_SCHEMA, CLOUD_EVENTS_SCHEMA}:
            raise BadSubscription(
                self.name,
                f"the eventDeliverySchema {self.schema!r} is neither {EVENT_GRID_SCHEMA} nor {CLOUD_EVENTS_SCHEMA}",
            )
        if self.max_attempts < 1 or self.ttl_minutes < 1:
            raise BadSubscription(self.name, "maxDeliveryAttempts and eventTimeToLiveInMinutes are at least 1")

    @property
    def cloud_events(self) -> bool:
        """Whether events are delivered as CloudEvents, after the handshake that belongs to them."""
        return self.schema == CLOUD_EVENTS_SCHEMA

    def wants(self, *, source: str, event_type: str, subject: str) -> bool:
        """Whether an event passes the filters. As in Azure, types match exactly and subjects by beginning and end."""
        return self.wants_type(event_type) and self.covers(source=source, subject=subject)

    def wants_type(self, event_type: str) -> bool:
        """Whether events of this type pass."""
        return not self.event_types or event_type in self.event_types

    def covers(self, *, source: str, subject: str) -> bool:
        """Whether events of this source and subject pass, if their type does."""
        begins, ends = self.begins_with, self.ends_with
        if not self.case_sensitive:
            begins, ends, subject = begins.lower(), ends.lower(), subject.lower()
        return source == self.source and subject.startswith(begins) and subject.endswith(ends)

    @property
    def filters(self) -> str:
        """What `covers` depends on, to notice that it was changed."""
        return json.dumps([self.source, self.begins_with, self.ends_with, self.case_sensitive])


def load_subscriptions(file: Path) -> list[Subscription]:
    """The subscriptions of a JSON file. Raises BadSubscription, which names the file or the subscription."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadSubscription(f"file {file}", f"it cannot be read as JSON: {error}") from error
    items = content.get("subscriptions") if isinstance(content, dict) else content
    if not isinstance(items, list):
        raise BadSubscription(f"file {file}", "it holds no array of subscriptions")
    return [_subscription(item, f"{file}[{number}]") for number, item in enumerate(items)]


def _subscription(item: Any, where: str) -> Subscription:
    if not isinstance(item, dict):
        raise BadSubscription(where, "it is not a JSON object")
    name = str(item.get("name", where))
    values: dict[str, Any] = {}
    for key, value in item.items():
        if key not in _FIELDS:
            raise BadSubscription(name, f"there is no field {key!r}; the fields are {', '.join(_FIELDS)}")
        field, kind = _FIELDS[key]
        if type(value) is not kind:  # exact: true is no number of attempts
            raise BadSubscription(name, f"{key} has to be a {kind.__name__}, not {value!r}")
        values[field] = tuple(value) if isinstance(value, list) else value
    for key in ("name", "endpoint"):
        if key not in values:
            raise BadSubscription(name, f"the field {key!r} is missing")
    return Subscription(**values)


def check_names(subscriptions: Sequence[Subscription]) -> None:
    """Raises BadSubscription when two subscriptions have the same name: state is kept by name."""
    seen: set[str] = set()
    for subscription in subscriptions:
        if subscription.name in seen:
            raise BadSubscription(subscription.name, "there are two of that name")
        seen.add(subscription.name)
