"""Catching up: what storage holds, compared with what a subscription has been told of.

The access log is where events come from, but logs are truncated, removed and rotated while nobody follows them. So
after every start, and whenever the log turns out to have a gap, the blobs themselves are listed: one with an eTag that
the subscription has not been told of was written, one that is missing was deleted. Writes in between, of which only
the last one still shows, are one event.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from devhost.eventgrid.access_log import BLOB_CREATED, BLOB_DELETED, BlobWrite
from devhost.eventgrid.events import BlobProperties
from devhost.eventgrid.store import Known
from devhost.eventgrid.subscriptions import STORAGE, Subscription

CONTAINERS = "/blobServices/default/containers/"


@dataclass(frozen=True, slots=True)
class ListedBlob:
    """A blob as a listing shows it. `time` is when it was last changed."""

    container: str
    name: str
    time: datetime
    properties: BlobProperties

    @property
    def subject(self) -> str:
        """The subject of its events."""
        return f"{CONTAINERS}{self.container}/blobs/{self.name}"


@dataclass(frozen=True, slots=True)
class Difference:
    """A write or deletion that a subscription has not been told of; `properties` as in an event."""

    write: BlobWrite
    properties: BlobProperties | None


def container_matters(subscription: Subscription, container: str) -> bool:
    """Whether the subscription can want anything of this container."""
    blobs, begins = f"{CONTAINERS}{container}/blobs/".lower(), subscription.begins_with.lower()
    return subscription.source == STORAGE and (blobs.startswith(begins) or begins.startswith(blobs))


def compare(
    subscription: Subscription,
    listed: Iterable[ListedBlob],
    *,
    known: Mapping[str, str],
    containers: Iterable[str],
    account: str,
    since: float,
) -> tuple[list[Difference], list[Known]]:
    """What the subscription has yet to be told, and what is known of its blobs from then on.

    `since` is when it came to be, with the filters that it has: an older blob that it was not told of is no news to it.
    (Storage gives whole seconds, so one written in the very second is news.) As in Azure, blobs that went with their
    whole container raise no events.
    """
    present = {blob.subject: blob for blob in listed if subscription.covers(source=STORAGE, subject=blob.subject)}
    differences: list[Difference] = []
    changes: list[Known] = []
    for subject, blob in present.items():
        etag, told = blob.properties.etag, known.get(subject)
        if told == etag:
            continue
        changes.append(Known(subscription.name, subject, etag))
        old = blob.time.timestamp() < math.floor(since) if told is None else told == ""
        if not old and subscription.wants_type(BLOB_CREATED):
            path = quote(blob.name, safe="/~")
            write = BlobWrite(BLOB_CREATED, "PutBlob", account, blob.container, path, blob.time)
            differences.append(Difference(write, blob.properties))
    there = set(containers)
    for subject in known.keys() - present.keys():
        changes.append(Known(subscription.name, subject, None))
        container, _, name = subject.removeprefix(CONTAINERS).partition("/blobs/")
        covered = subscription.covers(source=STORAGE, subject=subject)
        if container in there and covered and subscription.wants_type(BLOB_DELETED):
            now = datetime.now(UTC)
            write = BlobWrite(BLOB_DELETED, "DeleteBlob", account, container, quote(name, safe="/~"), now)
            differences.append(Difference(write, None))
    return differences, changes
