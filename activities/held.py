"""waiting.json: the challenger of a pipeline that waits, or the last one that did. Changed by compare-and-swap.

RatchetError
├── NothingWaits     no challenger of the pipeline ever waited
└── AlreadyDecided   somebody has decided, or a newer challenger has taken the place
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

from activities.dependencies import Dependencies
from adapters.blobs import BlobConflict, BlobNotFound
from models.documents import read_document
from models.errors import RatchetError

type Verdict = Literal["approve", "reject"]
type Outcome = Literal["", "promoted", "rejected", "refused"]


class NothingWaits(RatchetError):
    """No challenger waits under that id."""


class AlreadyDecided(RatchetError):
    """Somebody has decided, or a newer challenger has taken the place."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a version: a word of activities/decisions.py, and why."""

    version: int
    word: Literal["rejected", "refused", "superseded"]
    why: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A challenger that waits, and what became of it. Times are ISO 8601 UTC.

    `id` is the run that waits; an earlier one may have made the version. It waits until `until`: for an approval, whose
    time-out then decides as `on_timeout` says, or for the window that opens then. `generation` is the pointer's when it
    began to wait, and `rival` the champion that it was compared with. `supersedes` is the version that waited until
    this one took its place. `by_itself`: its time came, and nobody decided.
    `untold` is what became of those before it that the registry may not have heard yet, in that order.
    """

    id: str
    pipeline: str
    version: int
    mode: Literal["approval", "window"]
    since: str
    until: str
    on_timeout: Verdict
    sentence: str
    verdict: Verdict | None = None
    who: str = ""
    why: str = ""
    outcome: Outcome = ""
    detail: str = ""
    supersedes: int | None = None
    generation: int = 0
    rival: int | None = None
    by_itself: bool = False
    untold: tuple[Fate, ...] = ()

    @property
    def open(self) -> bool:
        """Whether it still waits."""
        return self.outcome == ""

    @property
    def fate(self) -> Fate | None:
        """What became of it; None while it waits, and when it was promoted, of which the pointer's move tells."""
        if self.outcome not in {"rejected", "refused"}:
            return None
        return Fate(self.version, self.outcome, f"{self.who}: {self.detail or self.why}")

    def is_due(self, now: datetime) -> bool:
        """Whether its time has come without anybody's decision."""
        return self.open and self.verdict is None and now >= datetime.fromisoformat(self.until)


type Found = tuple[Waiting, str]
"""With the document's eTag."""


def read_waiting(pipeline: str, to: Dependencies) -> Found | None:
    """The latest challenger that waited; None when none ever did."""
    try:
        blob = to.blobs.get(_path(pipeline))
    except BlobNotFound:
        return None
    return read_document(Waiting, json.loads(blob.data)), blob.etag


def write_waiting(waiting: Waiting, etag: str | None, to: Dependencies) -> str:
    """The document's eTag. Raises AlreadyDecided when somebody else wrote it in between."""
    path, document = _path(waiting.pipeline), json.dumps(asdict(waiting), indent=2).encode()
    try:
        return to.blobs.put(path, document, if_match=etag, only_new=etag is None, content_type="application/json")
    except BlobConflict as exc:
        # The SDK repeats a write whose answer was lost, and meets its own first one.
        there = to.blobs.get(path)
        if there.data != document:
            raise AlreadyDecided(
                f"version {waiting.version} was decided on by somebody else in the same moment"
            ) from exc
        return there.etag


def _path(pipeline: str) -> str:
    return f"models/{pipeline}/waiting.json"
