"""The one way in which the champion changes: a version that has proved itself, and a compare-and-swap on the pointer.

RatchetError
├── DoesNotServe   a version fails the check that every champion has to pass; `reason` says which
└── PointerMoved   somebody else moved the pointer in between
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from activities.dependencies import Dependencies
from activities.live import Champion
from adapters.blobs import BlobConflict, BlobNotFound
from adapters.pointer import (
    HISTORY_LENGTH,
    LivePointer,
    LiveVersion,
    Move,
    MoveKind,
    Withdrawn,
    manifest_path,
    pointer_path,
)
from models.errors import RatchetError, bounded
from models.manifest import Manifest


class DoesNotServe(RatchetError):
    """A version cannot be the champion."""

    def __init__(self, pipeline: str, version: int, reason: str) -> None:
        super().__init__(f"version {version} of {pipeline} cannot be served: {reason}")
        self.pipeline, self.version, self.reason = pipeline, version, reason


class PointerMoved(RatchetError):
    """Somebody else moved the pointer in between. Nothing was changed; look again."""

    def __init__(self, pipeline: str) -> None:
        super().__init__(f"the champion of {pipeline} was changed by somebody else in the same moment; look again")
        self.pipeline = pipeline


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the pointer moves, and at whose wish."""

    kind: MoveKind
    who: str
    why: str


def checked(pipeline: str, version: int, to: Dependencies) -> Manifest:
    """The manifest of a version that would serve: stored whole, answering as it did when it was made, and with the
    inputs and classes that the pipeline has. Raises DoesNotServe.
    """
    try:
        manifest = Manifest.from_dict(json.loads(to.blobs.get(manifest_path(pipeline, version)).data))
        model = to.blobs.get(manifest.model_path).data
    except BlobNotFound as exc:
        raise DoesNotServe(pipeline, version, f"storage has no such version ({exc.path} is missing)") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise DoesNotServe(pipeline, version, f"its model.json cannot be read: {bounded(exc)}") from exc
    if (manifest.pipeline, manifest.version) != (pipeline, version):
        belongs = f"its model.json belongs to version {manifest.version} of {manifest.pipeline}"
        raise DoesNotServe(pipeline, version, belongs)
    _fits(manifest, to)
    _prove(model, manifest)
    return manifest


def _fits(manifest: Manifest, to: Dependencies) -> None:
    """A request for the pipeline as it is now has to be one that the version understands, and the other way round.

    A file with a mistake says nothing about that, and does not keep anybody from going back to a good version.
    """
    from models.spec import SpecError

    try:
        spec = to.specs.load(manifest.pipeline)
    except SpecError:
        return
    for column in manifest.signature.inputs:
        known = spec.columns.get(column.name)
        if known is None or known.type != column.kind:
            now = "has no such column" if known is None else f"has it as {known.type}"
            reason = f"it wants the column {column.name} as {column.kind}, and the pipeline {now}"
            raise DoesNotServe(manifest.pipeline, manifest.version, reason)
    signature = manifest.signature
    if signature.task != spec.task:
        reason = f"it is a {signature.task} model, and the pipeline's task is {spec.task}"
        raise DoesNotServe(manifest.pipeline, manifest.version, reason)
    if set(signature.classes) != set(spec.classes):
        reason = f"it answers {', '.join(signature.classes)}, and the pipeline {', '.join(spec.classes)}"
        raise DoesNotServe(manifest.pipeline, manifest.version, reason)


def _prove(model: bytes, manifest: Manifest) -> None:
    """The stored bytes, not those in memory, have to be the model: the pointer never names what cannot be served."""
    from models.golden import GoldenMismatch, prove

    try:
        prove(model, manifest)
    except GoldenMismatch as exc:
        raise DoesNotServe(manifest.pipeline, manifest.version, str(exc)) from exc
    except Exception as exc:  # onnxruntime has a family of unrelated classes for a file that it cannot load
        raise DoesNotServe(manifest.pipeline, manifest.version, f"it does not load: {bounded(exc)}") from exc


def point_at(manifest: Manifest, reason: Reason, champion: Champion | None, to: Dependencies) -> LivePointer:
    """Moves the pointer to a checked version, if it still is as `champion` was read. Raises PointerMoved."""
    pointer = moved(manifest, reason, champion, now=to.now())
    path, document = pointer_path(manifest.pipeline), json.dumps(pointer.to_dict(), indent=2).encode()
    try:
        to.blobs.put(
            path,
            document,
            if_match=champion.etag if champion else None,
            only_new=champion is None,
            content_type="application/json",
        )
    except BlobConflict as exc:
        # The SDK repeats a write whose answer was lost, and meets its own first one.
        if to.blobs.get(path).data != document:
            raise PointerMoved(manifest.pipeline) from exc
    return pointer


def moved(manifest: Manifest, reason: Reason, champion: Champion | None, *, now: str) -> LivePointer:
    """The pointer after a move. Whoever is chosen by a person is no longer withdrawn; who is rolled back is."""
    former = champion.pointer if champion else None
    version = LiveVersion(
        manifest.version, manifest.run, manifest_path(manifest.pipeline, manifest.version), manifest.model_sha256
    )
    generation = former.generation + 1 if former else 1
    withdrawn = former.withdrawn if former else ()
    withdrawn = tuple(each for each in withdrawn if each.version != manifest.version)
    if champion is not None and reason.kind == "rolled back":
        dataset = champion.manifest.lineage.dataset
        withdrawn = (Withdrawn(champion.manifest.version, dataset, now, reason.why), *withdrawn)
    move = Move(
        generation=generation,
        kind=reason.kind,
        version=manifest.version,
        run=manifest.run,
        former=former.champion.version if former else None,
        since=now,
        who=reason.who,
        why=reason.why,
    )
    return LivePointer(
        pipeline=manifest.pipeline,
        generation=generation,
        champion=version,
        history=(former.champion, *former.history)[:HISTORY_LENGTH] if former else (),
        since=now,
        who=reason.who,
        why=reason.why,
        moves=(move, *(former.moves if former else ()))[:HISTORY_LENGTH],
        withdrawn=withdrawn[:HISTORY_LENGTH],
    )


def withdrawn_dataset(pointer: LivePointer, dataset: str) -> Withdrawn | None:
    """The version that was rolled back and came from the same dataset, if there is one."""
    return next((each for each in pointer.withdrawn if each.dataset == dataset), None)
