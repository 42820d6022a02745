"""What orchestrations know of activities: their names, and the payloads that cross the boundary.

Payloads stay below 4 KB whatever the load: names, counts and short sentences. Everything else lies in the run's
workspace (activities/workspace.py) and is found by pipeline and run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from models.errors import bounded

LOOK, CLAIM, VALIDATE, FIT, TRANSFORM, TRAIN = "look", "claim", "validate", "fit", "transform", "train"
EXPORT, EVALUATE, JUDGE, REGISTER, PROMOTE = "export", "evaluate", "judge", "register", "promote"
ALIGN, ILLUSTRATE, SETTLE, ABANDON = "align", "illustrate", "settle", "abandon"

STEPS = (
    "quiet",
    "claim",
    "validate",
    "profile",
    "features",
    "train",
    "export",
    "evaluate",
    "gate",
    "register",
    "promote",
    "pictures",
    "settle",
)
"""The steps of a run as people see them, in order."""

BATCH_SIZE = 100
"""Work items of one sub-orchestration: replay costs grow with a history's length."""

MAX_PAYLOAD_BYTES = 4096
PASSING, LASTING = "[passing]", "[lasting]"
"""Marks in a failure's text: of its own accord it goes away, or it does not. Without a mark it is not known."""
MAX_SENTENCE_CHARACTERS, MAX_SENTENCE_BYTES = 500, 2000
"""JSON has twelve bytes for some characters."""


def sentence(text: object) -> str:
    """The text on one line, and short enough for a payload, a failure or a status in whatever alphabet."""
    line = bounded(text, MAX_SENTENCE_CHARACTERS)
    size = 0
    for index, character in enumerate(line):
        size += len(json.dumps(character)) - 2
        if size > MAX_SENTENCE_BYTES:
            return bounded(line, index)
    return line


class Payload:
    """Adds `to_dict` and `from_dict` to the flat dataclasses below. Whatever a text is, what crosses is a sentence."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        named: dict[str, Any] = asdict(self)  # type: ignore[call-overload]
        return {name: sentence(value) if isinstance(value, str) else value for name, value in named.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises TypeError when a field is missing or unknown."""
        names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        if unknown := data.keys() - names:
            raise TypeError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        return cls(**data)


@dataclass(frozen=True, slots=True)
class RetrainRequest(Payload):
    """Input of the retrain orchestration. `force` trains even when no new partition is usable.

    `stale`: the latest run was about other data or another spec than there are now, although nothing is pending.
    `hub` is the task hub, which owns the claims of its runs.
    """

    pipeline: str
    force: bool = False
    stale: bool = False
    hub: str = ""


@dataclass(frozen=True, slots=True)
class RunRef(Payload):
    """A run of a pipeline: input of most activities. `started` is ISO 8601 UTC."""

    pipeline: str
    run: str
    started: str
    force: bool = False
    hub: str = ""


@dataclass(frozen=True, slots=True)
class Uploads(Payload):
    """What waits in the ledger. `oldest` and `newest` (ISO 8601 UTC) are when pending rows last changed, or ''.

    `problem` is what is wrong with the pipeline's file, or ''; then no run is possible and the rest is empty.
    """

    pending: int = 0
    oldest: str = ""
    newest: str = ""
    quiet_seconds: float = 0.0
    longest_wait_seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Claimed(Payload):
    """`todo` partitions have to be validated, in `batches` batches."""

    todo: int
    batches: int


@dataclass(frozen=True, slots=True)
class BatchRequest(Payload):
    """Input of the fan-out sub-orchestration: activity `activity` over each item of batch `batch`."""

    activity: str
    pipeline: str
    run: str
    batch: int
    size: int


@dataclass(frozen=True, slots=True)
class ItemRef(Payload):
    """One item of a batch: input of the fan-out activities."""

    pipeline: str
    run: str
    batch: int
    index: int


@dataclass(frozen=True, slots=True)
class Done(Payload):
    """A step has run. `ended` is the outcome with which the run ends here, for the reason of `sentence`, or ''."""

    ended: str = ""
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Fitted(Payload):
    """The feature graph is made; `todo` matrices have to be computed, in `batches` batches. `ended` as in Done."""

    ended: str = ""
    sentence: str = ""
    todo: int = 0
    batches: int = 0


@dataclass(frozen=True, slots=True)
class Judged(Payload):
    """The gate's decision."""

    promote: bool
    sentence: str


@dataclass(frozen=True, slots=True)
class Finish(Payload):
    """Input of settle and abandon. `seconds` has one entry for each of the first steps of STEPS that have run.

    `busy` has the seconds of work in the activities of each, and `executions` is how many activities ran.
    """

    pipeline: str
    run: str
    started: str
    outcome: str
    sentence: str
    seconds: tuple[float, ...] = ()
    busy: tuple[float, ...] = ()
    executions: int = 0


@dataclass(frozen=True, slots=True)
class Settled(Payload):
    """The run's record is written; `pending` partitions wait for another one.

    `stale`: another run has to follow although nothing is pending.
    """

    pending: int
    stale: bool = False
