"""aligned.json: what the reconcilers of a pipeline tell each other. Changed by compare-and-swap, which puts them in a
row: whoever has moved an alias writes it, and whoever cannot, because another one did meanwhile, looks again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from activities.dependencies import Dependencies
from activities.pointing import PointerMoved
from adapters.blobs import BlobConflict, BlobNotFound
from adapters.pointer import LivePointer
from models.documents import read_document

SENT_FOR = timedelta(seconds=120)
"""How long a request to move the alias may be under way: MLflow's adapter gives it up after less."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A reconciler has set out to move the alias to `version`, at `since` (ISO 8601 UTC)."""

    version: int
    since: str


@dataclass(frozen=True, slots=True)
class Aligned:
    """The alias and the pointer were last seen to agree on `version` at `generation`.

    `told` is the last generation whose move was told to who listens, and `waited` what was last written in the registry
    about a challenger that waits. `sent` are moves of the alias that may still arrive, late, although the pointer has
    moved on: nobody wished them. `etag` is the document's own.
    """

    generation: int = 0
    version: int = 0
    told: int = 0
    waited: str = ""
    sent: tuple[Sent, ...] = ()
    etag: str | None = None

    def agreed(self, pointer: LivePointer) -> Aligned:
        """The same, when the pointer has followed the alias since and the process died before it could note that."""
        latest = max((m for m in pointer.moves if m.kind == "followed"), key=lambda m: m.generation, default=None)
        if latest is None or latest.generation <= self.generation:
            return self
        return replace(self, generation=latest.generation, version=latest.version)

    def is_late(self, version: int, now: datetime) -> bool:
        """Whether an alias at `version` may be a reconciler's own doing."""
        return any(each.version == version and now - _time(each) < SENT_FOR for each in self.sent)

    def without(self, done: tuple[Sent, ...], now: datetime) -> Aligned:
        """Without moves that have arrived, or were given up long ago."""
        return replace(self, sent=tuple(e for e in self.sent if e not in done and now - _time(e) < SENT_FOR))


def _time(sent: Sent) -> datetime:
    return datetime.fromisoformat(sent.since)


def read_aligned(pipeline: str, to: Dependencies) -> Aligned:
    """An empty one before the first reconciliation."""
    try:
        blob = to.blobs.get(_path(pipeline))
    except BlobNotFound:
        return Aligned()
    return replace(read_document(Aligned, json.loads(blob.data)), etag=blob.etag)


def write_aligned(pipeline: str, aligned: Aligned, to: Dependencies) -> Aligned:
    """What was written, with its eTag. Raises PointerMoved when another reconciler wrote since it was read."""
    document: dict[str, Any] = {name: value for name, value in asdict(aligned).items() if name != "etag"}
    try:
        etag = to.blobs.put(
            _path(pipeline),
            json.dumps(document).encode(),
            if_match=aligned.etag,
            only_new=aligned.etag is None,
            content_type="application/json",
        )
    except BlobConflict as exc:
        raise PointerMoved(pipeline) from exc
    return replace(aligned, etag=etag)


def _path(pipeline: str) -> str:
    return f"models/{pipeline}/aligned.json"
