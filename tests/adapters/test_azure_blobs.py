"""What the real adapter makes of storage that answers badly: a small server plays it, since Azurite does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobServiceClient

from adapters.azure_blobs import AzureBlobStore
from adapters.blobs import BlobArchived, BlobConflict, BlobError, BlobNotFound, StorageUnavailable
from adapters.settings import read_settings

BREAKS_OFF = 0
"""Not a status: the server promises a hundred bytes and closes after three."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status = 500
    error_code = ""

    def do_GET(self) -> None:
        if self.status == BREAKS_OFF:
            self.send_response(206)
            for name, value in (
                ("Content-Length", "100"),
                ("Content-Range", "bytes 0-99/100"),
                ("ETag", '"0x1"'),
                ("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT"),
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"abc")
            self.close_connection = True
        else:
            self.send_response(self.status)
            self.send_header("Content-Length", "0")
            if self.error_code:
                self.send_header("x-ms-error-code", self.error_code)
            self.end_headers()

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class has that name)
        """Tests are quiet."""


@pytest.fixture
def handler() -> type[_Handler]:
    return type("Handler", (_Handler,), {})


@pytest.fixture
def store(handler: type[_Handler]) -> Iterator[AzureBlobStore]:
    """The adapter without the SDK's retries, which would only make it take longer."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/account"
    credential = {"account_name": "account", "account_key": "YQ=="}
    with BlobServiceClient(url, credential, retry_total=0) as service:
        yield AzureBlobStore(service)
    server.shutdown()
    thread.join()
    server.server_close()


MEANINGS: list[tuple[int, type[BlobError]]] = [
    (404, BlobNotFound),
    (409, BlobConflict),
    (412, BlobConflict),
    (408, StorageUnavailable),
    (429, StorageUnavailable),
    (500, StorageUnavailable),
    (503, StorageUnavailable),
    (400, BlobError),
    (401, BlobError),
    (403, BlobError),
    (BREAKS_OFF, StorageUnavailable),
]


@pytest.mark.parametrize(("status", "meaning"), MEANINGS)
def test_each_bad_answer_has_its_meaning(
    store: AzureBlobStore, handler: type[_Handler], status: int, meaning: type[BlobError]
) -> None:
    handler.status = status
    with pytest.raises(BlobError) as caught:
        store.get("container/x")
    assert type(caught.value) is meaning
    assert caught.value.path == "container/x"
    assert isinstance(caught.value.__cause__, AzureError)


@pytest.mark.parametrize("code", ["BlobArchived", "BlobBeingRehydrated"])
def test_an_archived_blob_is_no_conflict(store: AzureBlobStore, handler: type[_Handler], code: str) -> None:
    handler.status, handler.error_code = 409, code
    with pytest.raises(BlobArchived, match="archive tier"):
        store.get("container/x", if_match="0x1")


@pytest.mark.parametrize("status", [409, 412, 429, 500, 403])
def test_writing_has_the_same_meanings(store: AzureBlobStore, handler: type[_Handler], status: int) -> None:
    handler.status = status
    with pytest.raises(BlobError) as caught:
        store.put("container/x", b"1")
    assert type(caught.value) is dict(MEANINGS)[status]


def test_a_conditional_read_does_not_take_an_error_for_no_change(
    store: AzureBlobStore, handler: type[_Handler]
) -> None:
    handler.status = 304
    assert store.get_if_changed("container/x", etag="0x1") is None
    handler.status = 503
    with pytest.raises(StorageUnavailable):
        store.get_if_changed("container/x", etag="0x1")


def test_an_identity_asks_for_no_token_before_it_is_needed() -> None:
    identity = {
        "AzureWebJobsStorage__blobServiceUri": "https://account.blob.core.windows.net",
        "AzureWebJobsStorage__tableServiceUri": "https://account.table.core.windows.net",
    }
    assert isinstance(AzureBlobStore.from_settings(read_settings(identity)), AzureBlobStore)
