"""From the files of a version to a model that may answer: the same proof for the champion and for any other version.

Artefacts come only from the version's own place in the models container (or from local disk by their hash), and only
with the hash that its manifest records.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import NamedTuple

from adapters.blobs import BlobNotFound, BlobStore
from adapters.pointer import LivePointer, LiveVersion, manifest_path, version_path
from models.errors import RatchetError, bounded
from models.manifest import Manifest, is_sha256
from serving.disk import DiskCache
from serving.errors import ModelRefused
from serving.feeds import FeedReader
from serving.one_row import OneRow
from serving.session import Session, prove, warm_up

SHOWN = 60
"""How many characters of a document's own words a refusal repeats."""


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """A model that serves. Never changed; a swap makes another one, and the last request that holds this frees it."""

    manifest: Manifest
    session: Session
    reader: FeedReader
    headers: dict[str, str]
    one_row: OneRow

    def is_version(self, champion: LiveVersion) -> bool:
        """Whether this is the model that the pointer names. Two versions may have the same bytes."""
        manifest = self.manifest
        place = manifest_path(manifest.pipeline, manifest.version)
        named = (champion.version, champion.model_sha256, champion.manifest_path)
        return (manifest.version, manifest.model_sha256, place) == named


class Loaded(NamedTuple):
    """A proved model, and its manifest's document as it was stored."""

    model: ActiveModel
    document: bytes


class Loader:
    """Loads versions, from storage or from local disk. Safe to share between threads."""

    def __init__(self, blobs: BlobStore, disk: DiskCache) -> None:
        self._blobs, self._disk = blobs, disk

    def champion(self, pipeline: str, champion: LiveVersion) -> Loaded:
        """The model that the pointer names. Raises ModelRefused and StorageUnavailable."""
        if champion.manifest_path != manifest_path(pipeline, champion.version):
            raise ModelRefused(
                f"the live pointer names {bounded(champion.manifest_path, SHOWN)!r} as the manifest of version "
                f"{champion.version}; versions are loaded from their own place in the models container only"
            )
        try:
            document = self._blobs.get(champion.manifest_path).data
        except BlobNotFound as exc:
            raise ModelRefused(f"the live pointer names a version that is not stored: {exc}") from exc
        manifest = read_manifest(document)
        if manifest.model_sha256 != champion.model_sha256:
            raise ModelRefused(f"version {champion.version}: pointer and model.json name different models")
        return Loaded(self._activate(pipeline, champion.version, manifest), document)

    def version(self, pipeline: str, version: int) -> ActiveModel:
        """A version by its number. Raises BlobNotFound when there is none; ModelRefused and StorageUnavailable."""
        manifest = read_manifest(self._blobs.get(manifest_path(pipeline, version)).data)
        return self._activate(pipeline, version, manifest)

    def remembered(self, pipeline: str) -> ActiveModel | None:
        """The version that this machine served last, from disk alone. Raises ModelRefused when it does not prove."""
        kept = self._disk.recall(pipeline)
        if kept is None:
            return None
        manifest = read_manifest(kept[0])
        _check_identity(pipeline, manifest.version, manifest)
        return activate(manifest, kept[1])

    def _activate(self, pipeline: str, version: int, manifest: Manifest) -> ActiveModel:
        _check_identity(pipeline, version, manifest)
        place, sha256 = manifest.model_path, manifest.model_sha256
        kept = self._disk.read(sha256)
        if kept is not None:
            return activate(manifest, kept)
        try:
            downloaded = self._blobs.get(place).data
        except BlobNotFound as exc:
            raise ModelRefused(f"version {version} has a model.json and no model: {exc}") from exc
        model = activate(manifest, downloaded)
        self._disk.store(sha256, downloaded)
        return model


def activate(manifest: Manifest, model: bytes) -> ActiveModel:
    """A model that has proved itself. Raises ModelRefused."""
    try:
        session = _proved(manifest, model)
    except ModelRefused as exc:
        raise ModelRefused(f"version {manifest.version}: {exc}") from exc
    headers = {"x-ratchet-model-version": str(manifest.version), "x-ratchet-run": manifest.run}
    return ActiveModel(manifest, session, FeedReader(manifest.signature), headers, OneRow(manifest, headers))


def _proved(manifest: Manifest, model: bytes) -> Session:
    if hashlib.sha256(model).hexdigest() != manifest.model_sha256:
        raise ModelRefused("the model's bytes are not those that were registered")
    session = Session(model)
    prove(session, manifest.signature, manifest.golden)
    warm_up(session, manifest.signature, manifest.golden)
    return session


def _check_identity(pipeline: str, version: int, manifest: Manifest) -> None:
    """Whether a manifest is that version's own, with its model in that version's place. Raises ModelRefused."""
    place, sha256 = version_path(pipeline, version, "model.onnx"), manifest.model_sha256
    if (manifest.pipeline, manifest.version, manifest.model_path) != (pipeline, version, place):
        raise ModelRefused(
            f"version {version}: its model.json is of version {manifest.version} of "
            f"{bounded(manifest.pipeline, SHOWN)}, with the model at {bounded(manifest.model_path, SHOWN)!r}"
        )
    if not is_sha256(sha256):
        raise ModelRefused(f"version {version}: {bounded(repr(sha256), SHOWN)} is no SHA-256")


def read_champion(document: bytes) -> LiveVersion:
    """The champion that a live pointer names. Raises ModelRefused."""
    try:
        return LivePointer.from_dict(json.loads(document)).champion
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModelRefused(f"the live pointer cannot be read: {bounded(exc)}") from exc


def read_manifest(document: bytes) -> Manifest:
    """Raises ModelRefused."""
    try:
        return Manifest.from_dict(json.loads(document))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ModelRefused(f"model.json cannot be read: {bounded(exc)}") from exc


def reason(exc: Exception) -> str:
    """Errors of ours explain themselves; of others the type says more than the text."""
    return bounded(exc) if isinstance(exc, RatchetError) else bounded(f"{type(exc).__name__}: {exc}")
