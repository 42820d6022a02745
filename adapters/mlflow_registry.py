"""The registry in MLflow, through its client (mlflow-skinny). Imported lazily: it takes a second.

A challenger becomes one MLflow run (parameters, metrics, documents, the model) and one model version, both tagged with
the submission's key, so that a repeat after a crash between any two calls finds what is there and goes on.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from adapters.registry import RegistryError, Submission
from models.errors import bounded

RUN, KEY = "ratchet.run", "ratchet.key"
MAX_BATCH = 1000
"""Metrics in one log_batch call: the server's limit."""
HTTP_TIMEOUT_SECONDS, HTTP_RETRIES = "20", "3"
"""MLflow's own defaults (120 s, 7 tries with back-off) would hold an activity for many minutes; the orchestration's
retry policy waits instead, without occupying a worker."""


class MlflowRegistry:
    """Implements adapters.registry.Registry on a tracking server with aliases (MLflow 2.3 or later)."""

    def __init__(self, tracking_uri: str) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", HTTP_TIMEOUT_SECONDS)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", HTTP_RETRIES)
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        from mlflow.tracking import MlflowClient

        self._uri = tracking_uri
        self._client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)

    def register(self, submission: Submission) -> int:
        with self._errors():
            name = submission.pipeline
            self._ensure_model(name)
            run = self._tracking_run(submission)
            if not self._versions(submission):
                self._log(run.info.run_id, submission)
                self._client.create_model_version(
                    name,
                    source=f"{run.info.artifact_uri}/model",
                    run_id=run.info.run_id,
                    tags=_tags(submission),
                    description=submission.description,
                    await_creation_for=0,
                )
            # A request that was repeated because its answer was lost has made two: the first one counts.
            first, *others = self._versions(submission)
            for other in others:
                self._client.delete_model_version(name, str(other))
            if run.info.status != "FINISHED":
                self._client.set_terminated(run.info.run_id, "FINISHED")
            return first

    def _versions(self, submission: Submission) -> list[int]:
        wanted = f"name = '{submission.pipeline}' and tags.`{KEY}` = '{submission.key}'"
        return sorted(int(found.version) for found in self._client.search_model_versions(wanted))

    def aliases(self, pipeline: str) -> Mapping[str, int]:
        from mlflow.exceptions import MlflowException

        with self._errors():
            try:
                named = self._client.get_registered_model(pipeline).aliases
            except MlflowException as exc:
                if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return {}
            return {alias: int(version) for alias, version in named.items()}

    def set_alias(self, pipeline: str, alias: str, version: int) -> None:
        with self._errors():
            self._client.set_registered_model_alias(pipeline, alias, str(version))

    def tag(self, pipeline: str, version: int, name: str, value: str) -> None:
        with self._errors():
            self._client.set_model_version_tag(pipeline, str(version), name, value)

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _tracking_run(self, submission: Submission) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            experiment_id = self._client.create_experiment(submission.pipeline)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment_id = self._client.get_experiment_by_name(submission.pipeline).experiment_id
        found = self._client.search_runs([experiment_id], f"tags.`{KEY}` = '{submission.key}'", max_results=1)
        if found:
            return found[0]
        return self._client.create_run(experiment_id, run_name=submission.run, tags=_tags(submission))

    def _log(self, run_id: str, submission: Submission) -> None:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, 0) for name, value in submission.metrics.items()]
        metrics += [Metric("validation_log_loss", value, now, step) for step, value in submission.curve]
        parameters = [Param(name, value) for name, value in submission.parameters.items()]
        for start in range(0, max(len(metrics), 1), MAX_BATCH):
            self._client.log_batch(
                run_id, metrics=metrics[start : start + MAX_BATCH], params=parameters if start == 0 else ()
            )
        with tempfile.TemporaryDirectory(prefix="ratchet-register-") as directory:
            folder = Path(directory)
            (folder / "model.onnx").write_bytes(submission.model)
            (folder / "MLmodel").write_text(_mlmodel(submission, run_id), encoding="utf-8")
            self._client.log_artifacts(run_id, directory, "model")
        for name, text in submission.documents.items():
            self._client.log_text(run_id, text, name)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as exc:
            # An address may carry a password, and this text goes into records and answers.
            secret = urlsplit(self._uri).netloc.rpartition("@")[0]
            text = f"the model registry at {self._uri} cannot be used: {bounded(exc)}"
            raise RegistryError(text.replace(f"{secret}@", "") if secret else text) from exc


def _tags(submission: Submission) -> dict[str, str]:
    return {RUN: submission.run, KEY: submission.key, **submission.tags}


def _mlmodel(submission: Submission, run_id: str) -> str:
    """The MLmodel file that makes the graph loadable with mlflow.onnx and mlflow.pyfunc.

    Written by hand, because `mlflow.onnx.log_model` needs pandas and the whole of MLflow beside the app.
    """
    import mlflow
    import onnx

    columns = [
        {"type": "string" if column.kind == "category" else "double", "name": column.name, "required": True}
        for column in submission.signature.inputs
    ]
    document = {
        "artifact_path": "model",
        "flavors": {
            "onnx": {
                "code": None,
                "data": "model.onnx",
                "onnx_version": onnx.__version__,
                "providers": ["CPUExecutionProvider"],
            },
            "python_function": {"data": "model.onnx", "loader_module": "mlflow.onnx", "python_version": "3.13"},
        },
        "mlflow_version": mlflow.__version__,
        "model_size_bytes": len(submission.model),
        "run_id": run_id,
        "signature": {"inputs": json.dumps(columns), "outputs": None, "params": None},
    }
    return yaml.safe_dump(document, sort_keys=False)
