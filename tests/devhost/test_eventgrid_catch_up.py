"""Catching up: what the log did not show is found in storage."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from devhost.eventgrid import storage
from devhost.eventgrid.catch_up import ListedBlob, container_matters
from devhost.eventgrid.faults import Faults
from devhost.eventgrid.store import DATABASE, Progress, Store
from devhost.eventgrid.subscriptions import Subscription
from tests.devhost.fake_azurite import EVERYTHING, LONG_AGO, TRAINING, FakeAzurite, opened, settle, source, told
from tests.devhost.webhook import eventually

CREATED, DELETED = "Microsoft.Storage.BlobCreated", "Microsoft.Storage.BlobDeleted"


@pytest.fixture
def azurite(tmp_path: Path) -> FakeAzurite:
    return FakeAzurite(tmp_path / "azurite.log")


async def test_what_a_lost_log_recorded_is_found_in_storage(azurite: FakeAzurite, tmp_path: Path) -> None:
    for name in ("stays.csv", "changes.csv", "goes.csv"):
        azurite.put(name)
    await settle(azurite, tmp_path)
    assert len(told(tmp_path)) == 3
    azurite.put("changes.csv")
    azurite.put("p/new é#.csv")
    azurite.put("elsewhere.csv", container="training2")
    azurite.delete("goes.csv")
    azurite.log.unlink()
    azurite.put("logged.csv")
    await settle(azurite, tmp_path)
    assert sorted(told(tmp_path)[3:]) == [
        ("Created", "changes.csv", "0x4"),
        ("Created", "logged.csv", "0x7"),
        ("Created", "p/new é#.csv", "0x5"),
        ("Deleted", "goes.csv", ""),
    ]
    await settle(azurite, tmp_path)  # nothing is told twice
    assert len(told(tmp_path)) == 7


async def test_a_full_disk_holds_the_log_up_and_loses_nothing(
    azurite: FakeAzurite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(storage, "AWAY_SECONDS", 0.0)
    azurite.put("a.csv")
    accept = Store.accept
    failures = iter([sqlite3.OperationalError("database or disk is full")] * 2)

    def full_twice(store: Store, *given: Any) -> None:
        for failure in failures:
            raise failure
        accept(store, *given)

    monkeypatch.setattr(Store, "accept", full_twice)
    with opened(tmp_path) as store:
        following = asyncio.create_task(source(azurite, store).run())
        await eventually(lambda: told(tmp_path) == [("Created", "a.csv", "0x1")])
        following.cancel()
        await asyncio.wait({following})
    assert capsys.readouterr().out == "The state cannot be written (database or disk is full). Trying again.\n"


async def test_deletions_in_a_batch_are_found_at_the_next_start(azurite: FakeAzurite, tmp_path: Path) -> None:
    azurite.put("a.csv")
    await settle(azurite, tmp_path)
    azurite.delete("a.csv", logged=False)
    await settle(azurite, tmp_path)
    assert told(tmp_path)[1:] == [("Deleted", "a.csv", "")]


async def test_old_blobs_are_no_news_to_a_first_start_nor_to_a_new_subscription(
    azurite: FakeAzurite, tmp_path: Path
) -> None:
    azurite.put("old.csv")
    azurite.times["old.csv"] = LONG_AGO
    azurite.log.unlink()
    azurite.put("logged.csv")
    azurite.times["logged.csv"] = LONG_AGO
    await settle(azurite, tmp_path)
    assert told(tmp_path) == [("Created", "logged.csv", "0x2")]
    second = Subscription("second", "http://127.0.0.1:9/", ends_with=".csv")
    await settle(azurite, tmp_path, EVERYTHING, second)
    assert told(tmp_path, "second") == []
    azurite.put("old.csv")
    azurite.log.unlink()
    await settle(azurite, tmp_path, EVERYTHING, second)
    assert told(tmp_path, "second") == [("Created", "old.csv", "0x3")]
    azurite.put("old.parquet")
    azurite.times["old.parquet"] = LONG_AGO
    await settle(azurite, tmp_path, EVERYTHING, second)
    wider = Subscription("second", "http://127.0.0.1:9/")  # other filters: what they add is old as well
    await settle(azurite, tmp_path, EVERYTHING, wider)
    assert told(tmp_path, "second") == [("Created", "old.csv", "0x3")]


async def test_killed_in_its_first_second_it_misses_nothing_from_its_start_on(
    azurite: FakeAzurite, tmp_path: Path
) -> None:
    azurite.put("old.csv")
    azurite.times["old.csv"] = LONG_AGO
    azurite.log.unlink()
    with opened(tmp_path) as store:
        source(azurite, store)  # has come to be, and done nothing yet
    azurite.put("a.csv")
    azurite.log.unlink()
    await settle(azurite, tmp_path)
    assert told(tmp_path) == [("Created", "a.csv", "0x2")]


async def test_from_the_end_on_only_what_comes_later_is_news(azurite: FakeAzurite, tmp_path: Path) -> None:
    azurite.put("before.csv")
    azurite.times["before.csv"] = LONG_AGO
    await settle(azurite, tmp_path, from_end=True)
    azurite.put("after.csv")
    await settle(azurite, tmp_path, from_end=True)
    assert told(tmp_path) == [("Created", "after.csv", "0x2")]


async def test_new_metadata_is_no_write(azurite: FakeAzurite, tmp_path: Path) -> None:
    azurite.put("a.csv")
    await settle(azurite, tmp_path)
    azurite.metadata("a.csv")
    await settle(azurite, tmp_path)
    await settle(azurite, tmp_path)
    assert told(tmp_path) == [("Created", "a.csv", "0x1")]
    azurite.put("a.csv")
    azurite.log.unlink()
    azurite.metadata("a.csv")  # after a gap it would hide the write
    await settle(azurite, tmp_path)
    assert told(tmp_path)[1:] == [("Created", "a.csv", "0x4")]


async def test_a_gap_is_remembered_over_a_death_before_storage_was_compared(
    azurite: FakeAzurite, tmp_path: Path
) -> None:
    azurite.put("a.csv")
    await settle(azurite, tmp_path)
    azurite.put("a.csv")
    azurite.log.write_bytes(b"")
    azurite.put("b.csv")
    with opened(tmp_path) as store:
        assert await source(azurite, store).step()  # takes the new log, and dies before it compares
    azurite.metadata("a.csv")
    await settle(azurite, tmp_path)
    assert told(tmp_path)[1:] == [("Created", "b.csv", "0x3"), ("Created", "a.csv", "0x4")]
    azurite.metadata("a.csv")
    await settle(azurite, tmp_path)
    await settle(azurite, tmp_path)
    assert len(told(tmp_path)) == 3  # and forgotten once it was dealt with


async def test_a_write_that_was_found_is_not_told_again_when_the_log_shows_it(
    azurite: FakeAzurite, tmp_path: Path
) -> None:
    azurite.put("old.csv")
    await settle(azurite, tmp_path)
    with opened(tmp_path) as store:
        one = source(azurite, store)
        azurite.etags["training"]["a.csv"] = "0x9"  # storage has it before the log does
        del azurite.etags["training"]["old.csv"]
        assert await one.step()
        with azurite.log.open("ab") as log:
            log.write(b'- - - [24/Nov/2026:12:00:00 +0000] "PUT /devstoreaccount1/training/a.csv HTTP/1.1" 201 -\n')
            log.write(
                b'- - - [24/Nov/2026:12:00:00 +0000] "DELETE /devstoreaccount1/training/old.csv HTTP/1.1" 202 -\n'
            )
        while await one.step():
            pass
        azurite.put("a.csv")
        while await one.step():
            pass
    assert told(tmp_path)[1:] == [("Created", "a.csv", "0x9"), ("Deleted", "old.csv", ""), ("Created", "a.csv", "0x2")]


async def test_what_happens_while_storage_is_listed_is_told_by_the_log(azurite: FakeAzurite, tmp_path: Path) -> None:
    class BusyAzurite(FakeAzurite):
        async def blobs(self, *, container: str) -> list[ListedBlob]:
            if "goes.csv" in self.etags["training"]:
                self.put("new.csv")
                self.metadata("stays.csv")
                self.delete("goes.csv")
            return await super().blobs(container=container)

    azurite.put("stays.csv")
    azurite.put("goes.csv")
    await settle(azurite, tmp_path)
    busy = BusyAzurite(azurite.log)
    busy.etags = azurite.etags
    await settle(busy, tmp_path)
    assert [one[:2] for one in told(tmp_path)[2:]] == [("Created", "new.csv"), ("Deleted", "goes.csv")]
    await settle(busy, tmp_path)
    assert len(told(tmp_path)) == 4


async def test_storage_that_never_rests_is_compared_all_the_same(azurite: FakeAzurite, tmp_path: Path) -> None:
    class RestlessAzurite(FakeAzurite):
        async def blobs(self, *, container: str) -> list[ListedBlob]:
            self.put("restless.csv")
            return await super().blobs(container=container)

    azurite.put("goes.csv")
    await settle(azurite, tmp_path)
    restless = RestlessAzurite(azurite.log)
    restless.etags = azurite.etags
    restless.delete("goes.csv", logged=False)
    await settle(restless, tmp_path)
    assert ("Deleted", "goes.csv", "") in told(tmp_path)


async def test_filters_by_type_hold_for_what_is_found(azurite: FakeAzurite, tmp_path: Path) -> None:
    created = Subscription("created", "http://127.0.0.1:9/", event_types=(CREATED,))
    deleted = Subscription("deleted", "http://127.0.0.1:9/", event_types=(DELETED,))
    azurite.put("a.csv")
    await settle(azurite, tmp_path, created, deleted)
    azurite.delete("a.csv")
    azurite.put("b.csv")
    azurite.log.unlink()
    await settle(azurite, tmp_path, created, deleted)
    assert [one[:2] for one in told(tmp_path, "created")] == [("Created", "a.csv"), ("Created", "b.csv")]
    assert [one[:2] for one in told(tmp_path, "deleted")] == [("Deleted", "a.csv")]


async def test_blobs_that_went_with_their_container_raise_no_events(azurite: FakeAzurite, tmp_path: Path) -> None:
    azurite.put("a.csv")
    await settle(azurite, tmp_path)
    gone = azurite.etags.pop("training")
    await settle(azurite, tmp_path)
    azurite.etags["training"] = gone  # the same data again is news again
    await settle(azurite, tmp_path)
    assert [one[0] for one in told(tmp_path)] == ["Created", "Created"]


async def test_it_is_repeatable_which_blobs_faults_hit(tmp_path: Path) -> None:
    faults = Faults(seed=7, drop=0.5)
    results = []
    for run in ("one", "two"):
        azurite = FakeAzurite(tmp_path / f"{run}.log")
        for number in range(40):
            azurite.put(f"{number % 20}.csv")
        if run == "two":  # other lives, and other eTags
            await settle(azurite, tmp_path / run, faults=faults)
        azurite.put("unrelated", container="training2")
        azurite.put("last.csv")
        await settle(azurite, tmp_path / run, faults=faults)
        results.append([one[1] for one in told(tmp_path / run)])
    assert results[0] == results[1]
    assert 10 < len(results[0]) < 31


@pytest.mark.parametrize(
    ("begins", "matters"),
    [
        ("", True),
        (TRAINING, True),
        (TRAINING.upper() + "blobs/flights/", True),
        ("/blobServices/default/containers/train", True),
        ("/blobServices/default/containers/training2/", False),
        ("/other", False),
    ],
)
def test_only_containers_that_matter_are_listed(begins: str, matters: bool) -> None:
    assert container_matters(Subscription("s", "http://127.0.0.1:9/", begins_with=begins), "training") is matters


def test_a_state_folder_of_an_earlier_version_is_taken_over(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / DATABASE)) as database:
        database.executescript("""
            CREATE TABLE deliveries (id INTEGER PRIMARY KEY, subscription TEXT NOT NULL, event TEXT NOT NULL,
                attempts INTEGER NOT NULL DEFAULT 0, accepted REAL NOT NULL, due REAL NOT NULL,
                outcome TEXT NOT NULL DEFAULT '');
            CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
            INSERT INTO deliveries (subscription, event, accepted, due) VALUES ('everything', '{"id": "1"}', 1, 1);
            INSERT INTO facts VALUES ('position', '["1:2", 3]');
        """)
    with opened(tmp_path) as store:
        (delivery,) = store.due("everything", limit=1)
        store.retry(delivery, attempts=1, outcome="x", due=0.0)
        position = store.position()
        assert position is not None
        assert (position.file, position.offset, position.digest) == ("1:2", 3, "")
        store.accept([], Progress(sequence=1, position=position))
        assert store.position() == position
