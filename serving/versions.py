"""Versions asked for by their number, beside the champion: loaded on demand, the last few used are kept.

A version is immutable, so what is loaded never gets old. What cannot be loaded is remembered for a while, so that
asking again, or asking for one number after another, does not reach storage each time.
"""

from __future__ import annotations

import dataclasses
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from adapters.background import Background, Start
from adapters.blobs import BlobNotFound, StorageUnavailable
from models.errors import bounded
from serving.errors import ModelRefused, ServingError, UnknownModel, VersionUnavailable
from serving.limits import Deadline
from serving.loading import ActiveModel, Loader, reason

DEFAULT_KEPT = 3
"""Versions that a process keeps loaded beside its champions."""
REJECTED_HEADER = "x-ratchet-model-rejected"
MISSING_SECONDS = 30.0
"""How long a number without a version is not looked for again."""
REFUSED_SECONDS = 30.0
"""The same for one that did not prove itself: its files do not change by themselves."""
AWAY_SECONDS = 2.0
"""The same after storage could not be reached."""
MOST_FAILURES = 100
"""Numbers that are remembered as not to be had. While there are as many, no further one is looked for."""
WAIT_SECONDS = 30.0
"""Longest that a request waits for a version: they are loaded one at a time, each with its storage's time-outs."""
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")

type _Key = tuple[str, int]


class _Failure(NamedTuple):
    """Why a version was not to be had, and until when (on the clock) it is not tried again."""

    error: Callable[[], ServingError]
    until: float


class VersionStore:
    """Loaded versions of all pipelines of a process. Safe to share between threads."""

    def __init__(self, loader: Loader, kept: int, clock: Callable[[], float], start: Start | None = None) -> None:
        self._loader, self._kept, self._clock = loader, kept, clock
        self._start = start or Background("ratchet-versions")
        self._models: OrderedDict[_Key, ActiveModel] = OrderedDict()
        self._failures: OrderedDict[_Key, _Failure] = OrderedDict()
        self._loading: dict[_Key, Future[ActiveModel]] = {}
        self._lock = threading.Lock()

    def get(self, pipeline: str, version: str, deadline: Deadline) -> ActiveModel:
        """The version of that number. Raises UnknownModel when there is none, VersionUnavailable and ModelRefused."""
        if not _NUMBER.fullmatch(version):
            raise UnknownModel(f"{bounded(version, 20)!r} is not the number of a version")
        key = (pipeline, int(version))
        found = self._find(key)
        if not isinstance(found, Future):
            return found
        try:
            return found.result(deadline.at_most(WAIT_SECONDS))
        except TimeoutError as exc:
            raise VersionUnavailable(*key, "it is still being loaded, or waits for others that are") from exc

    def has(self, pipeline: str, version: str) -> bool:
        """Whether that version is loaded."""
        return _NUMBER.fullmatch(version) is not None and (pipeline, int(version)) in self._models

    def _find(self, key: _Key) -> ActiveModel | Future[ActiveModel]:
        """The model, or what will give it: one load for all who ask at the same time. Raises what keeps it away."""
        with self._lock:
            model = self._models.get(key)
            if model is not None:
                self._models.move_to_end(key)
                return model
            failure = self._failures.get(key)
            if failure is not None and self._clock() < failure.until:
                raise failure.error()
            loading = self._loading.get(key)
            if loading is not None:
                return loading
            self._forget_old_failures()
            if len(self._failures) + len(self._loading) >= MOST_FAILURES:
                raise VersionUnavailable(*key, "many versions that cannot be had were asked for just now")
            loading = self._loading[key] = Future()
        try:
            self._start(lambda: self._load(key, loading))
        except RuntimeError:  # the process has no thread to spare
            self._load(key, loading)
        return loading

    def _load(self, key: _Key, loading: Future[ActiveModel]) -> None:
        """Never raises: who waits is told."""
        try:
            model = self._loaded(key)
        except ServingError as exc:
            with self._lock:
                del self._loading[key]
            loading.set_exception(exc)
            return
        with self._lock:
            del self._loading[key]
            self._models[key] = model
            while len(self._models) > self._kept:
                self._models.popitem(last=False)
        loading.set_result(model)

    def _loaded(self, key: _Key) -> ActiveModel:
        pipeline, version = key
        try:
            return _marked(self._loader.version(pipeline, version))
        except BlobNotFound:
            text = f"{pipeline} has no version {version}"
            raise self._failed(key, lambda: UnknownModel(text), MISSING_SECONDS) from None
        except StorageUnavailable as exc:
            why = reason(exc)
            raise self._failed(key, lambda: VersionUnavailable(pipeline, version, why), AWAY_SECONDS) from exc
        except Exception as exc:  # a library that fails in its own way must not be asked again with every request
            text = reason(exc)
            raise self._failed(key, lambda: ModelRefused(text), REFUSED_SECONDS) from exc

    def _failed(self, key: _Key, error: Callable[[], ServingError], seconds: float) -> ServingError:
        with self._lock:
            self._failures[key] = _Failure(error, self._clock() + seconds)
        return error()

    def _forget_old_failures(self) -> None:
        now = self._clock()
        for key in [key for key, failure in self._failures.items() if failure.until <= now]:
            del self._failures[key]


def _marked(model: ActiveModel) -> ActiveModel:
    """Who asks for a version that the gate rejected is told so in every answer."""
    if not model.manifest.rejected:
        return model
    return dataclasses.replace(model, headers={**model.headers, REJECTED_HEADER: "true"})
