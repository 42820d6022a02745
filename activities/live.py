"""What is stored of versions, as activities see it: the live pointer, and the manifest of a version.

The two are apart, because who leaves a champion whose files are broken needs the pointer alone.

RatchetError
└── DoesNotServe   a version fails the check that every champion has to pass; `reason` says which
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from adapters.blobs import BlobArchived, BlobNotFound, BlobStore
from adapters.pointer import LivePointer, manifest_path, pointer_path
from models.errors import RatchetError, bounded
from models.manifest import Manifest


class DoesNotServe(RatchetError):
    """A version cannot be the champion."""

    def __init__(self, pipeline: str, version: int, reason: str) -> None:
        super().__init__(f"version {version} of {pipeline} cannot be served: {reason}")
        self.pipeline, self.version, self.reason = pipeline, version, reason


@dataclass(frozen=True, slots=True)
class Champion:
    """The live pointer, and the eTag it was read with (for compare-and-swap)."""

    pointer: LivePointer
    etag: str

    @property
    def version(self) -> int:
        """The version that is live."""
        return self.pointer.champion.version


def read_champion(blobs: BlobStore, pipeline: str) -> Champion | None:
    """The champion of a pipeline, or None before the first promotion."""
    try:
        blob = blobs.get(pointer_path(pipeline))
    except BlobNotFound:
        return None
    return Champion(LivePointer.from_dict(json.loads(blob.data)), blob.etag)


def read_manifest(blobs: BlobStore, pipeline: str, version: int) -> Manifest:
    """The manifest of a version. Raises DoesNotServe when it is missing, cannot be read or is another's."""
    try:
        manifest = Manifest.from_dict(json.loads(read_file(blobs, pipeline, version, manifest_path(pipeline, version))))
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise DoesNotServe(pipeline, version, f"its model.json cannot be read: {bounded(exc)}") from exc
    if (manifest.pipeline, manifest.version) != (pipeline, version):
        belongs = f"its model.json belongs to version {manifest.version} of {bounded(manifest.pipeline)}"
        raise DoesNotServe(pipeline, version, belongs)
    return manifest


def read_file(blobs: BlobStore, pipeline: str, version: int, path: str) -> bytes:
    """A file of a version. Raises DoesNotServe when it is missing or cannot be read now."""
    try:
        return blobs.get(path).data
    except BlobNotFound as exc:
        raise DoesNotServe(pipeline, version, f"storage has no such version ({exc.path} is missing)") from exc
    except BlobArchived as exc:
        raise DoesNotServe(pipeline, version, str(exc)) from exc


def read_champions_manifest(champion: Champion, blobs: BlobStore) -> Manifest:
    """What a challenger is compared with. Raises DoesNotServe."""
    pipeline = champion.pointer.pipeline
    try:
        return read_manifest(blobs, pipeline, champion.version)
    except DoesNotServe as exc:
        reason = f"{exc.reason}. It is the champion: roll back to another version"
        raise DoesNotServe(pipeline, champion.version, reason) from exc
