"""A user's view of blob storage: it uploads as any user of the account does, and reads what the app wrote."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol, Self

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobServiceClient

from adapters.blobs import BlobNotFound, StorageUnavailable
from models.errors import bounded

TRAINING_CONTAINER = "training"


class Storage(Protocol):
    """What the demo needs of the account. Paths are container/name. All raise StorageUnavailable."""

    def upload(self, path: str, data: bytes) -> None:
        """Writes a blob, over the old one if there is one."""
        ...

    def has(self, path: str) -> bool:
        """Whether there is such a blob."""
        ...

    def read(self, path: str) -> bytes:
        """A blob's content. Raises BlobNotFound."""
        ...


class AccountStorage:
    """Storage through azure-storage-blob. Close it, or use it in a `with` block."""

    def __init__(self, connection_string: str, *, attempts: int = 3) -> None:
        # One small local account: a request that fails a few times in a row means that it is down.
        self._service = BlobServiceClient.from_connection_string(connection_string, retry_total=attempts - 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._service.close()

    def upload(self, path: str, data: bytes) -> None:
        """Writes a blob, creating its container when missing. Raises StorageUnavailable."""
        container = path.partition("/")[0]
        try:
            with suppress(ResourceExistsError):
                self._service.create_container(container)
            self._blob(path).upload_blob(data, overwrite=True)
        except AzureError as exc:
            raise StorageUnavailable(path, f"{path} could not be uploaded; does the stack run? {bounded(exc)}") from exc

    def has(self, path: str) -> bool:
        """Whether there is such a blob. Raises StorageUnavailable."""
        try:
            return self._blob(path).exists()
        except AzureError as exc:
            raise StorageUnavailable(path, f"{path} could not be looked up: {bounded(exc)}") from exc

    def read(self, path: str) -> bytes:
        """A blob's content. Raises BlobNotFound, StorageUnavailable."""
        try:
            return self._blob(path).download_blob().readall()
        except ResourceNotFoundError as exc:
            raise BlobNotFound(path, f"there is no blob {path}") from exc
        except AzureError as exc:
            raise StorageUnavailable(path, f"{path} could not be read: {bounded(exc)}") from exc

    def _blob(self, path: str) -> BlobClient:
        container, _, name = path.partition("/")
        return self._service.get_blob_client(container, name)
