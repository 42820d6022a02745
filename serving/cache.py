"""The hot swap. Per process and pipeline there is one immutable ActiveModel; swapping it is one assignment.

The pointer is looked at (conditional GET) at most once per TTL, in the background, while requests go on with the model
that is there. A new model is downloaded, its hash checked, its session built, proved on its golden rows and warmed up,
all beside the old one; then the reference changes. Requests in flight keep the old session until they are done. Any
failure keeps the old model, is remembered for the health details, and is tried again after a pause. A process that has
no model yet, and cannot load the champion, serves the one that this machine served last.
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

from adapters.blobs import Blob, BlobNotFound, BlobStore, StorageUnavailable
from adapters.pointer import LivePointer, LiveVersion, pointer_path
from models.errors import RatchetError, bounded
from models.manifest import Manifest
from serving.disk import DiskCache
from serving.errors import ModelRefused, NoModelYet, NothingPromoted
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

    def is_version(self, champion: LiveVersion) -> bool:
        """Whether this is the model that the pointer names. Two versions may have the same bytes."""
        manifest = self.manifest
        return (manifest.version, manifest.model_sha256) == (champion.version, champion.model_sha256)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A champion that did not come to serve, why, and when (on the cache's clock) it may be tried again."""

    champion: LiveVersion
    reason: str
    until: float


@dataclass(slots=True)
class _Slot:
    """What a process knows of one pipeline. `active` is replaced, never changed; only who holds `lock` writes."""

    pipeline: str
    active: ActiveModel | None = None
    since: str = ""
    pointer_etag: str | None = None
    next_check: float = 0.0
    checked_at: float | None = None
    refusal: _Refusal | None = None
    asked_disk: bool = False
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
        if self._clock() >= slot.next_check:
            self._check_beside(slot)
        return model

    def refresh(self, pipeline: str) -> None:
        """Looks at the pointer now, and swaps when it names another model."""
        slot = self._slot(pipeline)
        with slot.lock:
            self._check(slot)

    def status(self, pipeline: str) -> dict[str, Any]:
        """For health details: what serves since when, when the pointer was last asked for, and what went wrong since.

        `age_seconds` is the time since storage last told which model is live; times are ISO 8601 in UTC.
        """
        slot = self._slot(pipeline)
        model, checked_at = slot.active, slot.checked_at
        return {
            "pipeline": pipeline,
            "version": model.manifest.version if model else None,
            "run": model.manifest.run if model else None,
            "since": slot.since or None,
            "last_check": slot.last_check or None,
            "age_seconds": None if checked_at is None else round(self._clock() - checked_at, 3),
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

    def _check_beside(self, slot: _Slot) -> None:
        """Starts a check that the request does not wait for, unless one is under way or was just made."""
        if not slot.lock.acquire(blocking=False):
            return
        if self._clock() < slot.next_check:
            slot.lock.release()
            return
        try:
            # The lock is handed to the background thread.
            self._start(lambda: self._check_and_unlock(slot))
        except RuntimeError as exc:  # the process has no thread to spare
            self._report(slot, f"no check was started: {exc}")
            self._schedule(slot)
            slot.lock.release()

    def _check_and_unlock(self, slot: _Slot) -> None:
        try:
            self._check(slot)
        finally:
            slot.lock.release()

    def _check(self, slot: _Slot) -> None:
        """Never raises: storage that is away or a model that is bad costs the swap, not the model that is there."""
        slot.last_check = _now()
        try:
            self._follow_pointer(slot)
            slot.last_error = ""
        except NothingPromoted as exc:
            self._report(slot, str(exc))
        except Exception as exc:  # a library that fails in its own way must not end the looking
            self._report(slot, _reason(exc))
            if slot.active is None:
                self._from_disk(slot)
        finally:
            # Counted from the end: storage that is away takes its time to say so, and then nobody waits for it again.
            self._schedule(slot)

    def _schedule(self, slot: _Slot) -> None:
        slot.next_check = self._clock() + self._ttl * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311

    def _report(self, slot: _Slot, message: str) -> None:
        if message != slot.last_error:
            log.warning("%s: %s", slot.pipeline, message)
        slot.last_error = message

    def _follow_pointer(self, slot: _Slot) -> None:
        try:
            blob = self._blobs.get_if_changed(pointer_path(slot.pipeline), etag=slot.pointer_etag)
        except BlobNotFound as exc:
            raise NothingPromoted(slot.pipeline, gone=slot.active is not None) from exc
        slot.checked_at = self._clock()
        if blob is None:
            return
        champion = _champion(blob.data)
        if slot.active is None or not slot.active.is_version(champion):
            self._bring_live(slot, champion, blob)
        slot.refusal, slot.pointer_etag = None, blob.etag

    def _bring_live(self, slot: _Slot, champion: LiveVersion, pointer: Blob) -> None:
        refusal = slot.refusal
        if refusal is not None and refusal.champion == champion and self._clock() < refusal.until:
            raise ModelRefused(refusal.reason)
        try:
            model = self._load(slot.pipeline, champion)
        except StorageUnavailable:
            raise  # passes by itself: the next check tries again
        except Exception as exc:
            slot.refusal = _Refusal(champion, _reason(exc), self._clock() + REFUSED_PAUSE_SECONDS)
            raise
        self._swap(slot, model)
        self._disk.remember(slot.pipeline, pointer.data)

    def _load(self, pipeline: str, champion: LiveVersion) -> ActiveModel:
        document = self._blobs.get(champion.manifest_path).data
        manifest = _manifest(document)
        if (manifest.version, manifest.model_sha256) != (champion.version, champion.model_sha256):
            raise ModelRefused(f"version {champion.version}: pointer and model.json name different models")
        model = self._disk.read(pipeline, champion.model_sha256)
        if model is None:
            model = self._blobs.get(manifest.model_path).data
        active = activate(manifest, model)
        self._disk.store(pipeline, champion.model_sha256, model, document)
        return active

    def _from_disk(self, slot: _Slot) -> None:
        """A start while the champion cannot be had: the last one that this machine served. Tried once."""
        if slot.asked_disk:
            return
        slot.asked_disk = True
        remembered = self._disk.recall(slot.pipeline)
        if remembered is None:
            return
        document, model = remembered
        try:
            self._swap(slot, activate(_manifest(document), model))
        except Exception as exc:
            self._report(slot, f"{slot.last_error}; nor does the model kept on disk serve: {_reason(exc)}")

    def _swap(self, slot: _Slot, model: ActiveModel) -> None:
        slot.active, slot.since = model, _now()
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


def _champion(document: bytes) -> LiveVersion:
    try:
        return LivePointer.from_dict(json.loads(document)).champion
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModelRefused(f"the live pointer cannot be read: {bounded(exc)}") from exc


def _manifest(document: bytes) -> Manifest:
    try:
        return Manifest.from_dict(json.loads(document))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModelRefused(f"model.json cannot be read: {bounded(exc)}") from exc


def _reason(exc: Exception) -> str:
    """Errors of ours explain themselves; of others the type says more than the text."""
    return bounded(exc) if isinstance(exc, RatchetError) else bounded(f"{type(exc).__name__}: {exc}")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _start_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="ratchet-swap", daemon=True).start()
