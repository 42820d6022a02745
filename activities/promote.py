"""Make this run's version the champion, or leave it waiting for whoever has to say so."""

from __future__ import annotations

from activities.admission import Candidate, Objection, admit
from activities.contracts import Done, RunRef
from activities.decisions import write_decisions
from activities.dependencies import Dependencies
from activities.live import read_champion
from activities.pointing import Reason, point_at
from activities.reconcile import reconcile
from activities.waiting import Challenger, finish_decided, hold_back
from activities.workspace import OUTRUN, Workspace


def promote(run: RunRef, to: Dependencies) -> Done:
    """Moves the pointer to this run's version, when the pipeline's promotion is automatic. A repeat finds it moved.

    What may not go live by itself (activities/admission.py) does not; one that was judged against another champion than
    there is now has to be judged again; the registry is told why. What was decided about the one that waits is done
    first. Raises PointerMoved or AlreadyDecided when somebody else moved the pointer or decided in between; the retry
    looks again. Raises RegistryError.
    """
    workspace = to.workspace(run.pipeline, run.run)
    number = workspace.read("version.json")["version"]
    sentence = workspace.read("decision.json")["sentence"]
    found = finish_decided(run.pipeline, to)
    champion = read_champion(to.blobs, run.pipeline)
    if champion is not None and champion.version == number:
        return Done(sentence=f"version {number} is live")
    candidate = Candidate(run.pipeline, number, workspace.read("evaluation.json")["champion_version"])
    admitted = admit(candidate, champion, to)
    if isinstance(admitted, Objection):
        return _not_promoted(admitted, number, workspace, to)
    challenger = Challenger(run.run, candidate, sentence)
    held = hold_back(challenger, workspace.spec().promotion, found, champion, to)
    if held is not None:
        return Done("waiting", held)
    point_at(admitted.manifest, Reason("promoted", f"run {run.run}", sentence), champion, to)
    return Done(sentence=f"version {number} is live")


def _not_promoted(objection: Objection, number: int, workspace: Workspace, to: Dependencies) -> Done:
    if objection.kind != "rolled back":  # which the registry says of it already
        said = f"{to.now()} run {workspace.run}: {objection.sentence}"
        write_decisions(to.registry(), workspace.pipeline, {number: ("refused", said)})
    why = f"Not promoted: {objection.sentence}"
    if objection.kind == "outrun":
        workspace.write(OUTRUN, {"why": objection.sentence})
        why += ": it is compared anew."
    if objection.kind in {"withdrawn", "rolled back"}:
        why += ". Upload more data, or promote it yourself by moving the alias champion."
    ended = "failed" if objection.kind == "does not serve" else "kept"
    return Done(ended, why)


def align(run: RunRef, to: Dependencies) -> Done:
    """Brings the registry's aliases in line with the live pointer, and tells who listens."""
    return Done(sentence=reconcile(run.pipeline, to).sentence)
