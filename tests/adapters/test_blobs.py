"""The blob store port's promises, asked of the real adapter on Azurite and of the fake that other tests use."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adapters.azure_blobs import AzureBlobStore
from adapters.blobs import BlobConflict, BlobNotFound, BlobStore, StorageUnavailable
from adapters.settings import read_settings
from devhost.ports import free_port
from tests.fakes.blobs import MemoryBlobs


@pytest.fixture(params=[pytest.param("azure", marks=pytest.mark.integration), "memory"])
def store(request: pytest.FixtureRequest) -> BlobStore:
    if request.param == "memory":
        return MemoryBlobs()
    connection = request.getfixturevalue("storage")
    return AzureBlobStore.from_settings(read_settings({"AzureWebJobsStorage": connection}))


def test_a_blob_comes_back_as_it_was_written(store: BlobStore, container: str) -> None:
    etag = store.put(f"{container}/a/b é#1.csv", b"content")
    blob = store.get(f"{container}/a/b é#1.csv")
    assert (blob.data, blob.etag) == (b"content", etag)
    assert '"' not in etag


def test_what_is_not_there_is_not_found(store: BlobStore, container: str) -> None:
    actions: list[Callable[[str], object]] = [store.get, store.head, lambda path: store.get_if_changed(path, etag=None)]
    for action in actions:
        with pytest.raises(BlobNotFound):
            action(f"{container}/nothing")
    assert not store.exists(f"{container}/nothing")
    assert list(store.list(f"{container}/")) == []


def test_a_new_blob_must_not_be_there(store: BlobStore, container: str) -> None:
    store.put(f"{container}/x", b"1", only_new=True)
    with pytest.raises(BlobConflict):
        store.put(f"{container}/x", b"2", only_new=True)
    assert store.get(f"{container}/x").data == b"1"


def test_a_swap_needs_the_etag_that_was_read(store: BlobStore, container: str) -> None:
    first = store.put(f"{container}/x", b"1")
    second = store.put(f"{container}/x", b"2", if_match=first)
    assert second != first
    with pytest.raises(BlobConflict):
        store.put(f"{container}/x", b"3", if_match=first)
    assert store.get(f"{container}/x").data == b"2"


def test_reading_a_version_that_was_overwritten_is_a_conflict(store: BlobStore, container: str) -> None:
    first = store.put(f"{container}/x", b"1")
    assert store.get(f"{container}/x", if_match=first).data == b"1"
    store.put(f"{container}/x", b"2")
    with pytest.raises(BlobConflict):
        store.get(f"{container}/x", if_match=first)


def test_an_unchanged_blob_is_not_sent_again(store: BlobStore, container: str) -> None:
    etag = store.put(f"{container}/x", b"1")
    assert store.get_if_changed(f"{container}/x", etag=etag) is None
    changed = store.put(f"{container}/x", b"2")
    blob = store.get_if_changed(f"{container}/x", etag=etag)
    assert blob is not None
    assert (blob.data, blob.etag) == (b"2", changed)


def test_listing_goes_by_prefix_and_name(store: BlobStore, container: str) -> None:
    for name in ("p/b", "p/a", "q/a"):
        store.put(f"{container}/{name}", b"12")
    listed = list(store.list(f"{container}/p/"))
    assert [info.path for info in listed] == [f"{container}/p/a", f"{container}/p/b"]
    assert listed[0].size == 2
    assert listed[0].etag == store.head(f"{container}/p/a").etag


def test_storage_that_is_away_says_so(container: str) -> None:
    """The same promise of the real adapter, for which nothing has to run, and of the fake."""
    nowhere = f"http://127.0.0.1:{free_port()}/devstoreaccount1"
    settings = read_settings({"AzureWebJobsStorage": f"AccountName=a;AccountKey=YQ==;BlobEndpoint={nowhere};"})
    fake = MemoryBlobs()
    fake.away = True
    for each in (fake, AzureBlobStore.from_settings(settings)):
        with pytest.raises(StorageUnavailable):
            each.get(f"{container}/x")
