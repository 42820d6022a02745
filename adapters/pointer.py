"""The live pointer: the one blob that names the champion of a pipeline. Changed only by compare-and-swap.

Reading it is on the path to a prediction, so this module imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from models.documents import read_document
from models.manifest import SLUG

POINTER_SCHEMA = 1
HISTORY_LENGTH = 20
"""Versions, moves and withdrawals that the pointer remembers, newest first: enough to find a good one to go back to."""

MoveKind = Literal["promoted", "approved", "followed", "rolled back"]
"""By a run, by a person's approval (or its time-out), by the registry's alias, back to an earlier version."""


@dataclass(frozen=True, slots=True)
class LiveVersion:
    """A version that is or was the champion. `manifest_path` is container/name of its model.json.

    `dataset` is what it was made from, so that it can be withdrawn when its files are broken; '' where that was not
    written down yet.
    """

    version: int
    run: str
    manifest_path: str
    model_sha256: str
    dataset: str = ""


@dataclass(frozen=True, slots=True)
class Move:
    """One change of the pointer. `former` is the version that was live before, None at the first."""

    generation: int
    kind: MoveKind
    version: int
    run: str
    former: int | None
    since: str
    who: str
    why: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A version that was rolled back. Its dataset ('' where nobody knows it) does not become the champion again by
    itself."""

    version: int
    dataset: str
    since: str
    why: str


@dataclass(frozen=True, slots=True)
class LivePointer:
    """live.json. `generation` grows by one with each change; `since`, `who` and `why` describe the latest.

    `moves` has the latest changes, newest first, so that each can be told to those who listen even when the process
    that made it died. `withdrawn` has the versions that were rolled back.
    """

    pipeline: str
    generation: int
    champion: LiveVersion
    history: tuple[LiveVersion, ...]
    since: str
    who: str
    why: str
    moves: tuple[Move, ...] = ()
    withdrawn: tuple[Withdrawn, ...] = ()
    schema: int = POINTER_SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives an equal object back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises ValueError when the document is of another schema, TypeError when it is malformed."""
        return read_document(cls, data, schema=POINTER_SCHEMA)


def pointer_path(pipeline: str) -> str:
    """Where the live pointer of a pipeline is: container/name. Raises ValueError for what is no pipeline's name."""
    return f"models/{_checked(pipeline)}/live.json"


def version_path(pipeline: str, version: int, name: str) -> str:
    """Where a file of an immutable version is: container/name. Raises ValueError for what is no pipeline's name."""
    return f"models/{_checked(pipeline)}/versions/{version:d}/{name}"


def manifest_path(pipeline: str, version: int) -> str:
    """Where the model.json of a version is: container/name. Raises ValueError for what is no pipeline's name."""
    return version_path(pipeline, version, "model.json")


def _checked(pipeline: str) -> str:
    if not SLUG.fullmatch(pipeline):
        raise ValueError(f"{pipeline[:60]!r} is not the name of a pipeline")
    return pipeline
