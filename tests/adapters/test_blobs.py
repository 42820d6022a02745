"""The blob store port's promises, asked of the real adapter on Azurite and of the fake that other tests use."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


@pytest.mark.parametrize("size", [0, 10, 70 * 2**20])
def test_a_file_of_any_size_comes_back_as_it_was_stored(
    store: BlobStore, container: str, tmp_path: Path, size: int
) -> None:
    """70 MB are more than the SDK sends, or fetches, in one request."""
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.write_bytes(bytes(range(10)) * (size // 10))
    store.put_file(f"{container}/x", sent)
    store.get_file(f"{container}/x", received, if_match=store.head(f"{container}/x").etag)
    assert filecmp.cmp(sent, received, shallow=False)


def test_a_file_is_of_the_version_that_was_asked_for(store: BlobStore, container: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    first = store.put(f"{container}/x", b"1")
    store.put(f"{container}/x", b"2")
    with pytest.raises(BlobConflict):
        store.get_file(f"{container}/x", file, if_match=first)
    with pytest.raises(BlobNotFound):
        store.get_file(f"{container}/y", file)
    assert not file.exists()
    store.get_file(f"{container}/x", file)
    assert file.read_bytes() == b"2"


def test_an_unchanged_blob_is_not_sent_again(store: BlobStore, container: str) -> None:
    etag = store.put(f"{container}/x", b"1")
    assert store.get_if_changed(f"{container}/x", etag=etag) is None
    changed = store.put(f"{container}/x", b"2")
    blob = store.get_if_changed(f"{container}/x", etag=etag)
    assert blob is not None
    assert (blob.data, blob.etag) == (b"2", changed)


def test_a_swap_of_what_is_not_there_is_a_conflict(store: BlobStore, container: str) -> None:
    """No blob, and before that not even a container: neither has the eTag that was read."""
    with pytest.raises(BlobConflict):
        store.put(f"{container}/x", b"1", if_match="0x1")
    store.put(f"{container}/other", b"1")
    with pytest.raises(BlobConflict):
        store.put(f"{container}/x", b"1", if_match="0x1")
    assert not store.exists(f"{container}/x")


def test_a_version_that_was_deleted_cannot_be_read(store: BlobStore, container: str) -> None:
    """Storage may call it either: Azurite looks at the condition first. Polling for a change finds nothing."""
    store.put(f"{container}/other", b"1")
    with pytest.raises((BlobNotFound, BlobConflict)):
        store.get(f"{container}/x", if_match="0x1")
    with pytest.raises(BlobNotFound):
        store.get_if_changed(f"{container}/x", etag="0x1")


def test_the_same_content_again_is_another_version(store: BlobStore, container: str) -> None:
    first = store.put(f"{container}/x", b"1")
    assert store.put(f"{container}/x", b"1") != first


def test_an_empty_blob_is_a_blob(store: BlobStore, container: str) -> None:
    etag = store.put(f"{container}/x", b"")
    blob = store.get_if_changed(f"{container}/x", etag=None)
    assert blob is not None
    assert (blob.data, blob.etag) == (b"", etag)
    assert store.head(f"{container}/x").size == 0


def test_of_many_swaps_with_one_etag_one_succeeds(store: BlobStore, container: str) -> None:
    etag = store.put(f"{container}/x", b"")

    def swap(number: int) -> int | None:
        try:
            store.put(f"{container}/x", str(number).encode(), if_match=etag)
        except BlobConflict:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        (winner,) = (number for number in pool.map(swap, range(16)) if number is not None)
    assert store.get(f"{container}/x").data == str(winner).encode()


def test_many_first_writes_share_one_new_container(store: BlobStore, container: str) -> None:
    names = [f"{container}/{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, b"1"), names))
    assert [info.path for info in store.list(f"{container}/")] == names


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
