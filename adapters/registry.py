"""The model registry port: where people look at experiments and versions. One adapter: adapters/mlflow_registry.py.

Serving never depends on it; the live pointer is what serving follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from models.errors import RatchetError
from models.manifest import Signature

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
"""Aliases: the version that is served, the latest that was judged, and the one that was served before."""


class RegistryError(RatchetError):
    """The registry could not be reached or refused. Worth trying again."""


class RegistryAway(RegistryError):
    """The registry could not be reached, or did not answer."""


class NoSuchVersion(RegistryError):
    """The registry does not have that version (any more): somebody deleted it there."""


class VersionTaken(RegistryError):
    """The registry gave a number that storage has for another run's version; versions are never written over."""

    def __init__(self, pipeline: str, version: int, owner: str) -> None:
        super().__init__(
            f"the registry called this version {version} of {pipeline}, but storage has that one, of run {owner}: "
            f"the registry has lost versions. Restore its database, or delete the {pipeline} blobs in the container "
            "models to start anew"
        )
        self.pipeline, self.version, self.owner = pipeline, version, owner


@dataclass(frozen=True, slots=True)
class DataSource:
    """One partition that a model was made from: where it is (container/path), its eTag, and its usable rows."""

    path: str
    etag: str
    rows: int


@dataclass(frozen=True, slots=True)
class Submission:
    """A challenger to be registered. `key` makes it idempotent: a second submission finds the first one's version.

    Parameters may not differ between submissions with the same key; everything else may, and what a later run submits
    takes the place of what was there. `started` is when the run began, ISO 8601. `example` has some rows of input by
    column, None for missing; none is one of the data's. `curves` are metrics with a value after each round, the first
    of them round 1. `dataset` names the `sources` together. `files` makes the files that lie beside the model, by path;
    it is called only where they are stored.
    """

    pipeline: str
    run: str
    key: str
    model: bytes
    signature: Signature
    description: str
    started: str
    example: Mapping[str, Sequence[float | str | None]] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    dataset: str = ""
    sources: Sequence[DataSource] = ()
    files: Callable[[], Mapping[str, bytes]] = dict


class Registry(Protocol):
    """Synchronous. Every method raises RegistryError and may be repeated."""

    def register(self, submission: Submission, *, anew: bool = True) -> int:
        """The number of the version with this key; made now, or by an earlier try.

        One of another run is told what this run found, so that it shows the latest judgement; not without `anew`.
        """
        ...

    def illustrate(self, pipeline: str, version: int, run: str, pictures: Callable[[], Mapping[str, bytes]]) -> None:
        """Puts files, by path, beside a version's model, if it shows the judgement of this run; they are not made if
        it shows another's. Raises NoSuchVersion.
        """
        ...

    def measured(self, pipeline: str, version: int, metrics: Mapping[str, float], *, at: str) -> None:
        """Adds figures to those of a version. A repeat with the same time (ISO 8601) adds nothing."""
        ...

    def aliases(self, pipeline: str) -> Mapping[str, int]:
        """The version that each alias names; none for a pipeline that the registry does not know."""
        ...

    def set_alias(self, pipeline: str, alias: str, version: int) -> None:
        """Moves an alias to a version. Raises NoSuchVersion."""
        ...

    def remove_alias(self, pipeline: str, alias: str) -> None:
        """Takes an alias away, if it is there."""
        ...

    def knows(self, pipeline: str, version: int) -> bool:
        """Whether it has this version, and nobody has deleted it there."""
        ...

    def tag(self, pipeline: str, version: int, name: str, value: str) -> None:
        """Writes a tag on a version, where people see it beside the version. Raises NoSuchVersion."""
        ...
