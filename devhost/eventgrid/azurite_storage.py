"""Azurite asked with azure-storage-blob, for what its access log does not tell."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.blob import BlobProperties as FoundBlob
from azure.storage.blob.aio import BlobServiceClient

from devhost.eventgrid.catch_up import ListedBlob
from devhost.eventgrid.errors import EventGridError
from devhost.eventgrid.events import BlobProperties
from devhost.eventgrid.storage import Storage, StorageAway

MAX_REASON = 300
"""Longest piece of a library's error that is repeated."""


@contextlib.asynccontextmanager
async def azurite_storage(connection_string: str) -> AsyncIterator[Storage]:
    """Storage by azure-storage-blob. Raises EventGridError for a connection string that it does not take."""
    try:
        service = BlobServiceClient.from_connection_string(connection_string, retry_total=0)
    except ValueError as error:
        raise EventGridError(f"The storage connection string is not valid: {error}.") from error
    async with service:
        yield _AzuriteStorage(service)


@contextlib.contextmanager
def _asking(what: str) -> Iterator[None]:
    try:
        yield
    except AzureError as error:
        raise StorageAway(f"Storage did not say {what}: {_first_line(error)}.") from error


def _first_line(error: AzureError) -> str:
    """Enough to tell a wrong key, an unsupported version or a closed port apart."""
    return f"{type(error).__name__}: {error.message.partition('\n')[0].rstrip('.')}"[:MAX_REASON]


def _properties(blob: FoundBlob) -> BlobProperties:
    return BlobProperties(
        etag=str(blob.etag).strip('"'),
        content_type=str(blob.content_settings.content_type or "application/octet-stream"),
        length=int(blob.size),
        blob_type=str(getattr(blob.blob_type, "value", blob.blob_type)),
    )


class _AzuriteStorage:
    def __init__(self, service: BlobServiceClient) -> None:
        self._service = service
        self.account = str(service.account_name)
        self.endpoint = service.url.rstrip("/")

    async def head(self, *, container: str, name: str) -> BlobProperties | None:
        with _asking(f"what {container}/{name} is"):
            try:
                return _properties(await self._service.get_blob_client(container, name).get_blob_properties())
            except ResourceNotFoundError:
                return None

    async def containers(self) -> list[str]:
        with _asking("which containers there are"):
            return [str(container.name) async for container in self._service.list_containers()]

    async def blobs(self, *, container: str) -> list[ListedBlob]:
        with _asking(f"what {container} holds"):
            return [
                ListedBlob(container, str(blob.name), blob.last_modified, _properties(blob))
                async for blob in self._service.get_container_client(container).list_blobs()
            ]
