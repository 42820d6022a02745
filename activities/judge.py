"""The gate: may the challenger replace the champion?"""

from __future__ import annotations

from activities.contracts import MAX_SENTENCE_CHARACTERS, Judged, RunRef
from activities.dependencies import Dependencies
from activities.evaluate import read_scores
from models.errors import bounded


def judge(run: RunRef, to: Dependencies) -> Judged:
    """Writes `decision.json`: every check with its figures, and a sentence for people."""
    from models.evaluation import Metrics
    from models.gate import decide
    from models.parity import ParityReport

    workspace = to.workspace(run.pipeline, run.run)
    spec, evaluation, exported = workspace.spec(), workspace.read("evaluation.json"), workspace.read("export.json")
    scores = read_scores(workspace)
    champion = evaluation["champion"]
    latency = evaluation["latency_ms"]
    decision = decide(
        spec.gate,
        challenger=Metrics(**evaluation["challenger"]),
        champion=Metrics(**champion) if champion else None,
        uncompared=evaluation["uncompared"],
        labels=scores["labels"],
        challenger_scores=scores["challenger"],
        champion_scores=scores["champion"] if champion else None,
        parity=ParityReport(**exported["parity"]),
        latency_p99_ms=latency["p99"] if latency else None,
        size_bytes=exported["bytes"],
        seed=spec.training.seed,
    )
    workspace.write("decision.json", decision.to_dict())
    return Judged(decision.promote, bounded(decision.sentence, MAX_SENTENCE_CHARACTERS))
