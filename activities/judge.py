"""The gate: may the challenger replace the champion?"""

from __future__ import annotations

from activities.contracts import Judged, RunRef
from activities.dependencies import Dependencies
from activities.evaluate import read_scores


def judge(run: RunRef, to: Dependencies) -> Judged:
    """Writes `decision.json`: every check with its figures, and a sentence for people."""
    from models.evaluation import Metrics, Slice, yardstick
    from models.gate import Evidence, decide
    from models.parity import ParityReport

    workspace = to.workspace(run.pipeline, run.run)
    spec, evaluation, exported = workspace.spec(), workspace.read("evaluation.json"), workspace.read("export.json")
    scores = read_scores(workspace)
    champion = evaluation["champion"]
    latency = evaluation["latency_ms"]
    evidence = Evidence(
        labels=scores["labels"],
        challenger=Metrics.from_dict(evaluation["challenger"]),
        challenger_answers=scores["challenger"],
        champion=Metrics.from_dict(champion) if champion else None,
        champion_answers=scores["champion"] if champion else None,
        groups=scores["groups"] if spec.holdout.by == "group" else None,
        slices=[Slice.from_dict(part) for part in evaluation["slices"]],
        uncompared=evaluation["uncompared"],
        holdout_rows=evaluation["holdout_rows"],
        vanished_rows=evaluation.get("vanished_rows", 0),
        parity=ParityReport.from_dict(exported["parity"]),
        latency_p99_ms=latency["p99"] if latency else None,
        size_bytes=exported["bytes"],
        seed=spec.training.seed,
    )
    decision = decide(spec.gate, yardstick(spec), evidence)
    workspace.write("decision.json", decision.to_dict())
    return Judged(decision.promote, decision.sentence)
