"""Make this run's version the champion, or leave it waiting for whoever has to say so."""

from __future__ import annotations

from activities.contracts import MAX_SENTENCE_CHARACTERS, Done, RunRef
from activities.dependencies import Dependencies
from activities.live import read_champion
from activities.pointing import DoesNotServe, Reason, checked, point_at, withdrawn_dataset
from activities.reconcile import reconcile
from activities.waiting import Challenger, hold_back
from activities.workspace import OUTRUN
from models.errors import bounded


def promote(run: RunRef, to: Dependencies) -> Done:
    """Moves the pointer to this run's version, when the pipeline's promotion is automatic. A repeat finds it moved.

    A stored version that is not what was registered is not promoted, nor one from the dataset of a version that was
    rolled back, nor one that was judged against another champion than there is now: it has to be judged again. Raises
    PointerMoved when somebody else moved the pointer in between; the retry looks again.
    """
    workspace = to.workspace(run.pipeline, run.run)
    number = workspace.read("version.json")["version"]
    sentence = workspace.read("decision.json")["sentence"]
    champion = read_champion(to.blobs, run.pipeline)
    live = champion.pointer.champion.version if champion else None
    if live == number:
        return Done(sentence=f"version {number} is live")
    rival = workspace.read("evaluation.json")["champion_version"]
    if live != rival:
        workspace.write(OUTRUN, {"live": live})
        return Done("kept", _outrun(number, live, rival))
    try:
        manifest = checked(run.pipeline, number, to)
    except DoesNotServe as exc:
        return Done("failed", bounded(f"Not promoted: {exc}", MAX_SENTENCE_CHARACTERS))
    withdrawn = withdrawn_dataset(champion.pointer, manifest.lineage.dataset) if champion else None
    if withdrawn is not None:
        why = (
            f"Not promoted: version {number} comes from the same dataset as version {withdrawn.version}, which was "
            f"rolled back ({withdrawn.why}). Upload more data, or promote it yourself by moving the alias champion."
        )
        return Done("kept", bounded(why, MAX_SENTENCE_CHARACTERS))
    challenger = Challenger(run.pipeline, run.run, number, sentence)
    held = hold_back(challenger, workspace.spec().promotion, champion, to)
    if held is not None:
        return Done("waiting", bounded(held, MAX_SENTENCE_CHARACTERS))
    point_at(manifest, Reason("promoted", f"run {run.run}", sentence), champion, to)
    return Done(sentence=f"version {number} is live")


def _outrun(version: int, live: int | None, rival: int | None) -> str:
    was = f"version {rival}" if rival is not None else "no champion"
    return f"Version {version} was compared with {was}, but version {live} is live by now: it is compared anew."


def align(run: RunRef, to: Dependencies) -> Done:
    """Brings the registry's aliases in line with the live pointer, and tells who listens."""
    return Done(sentence=bounded(reconcile(run.pipeline, to).sentence, MAX_SENTENCE_CHARACTERS))
