"""What an event says, and what of it is believed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import azure.functions as func
import pytest

from tests.activities.world import World, rows
from triggers.uploads import CREATED, DELETED, RENAMED, BlobNews, handle, read_event, record

NOW = datetime(2026, 1, 1, tzinfo=UTC)

SUBJECT = "/blobServices/default/containers/training/blobs/shops/2026/a.csv"
DATA = {"api": "PutBlob", "eTag": '"0x8D"', "contentLength": 12, "sequencer": "00A", "url": "http://elsewhere/x"}


def test_a_created_blob_is_news() -> None:
    news = read_event(CREATED, SUBJECT, DATA)
    assert news == BlobNews("created", "shops", "shops/2026/a.csv", "0x8D", 12, "00A")


@pytest.mark.parametrize("api", ["PutBlob", "PutBlockList", "CopyBlob", "FlushWithClose", "SftpCommit"])
def test_every_way_to_write_counts(api: str) -> None:
    assert isinstance(read_event(CREATED, SUBJECT, {**DATA, "api": api}), BlobNews)


def test_a_deleted_blob_is_news() -> None:
    news = read_event(DELETED, SUBJECT, {"api": "DeleteBlob", "sequencer": "00B"})
    assert news == BlobNews("deleted", "shops", "shops/2026/a.csv", "", 0, "00B")


@pytest.mark.parametrize(
    ("subject", "url", "name"),
    [
        ("b%20c.csv", "b%20c.csv", "b c.csv"),
        ("b c.csv", "b%20c.csv", "b c.csv"),
        ("b%20c.csv", "b%2520c.csv", "b%20c.csv"),
        ("100%.csv", "100%25.csv", "100%.csv"),
        ("50%25.csv", "50%2525.csv", "50%25.csv"),
        ("50%25.csv", "50%25.csv", "50%.csv"),
        ("50%25.csv", "http://[", "50%.csv"),
        ("\u5317\u4eac \u202f\U0001f468\u200d\U0001f469.csv", "x", "\u5317\u4eac \u202f\U0001f468\u200d\U0001f469.csv"),
    ],
)
def test_a_name_is_what_the_blob_is_called(subject: str, url: str, name: str) -> None:
    """Storage writes the subject as it is; the local Event Grid encodes it."""
    told = {**DATA, "url": f"https://elsewhere.example/training/shops/2026/{url}" if "[" not in url else url}
    news = read_event(CREATED, SUBJECT.replace("a.csv", subject), told)
    assert isinstance(news, BlobNews)
    assert news.path == f"shops/2026/{name}"


def test_a_name_is_unquoted() -> None:
    news = read_event(CREATED, SUBJECT.replace("a.csv", "b%20%C3%A9.csv"), DATA)
    assert isinstance(news, BlobNews)
    assert news.path == "shops/2026/b é.csv"


@pytest.mark.parametrize(
    ("event_type", "subject", "data", "reason"),
    [
        (CREATED, SUBJECT.replace("training", "training2"), DATA, "container"),
        (CREATED, SUBJECT.replace("training", "models"), DATA, "container"),
        (CREATED, "/blobServices/default/containers/training/blobs/no-pipeline.csv", DATA, "container"),
        (CREATED, SUBJECT + "/", DATA, "placeholder"),
        (CREATED, "", DATA, "container"),
        ("Microsoft.Storage.BlobTierChanged", SUBJECT, DATA, "type"),
        (CREATED, SUBJECT, {"api": "CreateFile", "contentLength": 0}, "no content"),
        (CREATED, SUBJECT.replace("2026", ".."), DATA, "name"),
        (CREATED, SUBJECT.replace("2026", "%00"), DATA, "name"),
        (CREATED, SUBJECT + "%0A", DATA, "name"),
        (CREATED, SUBJECT.replace("2026", "2026%0A2027"), DATA, "name"),
        (CREATED, SUBJECT, {"api": "SftpCreate", "contentLength": 0}, "no content"),
        (CREATED, SUBJECT, {**DATA, "contentLength": "many"}, "malformed"),
        (CREATED, SUBJECT, {**DATA, "contentLength": [1]}, "malformed"),
        (CREATED, SUBJECT, None, "malformed"),
        (CREATED, SUBJECT, [DATA], "malformed"),
        (CREATED, SUBJECT, "blob", "malformed"),
        (CREATED, SUBJECT.replace("2026", "x" * 1024), DATA, "name"),
    ],
)
def test_what_is_no_upload_of_a_pipeline_is_dropped_for_a_reason(
    event_type: str, subject: str, data: dict[str, Any], reason: str
) -> None:
    assert read_event(event_type, subject, data) == reason


ACCOUNT = "/subscriptions/0/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/"


@pytest.mark.parametrize(
    ("source", "account", "dropped"),
    [
        (ACCOUNT + "ours", "ours", False),
        (ACCOUNT + "Ours", "ours", False),
        (ACCOUNT + "theirs", "ours", True),
        (ACCOUNT + "theirs", "", False),  # an account behind a domain of its own has no name that we could know
        ("", "ours", False),
    ],
)
def test_another_accounts_event_is_dropped(source: str, account: str, *, dropped: bool) -> None:
    assert (read_event(CREATED, SUBJECT, DATA, source=source, account=account) == "account") == dropped


def test_a_renamed_blob_is_there_under_its_new_name_and_gone_under_its_old_one(world: World) -> None:
    path = world.upload("old.csv", rows(0))
    world.blobs.delete(f"training/{path}")
    data = {"api": "RenameFile", "sourceUrl": "https://elsewhere.example/training/shops/old.csv", "sequencer": "0C"}
    news = read_event(RENAMED, SUBJECT, data)
    assert news == BlobNews("created", "shops", "shops/2026/a.csv", "", 0, "0C", former=path)
    record(news)
    assert {row.path: row.state for row in world.ledger.rows("shops")} == {path: "removed", news.path: "pending"}


def test_a_rename_that_is_told_late_does_not_take_a_newer_upload_of_the_former_name(world: World) -> None:
    path = world.upload("old.csv", rows(0))
    data = {"api": "RenameFile", "sourceUrl": "https://elsewhere.example/training/shops/old.csv", "sequencer": "0C"}
    news = read_event(RENAMED, SUBJECT, data)
    assert isinstance(news, BlobNews)
    record(news)
    assert {row.path: row.state for row in world.ledger.rows("shops")} == {path: "pending", news.path: "pending"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://[",
        "https://a/models/shops/x.csv",
        "https://a/training/other/x.csv",
        "https://a/training/shops/../x",
    ],
)
def test_a_former_name_of_another_place_is_not_believed(url: str) -> None:
    news = read_event(RENAMED, SUBJECT, {"sourceUrl": url})
    assert isinstance(news, BlobNews)
    assert news.former == ""


class Platform:
    """The durable client, as far as starting a run goes."""

    def __init__(self) -> None:
        self.started: list[str] = []

    async def start_new(self, _: str, instance: str, __: Any) -> str:
        self.started.append(instance)
        return instance


@pytest.mark.parametrize("schema", ["grid", "cloud"])
async def test_both_schemas_are_understood_and_what_is_dropped_is_counted(
    world: World, monkeypatch: pytest.MonkeyPatch, schema: str
) -> None:
    dropped: list[str] = []
    monkeypatch.setattr("triggers.uploads.count_dropped_event", dropped.append)
    platform = Platform()
    for subject, source in ((SUBJECT, "ours"), (SUBJECT, "theirs"), (SUBJECT.replace("/shops/", "/none/"), "ours")):
        await handle(event(schema, subject, ACCOUNT + source), cast(Any, platform))
    assert platform.started == ["retrain-shops"]
    assert dropped == ["account", "pipeline"]
    assert [row.path for row in world.ledger.rows("shops")] == ["shops/2026/a.csv"]


def event(schema: str, subject: str, source: str, data: Any = DATA) -> Any:
    if schema == "cloud":
        return func.CloudEvent(
            source=source, type=CREATED, subject=subject, data=data, id="1", specversion="1.0", time=NOW
        )
    return func.EventGridEvent(
        id="1", data=data, topic=source, subject=subject, event_type=CREATED, event_time=NOW, data_version="1"
    )


@pytest.mark.parametrize("schema", ["grid", "cloud"])
@pytest.mark.parametrize("data", [None, "text", ["a"], {"contentLength": "x"}])
async def test_an_event_that_makes_no_sense_is_dropped_and_counted_and_fails_no_batch(
    world: World, monkeypatch: pytest.MonkeyPatch, schema: str, data: Any
) -> None:
    """What fails is delivered again for a day, with all that came in its batch."""
    dropped: list[str] = []
    monkeypatch.setattr("triggers.uploads.count_dropped_event", dropped.append)
    platform = Platform()
    await handle(event(schema, SUBJECT, "ours", data), cast(Any, platform))
    assert (dropped, platform.started, list(world.ledger.rows("shops"))) == (["malformed"], [], [])
