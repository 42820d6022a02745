"""demo.json: what the demo remembers in its data directory, so that a second one can carry on or start clean."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import orjson

from models.errors import RatchetError, bounded

JOURNAL = "demo.json"
JOURNAL_SCHEMA = 1
_PARTIAL = f"{JOURNAL}.partial"


class NotDemoData(RatchetError):
    """The data directory holds something that no demo made; it is neither used nor removed. `directory` is which."""

    def __init__(self, directory: Path, problem: str) -> None:
        super().__init__(f"{directory} {problem}. Remove it, or name another directory with --data.")
        self.directory = directory


@dataclass(frozen=True, slots=True)
class ServedMonth:
    """A month sent through the HTTP endpoint while `version` was live, beside the frozen model on the same rows.

    `rows` are those that have a label, `scored` those that got an answer; `versions` are all that answered.
    """

    month: int
    rows: int
    scored: int
    version: int
    versions: tuple[int, ...]
    auc: float
    frozen_version: int
    frozen_auc: float
    requests: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every row got an answer."""
        return self.scored == self.rows

    @property
    def gain(self) -> float:
        """AUC of the live model above that of the frozen one."""
        return self.auc - self.frozen_auc


@dataclass(frozen=True, slots=True)
class Journal:
    """`state` is finished when the last demo came to its table; `served` holds what it measured, by month."""

    state: Literal["running", "finished"] = "running"
    served: Mapping[int, ServedMonth] = field(default_factory=dict)

    def with_served(self, month: ServedMonth) -> Self:
        """The journal with one more month."""
        return replace(self, served={**self.served, month.month: month})

    def write(self, directory: Path) -> None:
        """Writes demo.json whole or not at all: a demo may be killed at any moment."""
        document = {"schema": JOURNAL_SCHEMA, "state": self.state, "served": [asdict(m) for m in self.served.values()]}
        partial = directory / _PARTIAL
        partial.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        partial.replace(directory / JOURNAL)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The journal in `directory`. Raises NotDemoData."""
        try:
            document: Any = orjson.loads((directory / JOURNAL).read_bytes())
            months = [ServedMonth(**{**month, "versions": tuple(month["versions"])}) for month in document["served"]]
            journal = cls(state=document["state"], served={month.month: month for month in months})
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise NotDemoData(directory, f"has no readable {JOURNAL} ({bounded(repr(exc), 120)})") from exc
        if document.get("schema") != JOURNAL_SCHEMA:
            raise NotDemoData(directory, f"holds the {JOURNAL} of another version of this project")
        return journal


@dataclass(frozen=True, slots=True)
class Start:
    """How a demo starts: with `journal`, and `sentence` says whether that is clean or carrying on, and why."""

    carries_on: bool
    sentence: str
    journal: Journal


def prepare(directory: Path, *, fresh: bool) -> Start:
    """Decides how to start in `directory`, empties it for a clean start, and leaves a written journal there.

    Only a directory that an earlier demo made is ever emptied. Raises NotDemoData.
    """
    start = _decide(directory, fresh=fresh)
    if not start.carries_on and directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    start.journal.write(directory)
    return start


def _decide(directory: Path, *, fresh: bool) -> Start:
    if directory.exists() and not directory.is_dir():
        raise NotDemoData(directory, "is not a directory")
    left = [entry.name for entry in directory.iterdir() if entry.name != _PARTIAL] if directory.exists() else []
    if not left:
        return Start(False, f"Starting clean in {directory}.", Journal())
    if JOURNAL not in left:
        raise NotDemoData(directory, "holds files that are not a demo's")
    if fresh:
        return Start(
            False, f"Starting clean in {directory}, as --fresh asks: the earlier demo's data is gone.", Journal()
        )
    journal = Journal.read(directory)
    if journal.state == "finished":
        return Start(False, f"Starting clean in {directory}: the earlier demo there had finished.", Journal())
    return Start(
        True, f"Carrying on with the unfinished demo in {directory} (`make demo FRESH=1` starts clean).", journal
    )
