"""HEAD requests to Azurite with azure-storage-blob, for what its access log does not tell."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.blob.aio import BlobServiceClient

from devhost.eventgrid.errors import EventGridError
from devhost.eventgrid.events import BlobProperties
from devhost.eventgrid.storage import BlobHeads, StorageAway

MAX_REASON = 300
"""Longest piece of a library's error that is repeated."""


@contextlib.asynccontextmanager
async def azurite_heads(connection_string: str) -> AsyncIterator[BlobHeads]:
    """HEAD requests with azure-storage-blob. Raises EventGridError for a connection string that it does not take."""
    try:
        service = BlobServiceClient.from_connection_string(connection_string, retry_total=0)
    except ValueError as error:
        raise EventGridError(f"The storage connection string is not valid: {error}.") from error
    async with service:
        yield _AzuriteHeads(service)


def _first_line(error: AzureError) -> str:
    """Enough to tell a wrong key, an unsupported version or a closed port apart."""
    return f"{type(error).__name__}: {error.message.partition('\n')[0].rstrip('.')}"[:MAX_REASON]


class _AzuriteHeads:
    def __init__(self, service: BlobServiceClient) -> None:
        self._service = service
        self.account = str(service.account_name)
        self.endpoint = service.url.rstrip("/")

    async def head(self, *, container: str, name: str) -> BlobProperties | None:
        try:
            blob = await self._service.get_blob_client(container, name).get_blob_properties()
        except ResourceNotFoundError:
            return None
        except AzureError as error:
            raise StorageAway(f"Storage did not say what {container}/{name} is: {_first_line(error)}.") from error
        return BlobProperties(
            etag=str(blob.etag).strip('"'),
            content_type=str(blob.content_settings.content_type or "application/octet-stream"),
            length=int(blob.size),
            blob_type=str(blob.blob_type.value),
        )
