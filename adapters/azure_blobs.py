"""The blob store on Azure Storage (and Azurite). Imported lazily: the SDK takes a tenth of a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobServiceClient, ContentSettings

from adapters.azure_options import client_options
from adapters.blobs import Blob, BlobArchived, BlobConflict, BlobError, BlobInfo, BlobNotFound, Page, StorageUnavailable
from models.errors import bounded

if TYPE_CHECKING:
    from adapters.settings import Settings

NOT_MODIFIED, BAD_REQUEST, CONFLICT, PRECONDITION_FAILED = 304, 400, 409, 412
ARCHIVED = frozenset({"BlobArchived", "BlobBeingRehydrated"})
PASSING = frozenset({408, 429})
"""Request timeout, too many requests: not the request's fault, and worth trying again."""
SERVER_ERRORS = range(500, 600)


class AzureBlobStore:
    """Implements adapters.blobs.BlobStore on one storage account."""

    def __init__(self, service: BlobServiceClient) -> None:
        self._service = service

    @classmethod
    def from_settings(cls, settings: Settings) -> AzureBlobStore:
        """The app's own account, by connection string or by identity."""
        options: dict[str, Any] = {
            **client_options(settings),
            "initial_backoff": 1,
            "increment_base": 1,
            "random_jitter_range": 1,
        }
        if settings.storage_connection is not None:
            return cls(BlobServiceClient.from_connection_string(settings.storage_connection, **options))
        from azure.identity import DefaultAzureCredential

        credential = DefaultAzureCredential(managed_identity_client_id=settings.client_id)
        return cls(BlobServiceClient(str(settings.blob_service_uri), credential=credential, **options))

    def get(self, path: str, *, if_match: str | None = None) -> Blob:
        with _errors(path):
            download = self._download(path, if_match)
            return Blob(download.readall(), _bare(download.properties.etag))

    def get_file(self, path: str, file: Path, *, if_match: str | None = None) -> None:
        with _errors(path):
            # Opened after the first answer: a blob that is not there leaves no file.
            download = self._download(path, if_match)
            with file.open("wb") as stream:
                download.readinto(stream)

    def get_if_changed(self, path: str, *, etag: str | None) -> Blob | None:
        if etag is None:
            return self.get(path)
        with _errors(path):
            try:
                download = self._blob(path).download_blob(
                    etag=_quoted(etag), match_condition=MatchConditions.IfModified
                )
            except HttpResponseError as exc:
                if exc.status_code == NOT_MODIFIED:
                    return None
                raise
            return Blob(download.readall(), _bare(download.properties.etag))

    def put(
        self,
        path: str,
        data: bytes,
        *,
        if_match: str | None = None,
        only_new: bool = False,
        content_type: str = "application/octet-stream",
    ) -> str:
        conditions: dict[str, Any] = {"overwrite": not only_new}
        if if_match is not None:
            conditions |= {"etag": _quoted(if_match), "match_condition": MatchConditions.IfNotModified}
        return self._upload(path, data, content_settings=ContentSettings(content_type=content_type), **conditions)

    def put_file(self, path: str, file: Path) -> None:
        with file.open("rb") as stream:
            self._upload(path, stream, length=file.stat().st_size, overwrite=True)

    def exists(self, path: str) -> bool:
        with _errors(path):
            return bool(self._blob(path).exists())

    def head(self, path: str) -> BlobInfo:
        with _errors(path):
            properties = self._blob(path).get_blob_properties()
            return BlobInfo(path, _bare(properties.etag), properties.size, properties.last_modified.timestamp())

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        for page in self.pages(prefix):
            yield from page.blobs

    def pages(self, prefix: str, *, token: str = "") -> Iterator[Page]:
        container, _, name_prefix = prefix.partition("/")
        with _errors(prefix):
            try:
                listing = self._service.get_container_client(container).list_blobs(name_prefix)
                pages: Any = listing.by_page(token or None)
                for items in pages:
                    blobs = tuple(
                        BlobInfo(
                            f"{container}/{item.name}", _bare(item.etag), item.size, item.last_modified.timestamp()
                        )
                        for item in items
                    )
                    yield Page(blobs, pages.continuation_token or "")
            except ResourceNotFoundError:
                yield Page((), "")  # no container yet: it is made by the first write

    def delete(self, path: str) -> bool:
        with _errors(path):
            try:
                self._blob(path).delete_blob()
            except ResourceNotFoundError:
                return False
            return True

    def _download(self, path: str, if_match: str | None) -> Any:
        conditions: dict[str, Any] = {}
        if if_match is not None:
            conditions = {"etag": _quoted(if_match), "match_condition": MatchConditions.IfNotModified}
        return self._blob(path).download_blob(**conditions)

    def _upload(self, path: str, data: bytes | BinaryIO, **options: Any) -> str:
        blob = self._blob(path)
        with _errors(path):
            try:
                result = blob.upload_blob(data, **options)
            except ResourceNotFoundError as exc:
                if getattr(exc, "error_code", None) != "ContainerNotFound":
                    raise
                with suppress(ResourceExistsError):
                    self._service.create_container(blob.container_name)
                if not isinstance(data, bytes):
                    data.seek(0)
                result = blob.upload_blob(data, **options)
            return _bare(result["etag"])

    def _blob(self, path: str) -> Any:
        container, _, name = path.partition("/")
        return self._service.get_blob_client(container, name)


def _bare(etag: str) -> str:
    return etag.strip('"')


def _quoted(etag: str) -> str:
    return f'"{etag}"'


@contextmanager
def _errors(path: str) -> Iterator[None]:
    try:
        yield
    except HttpResponseError as exc:
        raise _meaning(path, exc) from exc
    except AzureError as exc:
        raise StorageUnavailable(path, f"storage cannot be reached: {bounded(exc)}") from exc


def _meaning(path: str, exc: HttpResponseError) -> BlobError:
    status = exc.status_code
    if isinstance(exc, ResourceNotFoundError):
        return BlobNotFound(path, f"there is no blob {path}")
    if getattr(exc, "error_code", None) in ARCHIVED:
        return BlobArchived(path, f"{path} is in the archive tier; rehydrate it or upload it again")
    if isinstance(exc, ResourceModifiedError | ResourceExistsError) or status in {CONFLICT, PRECONDITION_FAILED}:
        return BlobConflict(path, f"{path} was changed by somebody else")
    if isinstance(exc, ClientAuthenticationError):
        return BlobError(path, f"storage does not let this app at {path}: {bounded(exc.message)}")
    if status in PASSING or status in SERVER_ERRORS:
        return StorageUnavailable(path, f"storage refuses for now ({status})")
    if status is None or status < BAD_REQUEST:
        # The answer began well and broke off: the SDK has no error of its own for that.
        return StorageUnavailable(path, f"storage broke off its answer: {bounded(exc.message)}")
    return BlobError(path, f"storage refuses {path}: {bounded(exc.message)}")
