"""The blob store port. Paths are `container/name`; eTags carry no quotes. One adapter: adapters/azure_blobs.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from models.errors import RatchetError

MAX_NAME_CHARACTERS = 1024
"""Azure's limit, without the container."""


class BlobError(RatchetError):
    """A blob operation failed. `path` is container/name."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class BlobNotFound(BlobError):
    """No blob (or no container) of that name."""


class BlobConflict(BlobError):
    """The blob changed since it was read (if_match), or exists although it must not (only_new)."""


class BlobArchived(BlobError):
    """The blob is in the archive tier, or on its way out of it: it cannot be read now."""


class StorageUnavailable(BlobError):
    """Storage could not be reached, throttled, or timed out, after the client's own retries. Worth trying again."""


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What a listing tells of a blob. `modified` is in seconds since 1970 UTC."""

    path: str
    etag: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing. `token` gives the next one, and is '' behind the last."""

    blobs: tuple[BlobInfo, ...]
    token: str


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob's content and the eTag it had when it was read."""

    data: bytes
    etag: str


class BlobStore(Protocol):
    """Synchronous and safe to share between threads. Every method raises StorageUnavailable when storage is away."""

    def get(self, path: str, *, if_match: str | None = None) -> Blob:
        """The whole blob. Raises BlobNotFound; BlobConflict when `if_match` is given and the eTag is another.

        With `if_match`, a blob that is gone may raise either: storage chooses which it looks at first.
        """
        ...

    def get_file(self, path: str, file: Path, *, if_match: str | None = None) -> None:
        """Writes the whole blob to `file`, however large it is. Raises what `get` does."""
        ...

    def get_if_changed(self, path: str, *, etag: str | None) -> Blob | None:
        """The blob, or None when its eTag still is `etag` (a conditional GET). Raises BlobNotFound."""
        ...

    def put(
        self,
        path: str,
        data: bytes,
        *,
        if_match: str | None = None,
        only_new: bool = False,
        content_type: str = "application/octet-stream",
    ) -> str:
        """Writes the blob, creating its container when missing, and returns the new eTag. Raises BlobConflict."""
        ...

    def put_file(self, path: str, file: Path) -> None:
        """Writes the content of `file`, however large it is."""
        ...

    def exists(self, path: str) -> bool:
        """Whether there is a blob at `path`."""
        ...

    def head(self, path: str) -> BlobInfo:
        """Size, eTag and time of a blob, without its content. Raises BlobNotFound."""
        ...

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """Blobs whose path starts with `prefix` (`container/` or `container/name-prefix`), by name. Pages by itself."""
        ...

    def pages(self, prefix: str, *, token: str = "") -> Iterator[Page]:
        """The same, page by page, from the page on that `token` stands for."""
        ...

    def delete(self, path: str) -> bool:
        """Deletes the blob; whether there was one."""
        ...
