"""Where a run keeps what its steps hand to each other, and where cached results lie. All paths are made here.

Work files are named by run and step, caches by their content, so a repeated activity writes the same thing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from activities.contracts import BATCH_SIZE
from adapters.blobs import BlobNotFound, BlobStore
from adapters.pointer import version_path

if TYPE_CHECKING:
    from models.spec import PipelineSpec

INPUTS = "inputs.json"
"""The digests of what the run is about, as in activities.judged."""
OUTRUN = "outrun.json"
"""Tells the settling that the challenger could not be promoted, because the champion was another one by then."""
MAX_TAIL_CHARACTERS, MAX_FILE_CHARACTERS = 300, 150
"""Of an upload's name, in the names of what is set aside. Storage takes 1,024 characters, and counts some twice."""
SPECS_KEPT = 32
BATCHES_KEPT = 16
"""Batches that a process remembers: each of a hundred items asks for its own, all within seconds."""
READERS = 16
"""Blobs read at the same time where a step has to look at every partition: reading is all waiting."""


@dataclass(frozen=True, slots=True)
class PlannedPartition:
    """A partition of a run. `key` names its cached results; `new` says that this run claimed it."""

    path: str
    etag: str
    size: int
    key: str
    new: bool

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.rpartition("/")[2]


def partition_key(path: str, etag: str, data_fingerprint: str) -> str:
    """Names everything computed from one partition under one data contract."""
    return hashlib.sha256(f"{path}\n{etag}\n{data_fingerprint}".encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class Workspace:
    """The files of one run of one pipeline."""

    blobs: BlobStore
    pipeline: str
    run: str

    # What the steps of this run hand on.

    def write(self, name: str, document: Any) -> None:
        """Stores a JSON document of this run."""
        self.blobs.put(self._work(name), _json(document), content_type="application/json")

    def read(self, name: str) -> Any:
        """A JSON document of this run. Raises BlobNotFound when its step has not run."""
        return json.loads(self.blobs.get(self._work(name)).data)

    def read_if_there(self, name: str) -> Any | None:
        """The same, or None when its step has not run."""
        return self.read(name) if self.blobs.exists(self._work(name)) else None

    def write_bytes(self, name: str, data: bytes) -> None:
        self.blobs.put(self._work(name), data)

    def read_bytes(self, name: str) -> bytes:
        return self.blobs.get(self._work(name)).data

    def write_batches(self, wave: str, items: Sequence[Mapping[str, Any]]) -> int:
        """Stores work items for a fan-out in batches of at most BATCH_SIZE; returns the number of batches."""
        batches = [items[start : start + BATCH_SIZE] for start in range(0, len(items), BATCH_SIZE)]
        for number, batch in enumerate(batches):
            self.write(f"{wave}-{number:05d}.json", batch)
        return len(batches)

    def read_item(self, wave: str, batch: int, index: int) -> dict[str, Any]:
        """One work item of a fan-out."""
        item: dict[str, Any] = _batch(self, f"{wave}-{batch:05d}.json")[index]
        return item

    def plan(self) -> list[PlannedPartition]:
        """The partitions of this run, sorted by path."""
        return [PlannedPartition(**entry) for entry in self.read("plan.json")]

    def plan_if_there(self) -> list[PlannedPartition]:
        """The same; nothing when the claim has not come to its end."""
        return self.plan() if self.blobs.exists(self._work("plan.json")) else []

    def spec(self) -> PipelineSpec:
        """The spec as it was when the run claimed its partitions: an edit meanwhile concerns the next run."""
        return _parsed(self.spec_text(), f"{self.pipeline}.yaml")

    def spec_text(self) -> str:
        """The pipeline's file, as it was then."""
        return str(self.read("run.json")["spec"])

    def started(self) -> datetime:
        """When the run began."""
        return datetime.fromisoformat(self.read("run.json")["started"])

    # What outlives the run.

    def outcome_path(self, key: str) -> str:
        return f"{self.outcomes_prefix()}{key}.json"

    def outcomes_prefix(self) -> str:
        return f"features/{self.pipeline}/outcomes/"

    def clean_path(self, key: str) -> str:
        return f"features/{self.pipeline}/clean/{key}.parquet"

    def graph_path(self, graph: str) -> str:
        return f"features/{self.pipeline}/graphs/{graph}.onnx"

    def matrix_path(self, graph: str, key: str) -> str:
        return f"{self.matrices_prefix(graph)}{key}.lz4"

    def matrices_prefix(self, graph: str) -> str:
        return f"features/{self.pipeline}/matrices/{graph}/"

    def challenger_path(self, sha256: str) -> str:
        return f"features/{self.pipeline}/challengers/{sha256}.onnx"

    def version_path(self, version: int, name: str) -> str:
        return version_path(self.pipeline, version, name)

    def quarantine_path(self, path: str, key: str, name: str) -> str:
        """For what is set aside of the partition `path`; shortened where storage would not take so long a name."""
        tail = path.removeprefix(f"{self.pipeline}/")[:MAX_TAIL_CHARACTERS]
        return f"quarantine/{self.pipeline}/{tail}/{key[:12]}/{name[-MAX_FILE_CHARACTERS:]}"

    def read_outcomes(self, partitions: Iterable[PlannedPartition]) -> list[dict[str, Any]]:
        """The validation outcome of each partition, in the given order."""
        return in_parallel(lambda partition: self._outcome(partition.key), partitions)

    def write_outcome(self, key: str, outcome: Mapping[str, Any]) -> None:
        """Stores what became of a partition's content, for this run and all others."""
        self.blobs.put(self.outcome_path(key), _json(outcome), content_type="application/json")

    def write_gone(self, key: str, reason: str) -> None:
        """Stores that this run found no such content. Another run may find it, so this is not kept by content."""
        self.write(_gone(key), {"state": "gone", "reason": reason})

    def is_judged(self, key: str) -> bool:
        """Whether a partition has an outcome."""
        return self.blobs.exists(self.outcome_path(key)) or self.blobs.exists(self._work(_gone(key)))

    def _outcome(self, key: str) -> dict[str, Any]:
        try:
            outcome: dict[str, Any] = json.loads(self.blobs.get(self.outcome_path(key)).data)
        except BlobNotFound:
            outcome = self.read(_gone(key))
        return outcome

    def _work(self, name: str) -> str:
        return f"features/{self.pipeline}/steps/{self.run}/{name}"


@lru_cache(maxsize=SPECS_KEPT)
def _parsed(text: str, source: str) -> PipelineSpec:
    """The waves' activities ask for the same one again and again, and YAML takes longer than a small partition."""
    from models.spec import parse_spec

    return parse_spec(text, source=source)


@lru_cache(maxsize=BATCHES_KEPT)
def _batch(workspace: Workspace, name: str) -> list[dict[str, Any]]:
    """Written before its wave begins, and not again."""
    batch: list[dict[str, Any]] = workspace.read(name)
    return batch


def _gone(key: str) -> str:
    return f"gone-{key}.json"


def in_parallel[T, R](function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`function` over `items` on a few threads, for reading many blobs."""
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(function, items))


def at_once(*steps: Callable[[], Any]) -> list[Any]:
    """What each of them gives, in their order; raises what the first of those that failed raised."""
    return in_parallel(lambda step: step(), steps)


def record_path(pipeline: str, run: str) -> str:
    """Where the record of a finished run is."""
    return f"runs/{pipeline}/{run}.json"


def existing_keys(blobs: BlobStore, prefix: str) -> set[str]:
    """The keys that a cache holds: names below `prefix`, without their endings."""
    return {info.path.removeprefix(prefix).partition(".")[0] for info in blobs.list(prefix)}


def _json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, allow_nan=False).encode()
