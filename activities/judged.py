"""What the latest run was about, so that it can be told whether there is something else to judge now.

Not the ledger's business: a partition may be in its final state and the model know nothing of it, because the spec was
changed, a blob deleted, or because two runs (of two apps on one account) had a part of the uploads each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from adapters.blobs import BlobNotFound, BlobStore
from models.documents import read_document


@dataclass(frozen=True, slots=True)
class Judged:
    """`inputs` is the digest of what the latest settled run was about, and `at` when it ended (ISO 8601 UTC).

    `dataset` is the digest of the partitions that it was made from, which are those of the inputs that the window
    reaches; '' when there were none. `failed_at` is when a run failed since, or ''.
    """

    inputs: str = ""
    run: str = ""
    at: str = ""
    failed_at: str = ""
    dataset: str = ""


def inputs_digest(contents: Iterable[tuple[str, str]], spec_fingerprint: str) -> str:
    """SHA-256 over the sorted (path, eTag) pairs and the spec: what DESIGN calls a dataset."""
    lines = sorted(f"{path}\n{etag}" for path, etag in contents)
    return hashlib.sha256("\n".join([*lines, spec_fingerprint]).encode()).hexdigest()


def read_judged(blobs: BlobStore, pipeline: str) -> Judged:
    """An empty one before the first run has ended."""
    try:
        return read_document(Judged, json.loads(blobs.get(_path(pipeline)).data))
    except BlobNotFound:
        return Judged()


def write_judged(blobs: BlobStore, pipeline: str, judged: Judged) -> None:
    """Of two runs that end at once the later writer stays; the sweep then finds that something else is due."""
    blobs.put(_path(pipeline), json.dumps(asdict(judged)).encode(), content_type="application/json")


def write_failure(blobs: BlobStore, pipeline: str, *, at: str) -> None:
    """Remembers that a run failed, so that the next one is not started at once."""
    write_judged(blobs, pipeline, replace(read_judged(blobs, pipeline), failed_at=at))


def judge_anew(blobs: BlobStore, pipeline: str, run: str) -> None:
    """Lets the sweep start a run over the same data, unless another one has ended since `run` did."""
    judged = read_judged(blobs, pipeline)
    if judged.run == run:
        write_judged(blobs, pipeline, replace(judged, inputs="", dataset=""))


def _path(pipeline: str) -> str:
    return f"features/{pipeline}/judged.json"
