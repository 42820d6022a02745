"""Make a registered version the champion: prove it, then move the live pointer by compare-and-swap."""

from __future__ import annotations

import json

from activities.contracts import Done, RunRef
from activities.dependencies import Dependencies
from activities.live import Champion, read_champion
from adapters.events import Notice
from adapters.pointer import HISTORY_LENGTH, LivePointer, LiveVersion, pointer_path
from adapters.registry import CHAMPION, PREVIOUS
from models.manifest import Manifest


def promote(run: RunRef, to: Dependencies) -> Done:
    """Moves the pointer to this run's version. A repeat finds it moved, and only brings the aliases in line.

    Raises BlobConflict when somebody else moved the pointer in between; the retry looks again.
    """
    workspace = to.workspace(run.pipeline, run.run)
    place = workspace.read("version.json")
    manifest = Manifest.from_dict(json.loads(to.blobs.get(place["manifest_path"]).data))
    version = LiveVersion(manifest.version, run.run, place["manifest_path"], manifest.model_sha256)
    champion = read_champion(to.blobs, run.pipeline)
    if champion is None or champion.pointer.champion != version:
        _prove(manifest, to)
        pointer = _pointer(run, version, champion, workspace.read("decision.json")["sentence"], to)
        document = json.dumps(pointer.to_dict(), indent=2).encode()
        to.blobs.put(
            pointer_path(run.pipeline),
            document,
            if_match=champion.etag if champion else None,
            only_new=champion is None,
            content_type="application/json",
        )
    else:
        pointer = champion.pointer
    registry = to.registry()
    registry.set_alias(run.pipeline, CHAMPION, version.version)
    if pointer.history:
        registry.set_alias(run.pipeline, PREVIOUS, pointer.history[0].version)
    data = {"version": version.version, "run": run.run, "generation": pointer.generation, "why": pointer.why}
    to.tell(Notice("Ratchet.ModelPromoted", run.pipeline, run.run, data))
    return Done(sentence=f"version {version.version} is live")


def _prove(manifest: Manifest, to: Dependencies) -> None:
    """The stored bytes, not those in memory, have to be the model: the pointer never names what cannot be served."""
    from models.golden import prove

    prove(to.blobs.get(manifest.model_path).data, manifest)


def _pointer(run: RunRef, version: LiveVersion, champion: Champion | None, why: str, to: Dependencies) -> LivePointer:
    former = champion.pointer if champion else None
    history = (former.champion, *former.history)[:HISTORY_LENGTH] if former else ()
    return LivePointer(
        pipeline=run.pipeline,
        generation=former.generation + 1 if former else 1,
        champion=version,
        history=history,
        since=to.now(),
        who=f"run {run.run}",
        why=why,
    )
