"""The blob store in memory: the port's semantics, and storage that can go away."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from adapters.blobs import (
    MAX_NAME_CHARACTERS,
    Blob,
    BlobArchived,
    BlobConflict,
    BlobError,
    BlobInfo,
    BlobNotFound,
    Page,
    StorageUnavailable,
)


class MemoryBlobs:
    """Implements adapters.blobs.BlobStore. With `away`, every call raises StorageUnavailable; `archived` paths
    cannot be read."""

    def __init__(self) -> None:
        self.away = False
        self.archived: set[str] = set()
        self.reads: list[str] = []
        self.page_size = 5000
        self.modified: dict[str, float] = {}
        """When a blob was written, where a test wants it to be old (or new); 0 otherwise."""
        self._blobs: dict[str, Blob] = {}
        self._etags = itertools.count(1)
        self._lock = threading.Lock()

    def get(self, path: str, *, if_match: str | None = None) -> Blob:
        self._reach(path)
        self.reads.append(path)
        if path in self.archived:
            raise BlobArchived(path, f"{path} is in the archive tier")
        blob = self._find(path)
        if if_match is not None and blob.etag != if_match:
            raise BlobConflict(path, f"{path} was changed by somebody else")
        return blob

    def get_file(self, path: str, file: Path, *, if_match: str | None = None) -> None:
        file.write_bytes(self.get(path, if_match=if_match).data)

    def get_if_changed(self, path: str, *, etag: str | None) -> Blob | None:
        self._reach(path)
        blob = self._find(path)
        return None if blob.etag == etag else blob

    def put(
        self,
        path: str,
        data: bytes,
        *,
        if_match: str | None = None,
        only_new: bool = False,
        content_type: str = "application/octet-stream",
    ) -> str:
        self._reach(path)
        if len(path.partition("/")[2]) > MAX_NAME_CHARACTERS:
            raise BlobError(path, "storage refuses a name that is so long")
        with self._lock:
            there = self._blobs.get(path)
            if (only_new and there) or (if_match is not None and (there is None or there.etag != if_match)):
                raise BlobConflict(path, f"{path} was changed by somebody else")
            blob = self._blobs[path] = Blob(data, f"0x{next(self._etags):X}")
        return blob.etag

    def put_file(self, path: str, file: Path) -> None:
        self.put(path, file.read_bytes())

    def hold(self, path: str, data: bytes, etag: str) -> None:
        """A blob with the eTag that another store gave it."""
        with self._lock:
            self._blobs[path] = Blob(data, etag)

    def exists(self, path: str) -> bool:
        self._reach(path)
        return path in self._blobs

    def head(self, path: str) -> BlobInfo:
        self._reach(path)
        blob = self._find(path)
        return BlobInfo(path, blob.etag, len(blob.data), self.modified.get(path, 0.0))

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        self._reach(prefix)
        for path in sorted(self._blobs):
            if path.startswith(prefix):
                yield self.head(path)

    def pages(self, prefix: str, *, token: str = "") -> Iterator[Page]:
        blobs = list(self.list(prefix))
        for start in range(int(token or 0), max(1, len(blobs)), self.page_size):
            end = start + self.page_size
            yield Page(tuple(blobs[start:end]), str(end) if end < len(blobs) else "")

    def delete(self, path: str) -> bool:
        self._reach(path)
        return self._blobs.pop(path, None) is not None

    def paths(self, prefix: str = "") -> Sequence[str]:
        """What there is, for assertions."""
        return [path for path in sorted(self._blobs) if path.startswith(prefix)]

    def _find(self, path: str) -> Blob:
        if path not in self._blobs:
            raise BlobNotFound(path, f"there is no blob {path}")
        return self._blobs[path]

    def _reach(self, path: str) -> None:
        if self.away:
            raise StorageUnavailable(path, "storage cannot be reached")


class FolderBlobs(MemoryBlobs):
    """The same, with what comes from files in files: a process that uses it holds none of them in memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def put_file(self, path: str, file: Path) -> None:
        # Nobody changes a file that was stored, so that a link will do.
        os.link(file, self._folder / self.put(path, b""))

    def get_file(self, path: str, file: Path, *, if_match: str | None = None) -> None:
        blob = self.get(path, if_match=if_match)
        stored = self._folder / blob.etag
        if stored.exists():
            os.link(stored, file)
        else:
            file.write_bytes(blob.data)
