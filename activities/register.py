"""Register the challenger, promoted or not, and store its immutable version."""

from __future__ import annotations

import json
from typing import Any

from activities.contracts import Done, RunRef
from activities.dependencies import Dependencies
from activities.live import read_champion, read_champions_manifest
from activities.pointing import withdrawal
from activities.submission import make_submission
from activities.workspace import Workspace
from adapters.blobs import BlobConflict
from adapters.events import Notice
from adapters.registry import CHALLENGER, VersionTaken
from models.manifest import GoldenRows, HoldoutRule, Lineage, LineagePartition, Manifest, Signature


def register(run: RunRef, to: Dependencies) -> Done:
    """Registers by the dataset (or by the run, when it was forced), and writes `models/{pipeline}/versions/{n}/`.

    The steps that follow find the version in `version.json`.
    """
    workspace = to.workspace(run.pipeline, run.run)
    exported = workspace.read("export.json")
    model = to.blobs.get(workspace.challenger_path(exported["sha256"])).data
    registry = to.registry()
    anew = not _is_settled(run, workspace, exported, to)
    version = registry.register(make_submission(run, workspace, exported, model), anew=anew)
    registry.set_alias(run.pipeline, CHALLENGER, version)
    model_path = workspace.version_path(version, "model.onnx")
    manifest = _manifest(run, workspace, exported, version, model_path)
    document = json.dumps(manifest.to_dict(), sort_keys=True, allow_nan=False).encode()
    manifest_path = workspace.version_path(version, "model.json")
    # The manifest comes first: it says whose the version is.
    try:
        to.blobs.put(manifest_path, document, only_new=True, content_type="application/json")
    except BlobConflict as exc:
        owner = json.loads(to.blobs.get(manifest_path).data)
        # An earlier run of the same dataset may have come so far and no further: its version is this one's.
        if owner["run"] != run.run and not _is_same(owner, manifest, run):
            raise VersionTaken(run.pipeline, version, owner["run"]) from exc
    to.blobs.put(model_path, model)
    workspace.write("version.json", {"version": version, "manifest_path": manifest_path})
    decision = workspace.read("decision.json")
    told = {"run": run.run, "version": version, "promote": decision["promote"], "sentence": decision["sentence"]}
    to.tell(Notice("Ratchet.ModelRegistered", run.pipeline, run.run, told))
    return Done(sentence=f"version {version}")


def _is_settled(run: RunRef, workspace: Workspace, exported: dict[str, Any], to: Dependencies) -> bool:
    """Whether this run decides nothing about the model, if it is known: it is the champion, and so was compared with
    itself, or a person has withdrawn it.
    """
    champion = read_champion(to.blobs, run.pipeline)
    if champion is None or run.force:
        return False
    dataset = workspace.read("dataset.json")["id"]
    manifest = read_champions_manifest(champion, to.blobs)
    made = (manifest.lineage.dataset, manifest.model_sha256)
    return made == (dataset, exported["sha256"]) or withdrawal(champion.pointer, dataset) is not None


def _is_same(owner: dict[str, Any], manifest: Manifest, run: RunRef) -> bool:
    found = (owner["lineage"]["dataset"], owner["model_sha256"])
    return not run.force and found == (manifest.lineage.dataset, manifest.model_sha256)


def _manifest(run: RunRef, workspace: Workspace, exported: dict[str, Any], version: int, model_path: str) -> Manifest:
    dataset, evaluation = workspace.read("dataset.json"), workspace.read("evaluation.json")
    decision = workspace.read("decision.json")
    return Manifest(
        pipeline=run.pipeline,
        version=version,
        run=run.run,
        created=run.started,
        model_path=model_path,
        model_sha256=exported["sha256"],
        model_bytes=exported["bytes"],
        signature=Signature.from_dict(exported["signature"]),
        golden=GoldenRows.from_dict(exported["golden"]),
        lineage=Lineage(
            dataset=dataset["id"],
            spec=dataset["spec"],
            holdout_from=dataset["holdout_from"],
            partitions=tuple(
                LineagePartition(entry["path"], entry["etag"], entry["rows"], entry.get("content", ""))
                for entry in dataset["partitions"]
            ),
            holdout=HoldoutRule(**dataset["holdout"]),
            data=dataset["data"],
        ),
        metrics={name: float(value) for name, value in evaluation["challenger"].items() if value is not None},
        rejected=not decision["promote"],
        opset=exported["opset"],
    )
