"""The one way in which the champion changes: a version that has proved itself, and a compare-and-swap on the pointer.

RatchetError
└── PointerMoved   somebody else moved the pointer in between
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from activities.dependencies import Dependencies
from activities.live import Champion, DoesNotServe, read_file, read_manifest
from adapters.blobs import BlobConflict
from adapters.pointer import (
    HISTORY_LENGTH,
    LivePointer,
    LiveVersion,
    Move,
    MoveKind,
    Withdrawn,
    manifest_path,
    pointer_path,
    version_path,
)
from models.errors import RatchetError, bounded
from models.manifest import Manifest, Signature

if TYPE_CHECKING:
    from models.spec import PipelineSpec


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
    manifest = read_manifest(to.blobs, pipeline, version)
    if manifest.model_path != version_path(pipeline, version, "model.onnx"):
        raise DoesNotServe(pipeline, version, f"its model.json names another file: {bounded(manifest.model_path)}")
    model = read_file(to.blobs, pipeline, version, manifest.model_path)
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
    reason = _misfit(manifest.signature, spec)
    if reason:
        raise DoesNotServe(manifest.pipeline, manifest.version, reason)


def _misfit(signature: Signature, spec: PipelineSpec) -> str:
    """What about a version is not as the pipeline has it, or ''.

    What it does with columns that it does not know is its own (unknown_columns), and so is whether some may be left out
    (missing_columns). The order of the classes is that of the probabilities.
    """
    if signature.task != spec.task:
        return f"it is a {signature.task} model, and the pipeline's task is {spec.task}"
    for column in signature.inputs:
        if column.name not in spec.inputs:
            return (
                f"it wants the column {column.name} as {column.kind}, and the pipeline's requests have no such column"
            )
        if column.kind != spec.columns[column.name].type:
            known = spec.columns[column.name].type
            return f"it wants the column {column.name} as {column.kind}, and the pipeline has it as {known}"
    if signature.classes != spec.classes:
        return f"it answers {', '.join(signature.classes)}, and the pipeline {', '.join(spec.classes)}"
    positive = spec.label.positive if spec.task == "binary" else ""
    if signature.positive != positive:
        return f"its probability is of {signature.positive}, and the pipeline's of {positive}"
    return ""


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
    pointer = moved(manifest, reason, champion, leaves=_dataset_left(champion, reason, to), now=to.now())
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


def _dataset_left(champion: Champion | None, reason: Reason, to: Dependencies) -> str:
    """What the champion that is rolled back was made from. Its files may be why it goes: they need not be there."""
    if champion is None or reason.kind != "rolled back":
        return ""
    live = champion.pointer.champion
    try:
        return live.dataset or read_manifest(to.blobs, champion.pointer.pipeline, live.version).lineage.dataset
    except DoesNotServe:
        return ""


def moved(manifest: Manifest, reason: Reason, champion: Champion | None, *, leaves: str = "", now: str) -> LivePointer:
    """The pointer after a move. Whoever is chosen by a person is no longer withdrawn; who is rolled back is, with the
    dataset that it `leaves`.
    """
    former = champion.pointer if champion else None
    version = LiveVersion(
        manifest.version,
        manifest.run,
        manifest_path(manifest.pipeline, manifest.version),
        manifest.model_sha256,
        manifest.lineage.dataset,
    )
    generation = former.generation + 1 if former else 1
    withdrawn = former.withdrawn if former else ()
    withdrawn = tuple(each for each in withdrawn if each.version != manifest.version)
    if champion is not None and reason.kind == "rolled back":
        withdrawn = (Withdrawn(champion.version, leaves, now, reason.why), *withdrawn)
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


def withdrawal(pointer: LivePointer, dataset: str, version: int | None = None) -> Withdrawn | None:
    """Of this version, or of another one that came from the same dataset, if it was rolled back."""
    return next((each for each in pointer.withdrawn if each.dataset == dataset or each.version == version), None)
