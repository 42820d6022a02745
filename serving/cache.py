"""The hot swap. Per process and pipeline there is one immutable ActiveModel; swapping it is one assignment.

The pointer is looked at (conditional GET) at most once per TTL, in the background, while requests go on with the model
that is there. A new model is downloaded, its hash checked, its session built, proved on its golden rows and warmed up,
all beside the old one; then the reference changes. Requests in flight keep the old session until they are done. Any
failure keeps the old model, is counted and told in the health details, and is tried again after a pause.

A request waits for a check in two cases only: when the process has no model yet, and when storage was not asked for so
long (an idle process) that its model may be an old one. A process that has no model, and no champion from storage,
serves the one that this machine served last.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.background import Background, Start
from adapters.blobs import BlobNotFound, BlobStore, StorageUnavailable
from adapters.pointer import LiveVersion, pointer_path
from serving.disk import DEFAULT_MAX_BYTES, DiskCache
from serving.errors import ModelRefused, NoModelYet, NothingPromoted
from serving.limits import Deadline
from serving.loading import ActiveModel, Loader, read_champion, reason
from serving.slots import Refusal, Slot, now
from serving.versions import DEFAULT_KEPT, VersionStore

__all__ = ["ActiveModel", "CacheLimits", "ModelCache"]

JITTER = 0.2
"""Share of the TTL by which checks come later, so that many processes do not ask at the same moment."""
REFUSED_PAUSE_SECONDS = 30.0
"""How long a model that was refused is left alone before it is tried again: its mistake is seldom in passing. Each
further refusal of it doubles that, up to LONGEST_REFUSED_PAUSE_SECONDS."""
LONGEST_REFUSED_PAUSE_SECONDS = 1800.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 10.0
"""Between checks that fail, doubling from the first to the longest (never below the TTL): storage that comes back is
seen within ten seconds."""
MOST_DOUBLINGS = 10
"""Where a pause has long reached its limit."""
STALE_WAIT_SECONDS = 1.0
"""Longest that a request waits because its model may be an old one. Then it is answered with that."""
FIRST_WAIT_SECONDS = 30.0
"""Longest that a request waits for the first model of a process."""
PATIENCE_SECONDS = 2.0
"""How long storage may take to name the first model, before the one that this machine served last answers instead."""

NEVER = Deadline(time.monotonic, math.inf)


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """What a cache may hold, and how old its knowledge may be."""

    max_age_seconds: float = 10.0
    """A request waits for one check when storage was last asked longer ago than this."""
    disk_bytes: int = DEFAULT_MAX_BYTES
    """Models on local disk, all pipelines together."""
    versions: int = DEFAULT_KEPT
    """Versions that were asked for by their number, kept loaded beside the champions."""


class ModelCache:
    """Active models by pipeline. Safe to share between threads."""

    def __init__(
        self,
        blobs: BlobStore,
        cache_dir: Path,
        ttl_seconds: float,
        *,
        limits: CacheLimits = CacheLimits(),
        clock: Callable[[], float] = time.monotonic,
        start: Start | None = None,
    ) -> None:
        self._blobs, self._ttl, self._clock = blobs, ttl_seconds, clock
        self._max_age = limits.max_age_seconds
        self._disk = DiskCache(cache_dir, limits.disk_bytes)
        self._loader = Loader(blobs, self._disk)
        self._versions = VersionStore(self._loader, limits.versions, clock, start)
        self._start = start or Background("ratchet-swap")
        self._slots: dict[str, Slot] = {}
        self._slots_lock = threading.Lock()

    def active(self, pipeline: str, deadline: Deadline = NEVER) -> ActiveModel:
        """The model to answer with now. Waits when there is none yet, or after a long silence, and not beyond the
        deadline. Raises NoModelYet."""
        slot = self._slots.get(pipeline) or self._slot(pipeline)
        model = slot.model
        if model is None:
            return self._first(slot, deadline)
        if self._clock() < slot.next_check:
            return model
        may_be_old = self._may_be_old(slot)
        self._check_beside(slot)
        if may_be_old:
            self._wait(slot, deadline.at_most(STALE_WAIT_SECONDS))
        return slot.model or model

    def version(self, pipeline: str, version: str, deadline: Deadline = NEVER) -> ActiveModel:
        """The version of that number, live or not. Raises UnknownModel, VersionUnavailable and ModelRefused."""
        try:
            live = self.active(pipeline, deadline)
        except NoModelYet:
            live = None  # what was never promoted can be asked all the same
        if live is not None and version == str(live.manifest.version):
            return live
        return self._versions.get(pipeline, version, deadline)

    def would_wait(self, pipeline: str, version: str | None = None) -> bool:
        """Whether a request may have to wait for storage or for another thread: known without waiting for either."""
        slot = self._slots.get(pipeline)
        model = None if slot is None else slot.model
        if slot is None or model is None:
            return True
        if self._clock() >= slot.next_check and self._may_be_old(slot):
            return True
        if version is None or version == str(model.manifest.version):
            return False
        return not self._versions.has(pipeline, version)

    def refresh(self, pipeline: str) -> None:
        """Looks at the pointer now, and swaps when it names another model."""
        slot = self._slot(pipeline)
        with slot.lock:
            self._check(slot)

    def status(self, pipeline: str) -> dict[str, Any]:
        """For health details: what serves since when, when the pointer was last asked for, and what went wrong since.

        `age_seconds` is the time since storage last told which model is live; times are ISO 8601 in UTC. `failures`
        counts checks that failed and models that were refused since the process began, `failures_in_a_row` the checks
        since storage answered last.
        """
        return self._slot(pipeline).status(self._clock())

    def _slot(self, pipeline: str) -> Slot:
        slot = self._slots.get(pipeline)
        if slot is None:
            with self._slots_lock:
                slot = self._slots.setdefault(pipeline, Slot(pipeline))
        return slot

    def _may_be_old(self, slot: Slot) -> bool:
        """Whether storage, which answered so far, was not asked for long. While it is away nobody waits for it."""
        asked = slot.checked_at
        return asked is not None and not slot.failures_in_a_row and self._clock() - asked > self._max_age

    def _first(self, slot: Slot, deadline: Deadline) -> ActiveModel:
        """Waits for the check that brings the first model, or starts one; not longer than a client would."""
        if self._clock() >= slot.next_check:
            self._check_beside(slot)
        if not self._wait(slot, deadline.at_most(PATIENCE_SECONDS)):
            slot.report("storage has not answered yet")
            self._from_disk(slot)
            if slot.model is None:
                self._wait(slot, deadline.at_most(FIRST_WAIT_SECONDS))
        model = slot.model
        if model is None:
            raise NoModelYet(slot.pipeline, slot.last_error or "nothing was promoted so far")
        return model

    def _wait(self, slot: Slot, seconds: float) -> bool:
        """Waits for the check that is under way, if there is one. False when it takes longer."""
        if not slot.lock.acquire(timeout=seconds):
            return False
        slot.lock.release()
        return True

    def _check_beside(self, slot: Slot) -> None:
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
            if slot.model is None:
                self._check_and_unlock(slot)
                return
            slot.failed(f"no check was started: {exc}")
            self._schedule(slot)
            slot.lock.release()

    def _check_and_unlock(self, slot: Slot) -> None:
        try:
            self._check(slot)
        finally:
            slot.lock.release()

    def _check(self, slot: Slot) -> None:
        """Never raises: storage that is away or a model that is bad costs the swap, not the model that is there."""
        slot.last_check = now()
        try:
            self._follow_pointer(slot)
            slot.answered()
        except (NothingPromoted, _StillRefused) as exc:
            slot.answered(str(exc))
        except Exception as exc:  # a library that fails in its own way must not end the looking
            if isinstance(exc, ModelRefused):
                slot.refused(str(exc))
            else:
                slot.failed(reason(exc))
            if slot.model is None:
                self._from_disk(slot)
        finally:
            # Counted from the end: storage that is away takes its time to say so, and then nobody waits for it again.
            self._schedule(slot)

    def _schedule(self, slot: Slot) -> None:
        pause = self._ttl
        if slot.failures_in_a_row:
            doubled = FIRST_PAUSE_SECONDS * 2.0 ** min(slot.failures_in_a_row - 1, MOST_DOUBLINGS)
            pause = max(pause, min(doubled, LONGEST_PAUSE_SECONDS))
        slot.next_check = self._clock() + pause * random.uniform(1, 1 + JITTER)  # noqa: S311

    def _follow_pointer(self, slot: Slot) -> None:
        try:
            blob = self._blobs.get_if_changed(pointer_path(slot.pipeline), etag=slot.pointer_etag)
        except BlobNotFound as exc:
            raise NothingPromoted(slot.pipeline, gone=slot.active is not None) from exc
        slot.checked_at = self._clock()
        if blob is None:
            if slot.pointer_problem:
                raise _StillRefused(slot.pointer_problem)
            return
        slot.pointer_problem = ""
        try:
            champion = read_champion(blob.data)
        except ModelRefused as exc:
            slot.pointer_etag, slot.pointer_problem = blob.etag, str(exc)
            raise
        model = slot.model
        if model is None or not model.is_version(champion):
            self._bring_live(slot, champion)
        elif slot.active is None:
            slot.swap(model)  # what came from disk is the champion
        slot.refusal, slot.pointer_etag = None, blob.etag

    def _bring_live(self, slot: Slot, champion: LiveVersion) -> None:
        refusal = slot.refusal if slot.refusal is not None and slot.refusal.champion == champion else None
        if refusal is not None and self._clock() < refusal.until:
            raise _StillRefused(refusal.reason)
        try:
            loaded = self._loader.champion(slot.pipeline, champion)
        except StorageUnavailable:
            raise  # passes by itself: the next check tries again
        except Exception as exc:
            times = 1 if refusal is None else refusal.times + 1
            pause = min(REFUSED_PAUSE_SECONDS * 2.0 ** min(times - 1, MOST_DOUBLINGS), LONGEST_REFUSED_PAUSE_SECONDS)
            slot.refusal = Refusal(champion, reason(exc), self._clock() + pause, times)
            raise ModelRefused(reason(exc)) from exc
        slot.swap(loaded.model)
        self._disk.remember(slot.pipeline, loaded.document)

    def _from_disk(self, slot: Slot) -> None:
        """A start while the champion cannot be had: the one that this machine served last. Tried once."""
        with self._slots_lock:
            if slot.asked_disk:
                return
            slot.asked_disk = True
        try:
            model = self._loader.remembered(slot.pipeline)
        except Exception as exc:
            slot.report(f"{slot.last_error}; nor does the model kept on disk serve: {reason(exc)}")
            return
        if model is not None:
            slot.bridge(model)


class _StillRefused(ModelRefused):
    """The pointer is as it was when it, or the model that it names, was refused a short while ago."""
