"""Models kept on local disk by their hash, so that a restart needs no download, and no storage when that is away.

Several processes share the directory: files are written beside and moved into place, and never changed afterwards.
`models/{sha256}.onnx` are the models of all pipelines; `champions/{pipeline}.json` is the manifest of the version that
served last. The models together stay below a limit in bytes: what was not used for longest goes first, champions last.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from models.manifest import is_sha256

log = logging.getLogger("ratchet.serving")

ABANDONED_AFTER_SECONDS = 600.0
"""Age at which a half-written file is what a process that died left behind."""
TEMPORARY = ".tmp-*"
DEFAULT_MAX_BYTES = 256 * 2**20
"""A third of the temporary disk that the smallest Azure plan has, and some hundred models."""


class _File(NamedTuple):
    """A model on disk. `used` is when it was last read or written, in seconds since 1970 UTC."""

    path: Path
    size: int
    used: float


class DiskCache:
    """A full or read-only disk costs the cache, not the service: it is logged, and serving goes on from memory."""

    def __init__(self, directory: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._models, self._champions = directory / "models", directory / "champions"
        self._max_bytes = max_bytes

    def read(self, sha256: str) -> bytes | None:
        """A model whose bytes still have that hash, or None. What is damaged is removed."""
        path = self._models / f"{sha256}.onnx"
        try:
            model = path.read_bytes()
        except OSError:
            return None
        right = hashlib.sha256(model).hexdigest() == sha256
        with suppress(OSError):  # a directory that cannot be written still can be read
            if right:
                os.utime(path)
            else:
                path.unlink(missing_ok=True)
        return model if right else None

    def store(self, sha256: str, model: bytes) -> None:
        """Keeps a model, and drops others until all of them fit. One that is beyond the limit alone is not kept."""
        if len(model) > self._max_bytes:
            sizes = f"{len(model):,} bytes, and at most {self._max_bytes:,} may lie there"
            log.warning("a model is not kept on disk, so a restart will download it: it has %s", sizes)
            return
        path = self._models / f"{sha256}.onnx"
        if not path.exists():
            self._write(path, model)
        self._prune(path)

    def remember(self, pipeline: str, manifest: bytes) -> None:
        """Keeps the manifest of the version that a pipeline serves now."""
        self._write(self._champions / f"{pipeline}.json", manifest)

    def recall(self, pipeline: str) -> tuple[bytes, bytes] | None:
        """(manifest, model) of the champion that this user remembered last, or None.

        Nothing but the manifest says which model is right, so that of somebody else is not believed.
        """
        manifest = _content(self._champions / f"{pipeline}.json", own=True)
        sha256 = _model_of(manifest)
        model = None if sha256 is None else self.read(sha256)
        return None if model is None else (manifest, model)

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY.removesuffix("*"))
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                Path(temporary).replace(path)
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as exc:
            log.warning("the model cache in %s cannot be written: %s", path.parent, exc)

    def _prune(self, stored: Path) -> None:
        """Drops files until the rest fits. Other processes prune too: what is gone already is no mistake."""
        try:
            abandoned = time.time() - ABANDONED_AFTER_SECONDS
            for path in (*self._models.glob(TEMPORARY), *self._champions.glob(TEMPORARY)):
                if (file := _look(path)) is not None and file.used < abandoned:
                    path.unlink(missing_ok=True)
            models = [file for path in self._models.glob("*.onnx") if (file := _look(path)) is not None]
            surplus = sum(file.size for file in models) - self._max_bytes
            if surplus <= 0:
                return
            champions = {_model_of(_content(path)) for path in self._champions.glob("*.json")}
            for file in sorted(models, key=lambda file: (file.path.stem in champions, file.used)):
                if surplus > 0 and file.path != stored:
                    file.path.unlink(missing_ok=True)
                    surplus -= file.size
        except OSError as exc:
            log.warning("the model cache in %s cannot be pruned: %s", self._models, exc)


def _look(path: Path) -> _File | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return _File(path, found.st_size, found.st_mtime)


def _content(path: Path, *, own: bool = False) -> bytes:
    """Nothing where it cannot be read, or has to be this user's `own` and is not."""
    try:
        with path.open("rb") as file:
            return b"" if own and os.fstat(file.fileno()).st_uid != os.geteuid() else file.read()
    except OSError:
        return b""


def _model_of(manifest: bytes) -> str | None:
    """The hash that a remembered manifest names; None when there is no usable one."""
    try:
        sha256 = json.loads(manifest)["model_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return sha256 if is_sha256(sha256) else None
