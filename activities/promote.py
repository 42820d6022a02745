"""Make a registered version the champion: prove it, then move the live pointer by compare-and-swap."""

from __future__ import annotations

import json

from activities.contracts import MAX_SENTENCE_CHARACTERS, Done, RunRef
from activities.dependencies import Dependencies
from activities.live import Champion, read_champion
from activities.workspace import OUTRUN
from adapters.events import Notice
from adapters.pointer import HISTORY_LENGTH, LivePointer, LiveVersion, pointer_path
from adapters.registry import CHAMPION, PREVIOUS
from models.errors import bounded
from models.manifest import Manifest


def promote(run: RunRef, to: Dependencies) -> Done:
    """Moves the pointer to this run's version. A repeat finds it moved.

    A stored version that is not what was registered is not promoted, nor one that was judged against another champion
    than there is now: it has to be judged again. Raises BlobConflict when somebody else moved the
    pointer in between; the retry looks again.
    """
    from models.golden import GoldenMismatch

    workspace = to.workspace(run.pipeline, run.run)
    place = workspace.read("version.json")
    manifest = Manifest.from_dict(json.loads(to.blobs.get(place["manifest_path"]).data))
    version = LiveVersion(manifest.version, manifest.run, place["manifest_path"], manifest.model_sha256)
    champion = read_champion(to.blobs, run.pipeline)
    if champion is None or champion.pointer.champion != version:
        rival = workspace.read("evaluation.json")["champion_version"]
        live = champion.pointer.champion.version if champion else None
        if live != rival:
            workspace.write(OUTRUN, {"live": live})
            return Done("kept", _outrun(version.version, live, rival))
        try:
            _prove(manifest, to)
        except GoldenMismatch as exc:
            return Done("failed", bounded(f"Not promoted: {exc}", MAX_SENTENCE_CHARACTERS))
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
    data = {"version": version.version, "run": run.run, "generation": pointer.generation, "why": pointer.why}
    to.tell(Notice("Ratchet.ModelPromoted", run.pipeline, run.run, data))
    return Done(sentence=f"version {version.version} is live")


def _outrun(version: int, live: int | None, rival: int | None) -> str:
    was = f"version {rival}" if rival is not None else "no champion"
    return f"Version {version} was compared with {was}, but version {live} is live by now: it is compared anew."


def align(run: RunRef, to: Dependencies) -> Done:
    """Brings the registry's aliases in line with the live pointer."""
    champion = read_champion(to.blobs, run.pipeline)
    if champion is None:
        return Done(sentence="there is no champion")
    registry, pointer = to.registry(), champion.pointer
    registry.set_alias(run.pipeline, CHAMPION, pointer.champion.version)
    if pointer.history:
        registry.set_alias(run.pipeline, PREVIOUS, pointer.history[0].version)
    return Done(sentence=f"champion is version {pointer.champion.version}")


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
