"""Models kept on local disk by hash, so that a restart needs no download, and no storage when that is away.

Several processes share the directory: files are written beside and moved into place, and never changed afterwards.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import time
from pathlib import Path

from adapters.pointer import LivePointer

log = logging.getLogger("ratchet.serving")

KEPT_MODELS = 5
"""Models kept per pipeline: the champion, and some to go back to."""
ABANDONED_AFTER_SECONDS = 600.0
"""Age at which a file without a model is what a process that died left behind."""
POINTER = "live.json"


class DiskCache:
    """A full or read-only disk costs the cache, not the service: it is logged, and serving goes on from memory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, pipeline: str, sha256: str) -> bytes | None:
        """A model whose bytes still have that hash, or None."""
        try:
            model = (self._directory / pipeline / f"{sha256}.onnx").read_bytes()
        except OSError:
            return None
        return model if hashlib.sha256(model).hexdigest() == sha256 else None

    def store(self, pipeline: str, sha256: str, model: bytes, manifest: bytes) -> None:
        """Keeps a model and its manifest, and drops the oldest beyond KEPT_MODELS."""
        self._write(pipeline, f"{sha256}.json", manifest)
        self._write(pipeline, f"{sha256}.onnx", model)
        self._prune(pipeline)

    def remember(self, pipeline: str, pointer: bytes) -> None:
        """Keeps the pointer's document."""
        self._write(pipeline, POINTER, pointer)

    def recall(self, pipeline: str) -> tuple[bytes, bytes] | None:
        """(manifest, model) of the champion that was remembered last, or None."""
        folder = self._directory / pipeline
        try:
            pointer = LivePointer.from_dict(json.loads((folder / POINTER).read_bytes()))
            sha256 = pointer.champion.model_sha256
            manifest = (folder / f"{sha256}.json").read_bytes()
        except (OSError, ValueError, KeyError, TypeError):
            return None  # nothing usable was kept: the caller has no model, and says so
        model = self.read(pipeline, sha256)
        return None if model is None else (manifest, model)

    def _write(self, pipeline: str, name: str, data: bytes) -> None:
        folder = self._directory / pipeline
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=folder, prefix=".tmp-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                Path(temporary).replace(folder / name)
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as exc:
            log.warning("the model cache in %s cannot be written: %s", folder, exc)

    def _prune(self, pipeline: str) -> None:
        folder = self._directory / pipeline
        try:
            # Other processes prune too: what is gone before it was looked at is no mistake.
            ages = {path: age for path in folder.iterdir() if (age := _age_seconds(path)) is not None}
            models = sorted((path for path in ages if path.suffix == ".onnx"), key=ages.__getitem__)
            kept = {path.stem for path in models[:KEPT_MODELS]}
            for path, age in ages.items():
                # A young file without a model may be half of one that another process is just storing.
                surplus = path.suffix == ".onnx" or age > ABANDONED_AFTER_SECONDS
                if surplus and path.stem not in kept and path.name != POINTER:
                    path.unlink(missing_ok=True)
        except OSError as exc:
            log.warning("the model cache in %s cannot be pruned: %s", folder, exc)


def _age_seconds(path: Path) -> float | None:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
