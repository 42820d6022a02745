"""What an event says, and what of it is believed."""

from __future__ import annotations

from typing import Any

import pytest

from triggers.uploads import CREATED, DELETED, BlobNews, read_event

SUBJECT = "/blobServices/default/containers/training/blobs/shops/2026/a.csv"
DATA = {"api": "PutBlob", "eTag": '"0x8D"', "contentLength": 12, "sequencer": "00A", "url": "http://elsewhere/x"}


def test_a_created_blob_is_news() -> None:
    news = read_event(CREATED, SUBJECT, DATA)
    assert news == BlobNews("created", "shops", "shops/2026/a.csv", "0x8D", 12, "00A")


@pytest.mark.parametrize("api", ["PutBlob", "PutBlockList", "CopyBlob", "FlushWithClose", "SftpCommit"])
def test_every_way_to_write_counts(api: str) -> None:
    assert read_event(CREATED, SUBJECT, {**DATA, "api": api}) is not None


def test_a_deleted_blob_is_news() -> None:
    news = read_event(DELETED, SUBJECT, {"api": "DeleteBlob", "sequencer": "00B"})
    assert news == BlobNews("deleted", "shops", "shops/2026/a.csv", "", 0, "00B")


def test_a_name_is_unquoted() -> None:
    news = read_event(CREATED, SUBJECT.replace("a.csv", "b%20%C3%A9.csv"), DATA)
    assert news is not None
    assert news.path == "shops/2026/b é.csv"


@pytest.mark.parametrize(
    ("event_type", "subject", "data"),
    [
        (CREATED, SUBJECT.replace("training", "training2"), DATA),
        (CREATED, SUBJECT.replace("training", "models"), DATA),
        (CREATED, "/blobServices/default/containers/training/blobs/no-pipeline.csv", DATA),
        (CREATED, SUBJECT + "/", DATA),
        (CREATED, "", DATA),
        ("Microsoft.Storage.BlobTierChanged", SUBJECT, DATA),
        (CREATED, SUBJECT, {"api": "CreateFile", "contentLength": 0}),
    ],
)
def test_what_is_no_upload_of_a_pipeline_is_dropped(event_type: str, subject: str, data: dict[str, Any]) -> None:
    assert read_event(event_type, subject, data) is None
