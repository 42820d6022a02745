"""Merge the partitions' profiles, settle what the dataset is, and fit the feature graph."""

from __future__ import annotations

import hashlib
from typing import Any

from activities.contracts import Fitted, RunRef
from activities.dependencies import Dependencies
from activities.live import read_champion
from activities.workspace import PlannedPartition, existing_keys

SECONDS_A_DAY = 86_400.0


def fit(run: RunRef, to: Dependencies) -> Fitted:
    """Writes `dataset.json` and the feature graph, and the batches of matrices that are not cached yet."""
    from models.features import fit_features
    from models.profiles import Profile, merge

    workspace = to.workspace(run.pipeline, run.run)
    spec = workspace.spec()
    plan = workspace.plan()
    usable = [
        (partition, outcome)
        for partition, outcome in zip(plan, workspace.read_outcomes(plan), strict=True)
        if outcome["state"] == "clean" and outcome["rows"]
    ]
    if not usable:
        return Fitted("nothing_to_do", "No usable partition: nothing to train on.")
    dataset = dataset_id([partition for partition, _ in usable], spec.fingerprint)
    champion = read_champion(to.blobs, run.pipeline)
    nothing_new = not any(partition.new for partition, _ in usable)
    if not run.force and champion and nothing_new and champion.manifest.lineage.spec == spec.fingerprint:
        return Fitted("nothing_to_do", "No new usable partition: there is nothing that the last run did not have.")

    merged = merge(Profile.from_dict(outcome["profile"]) for _, outcome in usable)
    graph = fit_features(merged, spec)
    graph_key = hashlib.sha256(graph).hexdigest()[:40]
    to.blobs.put(workspace.graph_path(graph_key), graph)
    partitions = [_entry(partition, outcome) for partition, outcome in usable]
    newest: float = max(entry["time_max"] for entry in partitions)
    workspace.write(
        "dataset.json",
        {
            "id": dataset,
            "spec": spec.fingerprint,
            "graph": graph_key,
            "rows": merged.rows,
            "positives": merged.positives,
            "holdout_from": newest - spec.holdout.days * SECONDS_A_DAY,
            "partitions": partitions,
        },
    )
    known = existing_keys(to.blobs, workspace.matrices_prefix(graph_key))
    todo = [entry for entry in partitions if entry["key"] not in known]
    return Fitted(todo=len(todo), batches=workspace.write_batches("transform", todo))


def dataset_id(partitions: list[PlannedPartition], spec_fingerprint: str) -> str:
    """SHA-256 over the sorted (path, eTag) pairs and the spec: what DESIGN calls a dataset."""
    lines = sorted(f"{partition.path}\n{partition.etag}" for partition in partitions)
    return hashlib.sha256("\n".join([*lines, spec_fingerprint]).encode()).hexdigest()


def _entry(partition: PlannedPartition, outcome: dict[str, Any]) -> dict[str, Any]:
    return {
        "path": partition.path,
        "etag": partition.etag,
        "key": partition.key,
        "rows": outcome["rows"],
        "time_min": outcome["profile"]["time_min"],
        "time_max": outcome["profile"]["time_max"],
    }
