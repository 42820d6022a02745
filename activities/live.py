"""The champion as activities see it: the live pointer with its manifest."""

from __future__ import annotations

import json
from dataclasses import dataclass

from adapters.blobs import BlobNotFound, BlobStore
from adapters.pointer import LivePointer, pointer_path
from models.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Champion:
    """The live pointer, the eTag it was read with (for compare-and-swap) and the champion's manifest."""

    pointer: LivePointer
    etag: str
    manifest: Manifest


def read_champion(blobs: BlobStore, pipeline: str) -> Champion | None:
    """The champion of a pipeline, or None before the first promotion."""
    try:
        blob = blobs.get(pointer_path(pipeline))
    except BlobNotFound:
        return None
    pointer = LivePointer.from_dict(json.loads(blob.data))
    manifest = Manifest.from_dict(json.loads(blobs.get(pointer.champion.manifest_path).data))
    return Champion(pointer, blob.etag, manifest)
