"""Storage in memory with an access log, and what a local Event Grid on it was told."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from devhost.eventgrid.catch_up import ListedBlob
from devhost.eventgrid.events import BlobProperties, Event
from devhost.eventgrid.faults import Faults
from devhost.eventgrid.storage import StorageAway, StorageSource
from devhost.eventgrid.store import DATABASE, Store
from devhost.eventgrid.subscriptions import Subscription

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TRAINING = "/blobServices/default/containers/training/"
EVERYTHING = Subscription("everything", "http://127.0.0.1:9/", begins_with=TRAINING)


class FakeAzurite:
    """Storage in memory that writes an access log as Azurite does.

    `etags` are by container and name, and count all changes; `written` is that count at the last write of a name.
    `times` are when a name was last changed, if not just now.
    """

    account = "devstoreaccount1"
    endpoint = "http://127.0.0.1:10000/devstoreaccount1"

    def __init__(self, log: Path) -> None:
        self.log = log
        self.etags: dict[str, dict[str, str]] = {"training": {}, "training2": {}}
        self.written: dict[str, int] = {}
        self.times: dict[str, datetime] = {}
        self.away = False
        self._changes = 0
        self._lines = 0

    def put(self, name: str, container: str = "training") -> None:
        self._change(name, container)
        self.written[name] = self._changes
        self.record(f"PUT /{self.account}/{container}/{quote(name)}", 201)

    def metadata(self, name: str) -> None:
        self._change(name, "training")
        self.record(f"PUT /{self.account}/training/{quote(name)}?comp=metadata", 200)

    def _change(self, name: str, container: str) -> None:
        self._changes += 1
        self.etags[container][name] = f"0x{self._changes:x}"

    def delete(self, name: str, *, logged: bool = True) -> None:
        del self.etags["training"][name]
        if logged:
            self.record(f"DELETE /{self.account}/training/{quote(name)}", 202)

    def record(self, request: str, status: int) -> None:
        """Writes a line of the access log. No two are the same: seconds pass, and a log begun anew differs."""
        self._lines += 1
        at = (LONG_AGO + timedelta(seconds=self._lines)).strftime("%d/%b/%Y:%H:%M:%S %z")
        with self.log.open("ab") as file:
            file.write(f'127.0.0.1 - - [{at}] "{request} HTTP/1.1" {status} -\n'.encode())

    async def head(self, *, container: str, name: str) -> BlobProperties | None:
        self._answer()
        etag = self.etags[container].get(name)
        return None if etag is None else BlobProperties(etag, "text/csv", 3, "BlockBlob")

    async def containers(self) -> list[str]:
        self._answer()
        return list(self.etags)

    async def blobs(self, *, container: str) -> list[ListedBlob]:
        self._answer()
        blobs = self.etags[container].items()
        return [
            ListedBlob(container, name, self._time(name), BlobProperties(e, "text/csv", 3, "BlockBlob"))
            for name, e in blobs
        ]

    def _time(self, name: str) -> datetime:
        return self.times.get(name, datetime.now(UTC)).replace(microsecond=0)

    def _answer(self) -> None:
        if self.away:
            raise StorageAway("Storage did not say.")


def source(azurite: FakeAzurite, store: Store, *subscriptions: Subscription, **options: Any) -> StorageSource:
    return StorageSource(
        log=azurite.log,
        storage=azurite,
        store=store,
        subscriptions=subscriptions or (EVERYTHING,),
        accepted=lambda: None,
        faults=options.pop("faults", Faults()),
        **options,
    )


async def settle(azurite: FakeAzurite, folder: Path, *subscriptions: Subscription, **options: Any) -> None:
    """One life of the process: it starts, does all there is to do, and is gone without a word."""
    with opened(folder) as store:
        store.forget_others(subscription.name for subscription in subscriptions or (EVERYTHING,))
        one = source(azurite, store, *subscriptions, **options)
        while await one.step():
            pass


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Store]:
    with contextlib.closing(Store(folder)) as store:
        yield store


def told(folder: Path, subscription: str = "everything") -> list[tuple[str, str, str]]:
    """All that was accepted for the subscription, in order: what, which blob, which eTag."""
    with contextlib.closing(sqlite3.connect(folder / DATABASE)) as database:
        rows = database.execute("SELECT event FROM deliveries WHERE subscription = ? ORDER BY id", (subscription,))
        events: Sequence[Event] = [json.loads(row[0]) for row in rows]
    return [
        (
            event["eventType"].removeprefix("Microsoft.Storage.Blob"),
            event["subject"].removeprefix(TRAINING + "blobs/"),
            event["data"].get("eTag", ""),
        )
        for event in events
    ]
