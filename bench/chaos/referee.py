"""What has to hold in the end, read from storage, the ledger and MLflow themselves and not from the app."""

from __future__ import annotations

import hashlib
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables import TableClient
from azure.storage.blob import ContainerClient
from mlflow.tracking import MlflowClient

from bench.chaos.arena import Arena
from bench.chaos.uploads import SPEC, Script
from bench.floor import model_of
from models.spec import parse_spec

SETTLE_SECONDS = 900.0
"""A limit against hanging, not a measure: workers that were killed import their libraries anew, and a busy machine
takes minutes over that."""
SWEEP_SECONDS = 3.0
"""How often the sweep runs meanwhile."""
POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a scenario ended. `losses` says what was lost, and is empty when nothing was."""

    losses: tuple[str, ...]
    partitions: int
    runs: int
    seconds: float


class Referee:
    """Judges one pipeline of an arena."""

    def __init__(self, arena: Arena, pipeline: str) -> None:
        self._arena, self._pipeline = arena, pipeline
        connect = ContainerClient.from_connection_string
        self._training, self._models, self._runs = (
            connect(arena.storage, name) for name in ("training", "models", "runs")
        )
        self._ledger = TableClient.from_connection_string(arena.storage, "ledger")
        self._mlflow = MlflowClient(arena.stack.mlflow_url, arena.stack.mlflow_url)

    def judge(self, script: Script, *, started: float) -> Verdict:
        """Waits until nothing is left to do, sweeping now and then, and then looks."""
        waiting = ""
        while time.monotonic() - started < SETTLE_SECONDS and not self._arena.closed:
            waiting = self._unsettled(script)
            if not waiting:
                break
            self._arena.sweep(every=SWEEP_SECONDS)
            time.sleep(POLL_SECONDS)
        losses = (f"not settled after {SETTLE_SECONDS:.0f} s: {waiting}",) if waiting else self._losses(script)
        rows = len(self._rows())
        return Verdict(losses, rows, len(self._names(self._runs)), time.monotonic() - started)

    def _unsettled(self, script: Script) -> str:
        """What is not in its final state yet, or ''."""
        rows, blobs = self._rows(), self._blobs()
        for name, row in rows.items():
            expected = "removed" if name not in script.content else None
            expected = expected or ("included" if name in script.usable else "quarantined")
            if row["state"] != expected or (name in blobs and row["etag"] != blobs[name]):
                return f"{name} is {row['state']} (eTag {row['etag']}, {row['reason'][:80]!r})"
        if missing := script.content.keys() - rows.keys():
            return f"the ledger has no {min(missing)}"
        if not self._versions_of(script):
            return "no version of the final dataset"
        status = self._status()
        if status is None or status["run"] is not None:
            return f"a run is under way: {status and status['run']}"
        return ""

    def _losses(self, script: Script) -> tuple[str, ...]:
        losses: list[str] = []
        paths = [row["path"] for row in self._entities()]
        if len(paths) != len(set(paths)):
            losses.append("a partition has two rows in the ledger")
        manifests = self._versions_of(script)
        if len(manifests) != 1:
            losses.append(f"versions {[m['version'] for m in manifests]} are all of the final dataset")
        manifest = manifests[0]
        spec = parse_spec(SPEC.format(name=self._pipeline), source="chaos.yaml")
        files = {f"{self._pipeline}/{name}": script.content[name] for name in script.usable}
        expected = hashlib.sha256(model_of(files, spec)).hexdigest()
        stored = hashlib.sha256(
            self._models.download_blob(f"{self._folder(manifest)}/model.onnx").readall()
        ).hexdigest()
        if not expected == stored == manifest["model_sha256"]:
            losses.append(f"version {manifest['version']} has other bytes than a run without faults")
        registered = self._mlflow.search_model_versions(f"name = '{self._pipeline}'")
        of_dataset = [v for v in registered if v.tags.get("ratchet.dataset") == manifest["lineage"]["dataset"]]
        if [int(version.version) for version in of_dataset] != [manifest["version"]]:
            losses.append(f"MLflow has versions {[v.version for v in of_dataset]} of the final dataset")
        if len(registered) != len(self._manifests()):
            losses.append(f"MLflow has {len(registered)} versions, storage {len(self._manifests())}")
        return tuple(losses)

    def _versions_of(self, script: Script) -> list[dict[str, Any]]:
        """Manifests of versions whose lineage is what is in storage now."""
        blobs = self._blobs()
        wanted = {(f"{self._pipeline}/{name}", blobs[name]) for name in script.usable if name in blobs}
        return [
            manifest
            for manifest in self._manifests()
            if {(entry["path"], entry["etag"]) for entry in manifest["lineage"]["partitions"]} == wanted
        ]

    def _manifests(self) -> list[dict[str, Any]]:
        names = [name for name in self._names(self._models) if name.endswith("/model.json")]
        return [json.loads(self._models.download_blob(name).readall()) for name in names]

    def _folder(self, manifest: dict[str, Any]) -> str:
        return f"{self._pipeline}/versions/{manifest['version']}"

    def _names(self, container: ContainerClient) -> list[str]:
        return [str(name) for name in container.list_blob_names(name_starts_with=f"{self._pipeline}/")]

    def _blobs(self) -> dict[str, str]:
        prefix = f"{self._pipeline}/"
        found = self._training.list_blobs(name_starts_with=prefix)
        return {blob.name.removeprefix(prefix): blob.etag.strip('"') for blob in found}

    def _entities(self) -> list[dict[str, Any]]:
        """The ledger's rows, without the contents that were overwritten."""
        query = f"PartitionKey eq '{self._pipeline}' and state ne 'superseded'"
        try:
            return [dict(row) for row in self._ledger.query_entities(query)]
        except ResourceNotFoundError:
            return []

    def _rows(self) -> dict[str, dict[str, Any]]:
        return {row["path"].removeprefix(f"{self._pipeline}/"): row for row in self._entities()}

    def _status(self) -> dict[str, Any] | None:
        """What the app says of the pipeline; None while it does not answer."""
        url = f"{self._arena.app_url}/api/pipelines/{self._pipeline}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
                status: dict[str, Any] = json.load(answer)
        except (OSError, ValueError):
            return None
        return status
