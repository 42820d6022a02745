"""The hot swap. Per process and pipeline there is one immutable ActiveModel; swapping it is one assignment.

The pointer is looked at (conditional GET) at most once per TTL, in the background, while requests go on with the model
that is there. A new model is downloaded, its hash checked, its session built, proved on its golden rows and warmed up,
all beside the old one; then the reference changes. Requests in flight keep the old session until they are done. Any
failure keeps the old model, is remembered for the health details, and is tried again after a pause.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters.blobs import BlobError, BlobNotFound, BlobStore
from adapters.pointer import LivePointer, pointer_path
from models.errors import RatchetError, bounded
from models.manifest import Manifest
from serving.disk import DiskCache
from serving.errors import ModelRefused, NoModelYet
from serving.feeds import FeedReader
from serving.session import Session, prove, warm_up

log = logging.getLogger("ratchet.serving")

JITTER = 0.2
"""Share of the TTL by which checks vary, so that many processes do not ask at the same moment."""
REFUSED_PAUSE_SECONDS = 30.0
"""How long a model that was refused is left alone before it is tried again: its mistake is seldom in passing."""


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """A model that serves. Never changed; a swap makes another one."""

    manifest: Manifest
    session: Session
    reader: FeedReader
    headers: dict[str, str]


@dataclass(slots=True)
class _Slot:
    """What a process knows of one pipeline. `active` is replaced, never changed."""

    pipeline: str
    active: ActiveModel | None = None
    pointer_etag: str | None = None
    next_check: float = 0.0
    refused_sha256: str = ""
    refused_until: float = 0.0
    last_check: str = ""
    last_error: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


class ModelCache:
    """Active models by pipeline. Safe to share between threads."""

    def __init__(
        self,
        blobs: BlobStore,
        cache_dir: Path,
        ttl_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        start: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._blobs, self._ttl, self._clock = blobs, ttl_seconds, clock
        self._disk = DiskCache(cache_dir)
        self._start = start or _start_thread
        self._slots: dict[str, _Slot] = {}
        self._slots_lock = threading.Lock()

    def active(self, pipeline: str) -> ActiveModel:
        """The model to answer with now. Waits only when there is none yet. Raises NoModelYet."""
        slot = self._slot(pipeline)
        model = slot.active
        if model is None:
            return self._first(slot)
        if self._clock() >= slot.next_check and slot.lock.acquire(blocking=False):
            # One request starts the check; the lock is handed to the background thread.
            self._schedule(slot)
            self._start(lambda: self._check_and_unlock(slot))
        return model

    def refresh(self, pipeline: str) -> None:
        """Looks at the pointer now, and swaps when it names another model."""
        slot = self._slot(pipeline)
        with slot.lock:
            self._check(slot)

    def status(self, pipeline: str) -> dict[str, Any]:
        """For health details: the version, when it was last checked, and what went wrong since."""
        slot = self._slot(pipeline)
        model = slot.active
        return {
            "pipeline": pipeline,
            "version": model.manifest.version if model else None,
            "run": model.manifest.run if model else None,
            "last_check": slot.last_check or None,
            "last_error": slot.last_error or None,
        }

    def _slot(self, pipeline: str) -> _Slot:
        slot = self._slots.get(pipeline)
        if slot is None:
            with self._slots_lock:
                slot = self._slots.setdefault(pipeline, _Slot(pipeline))
        return slot

    def _first(self, slot: _Slot) -> ActiveModel:
        with slot.lock:
            if slot.active is None and self._clock() >= slot.next_check:
                self._check(slot)
            if slot.active is None:
                raise NoModelYet(slot.pipeline, slot.last_error or "nothing was promoted so far")
            return slot.active

    def _schedule(self, slot: _Slot) -> None:
        slot.next_check = self._clock() + self._ttl * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311

    def _check_and_unlock(self, slot: _Slot) -> None:
        try:
            self._check(slot)
        finally:
            slot.lock.release()

    def _check(self, slot: _Slot) -> None:
        """Never raises for storage that is away or a model that is bad: the model that is there goes on serving."""
        self._schedule(slot)
        slot.last_check = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            self._follow_pointer(slot)
            slot.last_error = ""
        except BlobNotFound:
            slot.last_error = "" if slot.active else "nothing was promoted so far"
        except BlobError as exc:
            self._report(slot, exc)
            if slot.active is None:
                self._from_disk(slot)
        except RatchetError as exc:
            self._report(slot, exc)

    def _report(self, slot: _Slot, exc: RatchetError) -> None:
        message = bounded(exc)
        if message != slot.last_error:
            log.warning("%s: %s", slot.pipeline, message)
        slot.last_error = message

    def _follow_pointer(self, slot: _Slot) -> None:
        blob = self._blobs.get_if_changed(pointer_path(slot.pipeline), etag=slot.pointer_etag)
        if blob is None:
            return
        try:
            pointer = LivePointer.from_dict(json.loads(blob.data))
        except (ValueError, KeyError, TypeError) as exc:
            raise ModelRefused(f"the live pointer cannot be read: {bounded(exc)}") from exc
        champion = pointer.champion
        if slot.active is None or slot.active.manifest.model_sha256 != champion.model_sha256:
            if champion.model_sha256 == slot.refused_sha256 and self._clock() < slot.refused_until:
                raise ModelRefused(slot.last_error)
            try:
                self._swap(slot, self._load(slot.pipeline, champion.manifest_path, champion.model_sha256))
            except ModelRefused:
                slot.refused_sha256 = champion.model_sha256
                slot.refused_until = self._clock() + REFUSED_PAUSE_SECONDS
                raise
            self._disk.remember(slot.pipeline, blob.data)
        slot.pointer_etag = blob.etag

    def _load(self, pipeline: str, manifest_path: str, sha256: str) -> ActiveModel:
        document = self._blobs.get(manifest_path).data
        manifest = _manifest(document)
        if manifest.model_sha256 != sha256:
            raise ModelRefused(f"version {manifest.version}: pointer and model.json name different models")
        model = self._disk.read(pipeline, sha256)
        if model is None:
            model = self._blobs.get(manifest.model_path).data
        active = activate(manifest, model)
        self._disk.store(pipeline, sha256, model, document)
        return active

    def _from_disk(self, slot: _Slot) -> None:
        """A restart while storage is away: the last champion that this machine served."""
        remembered = self._disk.recall(slot.pipeline)
        if remembered is None:
            return
        document, model = remembered
        try:
            self._swap(slot, activate(_manifest(document), model))
        except ModelRefused as exc:
            self._report(slot, exc)

    def _swap(self, slot: _Slot, model: ActiveModel) -> None:
        slot.active = model
        log.info("%s: version %d is live in this process", slot.pipeline, model.manifest.version)


def activate(manifest: Manifest, model: bytes) -> ActiveModel:
    """A model that has proved itself. Raises ModelRefused."""
    if hashlib.sha256(model).hexdigest() != manifest.model_sha256:
        raise ModelRefused(f"version {manifest.version}: the model's bytes are not those that were registered")
    session = Session(model)
    prove(session, manifest.signature, manifest.golden)
    warm_up(session, manifest.signature, manifest.golden)
    headers = {"x-ratchet-model-version": str(manifest.version), "x-ratchet-run": manifest.run}
    return ActiveModel(manifest, session, FeedReader(manifest.signature), headers)


def _manifest(document: bytes) -> Manifest:
    try:
        return Manifest.from_dict(json.loads(document))
    except (ValueError, KeyError, TypeError) as exc:
        raise ModelRefused(f"model.json cannot be read: {bounded(exc)}") from exc


def _start_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="ratchet-swap", daemon=True).start()
