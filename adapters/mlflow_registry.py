"""The registry in MLflow, through its client (mlflow-skinny). Imported when there is something to register: it takes
seconds. Aliases and tags do without (adapters/mlflow_aliases.py).

A challenger becomes one MLflow run (parameters, metrics, documents, the model) and one model version, both tagged with
the submission's key, so that a repeat after a crash between any two calls finds what is there and goes on. The tag
`ratchet.run` of the version, written last, says whose judgement it shows.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from adapters.mlflow_aliases import MlflowAliases
from adapters.mlflow_model import model_files
from adapters.registry import DataSource, NoSuchVersion, RegistryAway, RegistryError, Submission
from models.errors import bounded

RUN, KEY = "ratchet.run", "ratchet.key"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Without it, MLflow's pages show an experiment as one of language models, with other menus."""
NOTE = "mlflow.note.content"
"""The tag that MLflow shows, as Markdown, as a run's description."""
MAX_DESCRIPTION_CHARACTERS = 5_000
"""What the server's database holds of a version's description."""
MAX_BATCH = 1000
"""Metrics in one log_batch call: the server's limit."""
MAX_SOURCES = 100
"""Partitions that become dataset inputs of a run, the last ones by name: the page shows them in one list. All of them
are in the run's files."""
MAX_DIGEST_CHARACTERS, MAX_NAME_CHARACTERS = 36, 500
HTTP_TIMEOUT_SECONDS, HTTP_RETRIES = "20", "3"
"""MLflow's own defaults (120 s, 7 tries with back-off) would hold an activity for many minutes; the orchestration's
retry policy waits instead, without occupying a worker."""

_importing = threading.Lock()


class MlflowRegistry:
    """Implements adapters.registry.Registry on a tracking server with aliases (MLflow 2.3 or later)."""

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri
        self._aliases = MlflowAliases(tracking_uri)

    @cached_property
    def _client(self) -> Any:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", HTTP_TIMEOUT_SECONDS)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", HTTP_RETRIES)
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)

    def register(self, submission: Submission, *, anew: bool = True) -> int:
        with self._errors():
            name = submission.pipeline
            self._ensure_model(name)
            run = self._tracking_run(submission)
            known = self._versions(submission)
            if not known:
                self._log(run, submission)
                self._client.create_model_version(
                    name,
                    source=f"{run.info.artifact_uri}/model",
                    run_id=run.info.run_id,
                    tags=_tags(submission),
                    description=_description(submission),
                    await_creation_for=0,
                )
            # A request that was repeated because its answer was lost has made two: the first one counts.
            first, *others = self._versions(submission)
            for other in others:
                self._client.delete_model_version(name, other.version)
            if anew and first.tags[RUN] != submission.run:
                self._judge_anew(run, first, submission)
            if run.info.status != "FINISHED":
                self._client.set_terminated(run.info.run_id, "FINISHED")
            return int(first.version)

    def _versions(self, submission: Submission) -> list[Any]:
        wanted = f"name = '{submission.pipeline}' and tags.`{KEY}` = '{submission.key}'"
        return sorted(self._client.search_model_versions(wanted), key=lambda found: int(found.version))

    def illustrate(self, pipeline: str, version: int, run: str, pictures: Callable[[], Mapping[str, bytes]]) -> None:
        with self._errors():
            found = self._client.get_model_version(pipeline, str(version))
        if found.tags.get(RUN) == run:
            drawn = pictures()
            with self._errors():
                self._log_files(found.run_id, drawn)

    def measured(self, pipeline: str, version: int, metrics: Mapping[str, float], *, at: str) -> None:
        with self._errors():
            run_id = self._client.get_model_version(pipeline, str(version)).run_id
            self._log_metrics(run_id, _metrics(metrics, _milliseconds(at)))

    def aliases(self, pipeline: str) -> Mapping[str, int]:
        with self._reaching():
            return self._aliases.aliases(pipeline)

    def set_alias(self, pipeline: str, alias: str, version: int) -> None:
        with self._reaching():
            self._aliases.set_alias(pipeline, alias, version)

    def remove_alias(self, pipeline: str, alias: str) -> None:
        with self._reaching():
            self._aliases.remove_alias(pipeline, alias)

    def knows(self, pipeline: str, version: int) -> bool:
        with self._reaching():
            return self._aliases.knows(pipeline, version)

    def tag(self, pipeline: str, version: int, name: str, value: str) -> None:
        with self._reaching():
            self._aliases.tag(pipeline, version, name, value)

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
            experiment_id = self._client.create_experiment(submission.pipeline, tags=KIND)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment_id = self._client.get_experiment_by_name(submission.pipeline).experiment_id
        found = self._client.search_runs([experiment_id], f"tags.`{KEY}` = '{submission.key}'", max_results=1)
        if found:
            return found[0]
        return self._client.create_run(
            experiment_id,
            start_time=_milliseconds(submission.started),
            run_name=submission.run,
            tags={**_tags(submission), NOTE: _description(submission)},
        )

    def _log(self, run: Any, submission: Submission) -> None:
        """Everything but the version. What is there already from an earlier try is written over with the same."""
        from mlflow.entities import Param

        run_id = run.info.run_id
        self._client.log_batch(run_id, params=[Param(name, value) for name, value in submission.parameters.items()])
        metrics = _metrics(submission.metrics, _milliseconds(submission.started))
        for name, values in submission.curves.items():
            for step, value in enumerate(values, start=1):
                # At the time of the run that there is: two points of one round would be two in the picture.
                metrics += _metrics({name: value}, run.info.start_time, step)
        self._log_metrics(run_id, metrics)
        if submission.sources:
            self._client.log_inputs(run_id, _inputs(submission))
        model = {f"model/{name}": data for name, data in model_files(submission, run_id).items()}
        self._log_files(run_id, {**submission.files(), **model})

    def _judge_anew(self, run: Any, version: Any, submission: Submission) -> None:
        """What another run found out about the same model takes the place of what is there."""
        from mlflow.entities import RunTag

        run_id, described = run.info.run_id, _description(submission)
        self._log_metrics(run_id, _metrics(submission.metrics, _milliseconds(submission.started)))
        self._log_files(run_id, submission.files())
        tags = [RunTag(name, value) for name, value in {**_tags(submission), NOTE: described}.items()]
        self._client.log_batch(run_id, tags=tags)
        self._client.update_model_version(submission.pipeline, version.version, description=described)
        for name, value in sorted(_tags(submission).items(), key=lambda tag: tag[0] == RUN):
            if version.tags.get(name) != value:
                self._client.set_model_version_tag(submission.pipeline, version.version, name, value)

    def _log_metrics(self, run_id: str, metrics: list[Any]) -> None:
        for start in range(0, len(metrics), MAX_BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + MAX_BATCH])

    def _log_files(self, run_id: str, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory(prefix="ratchet-register-") as directory:
            for name, data in files.items():
                file = Path(directory, name)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            self._client.log_artifacts(run_id, directory)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Of the client."""
        _import_client()
        from mlflow.exceptions import MlflowException

        with self._reaching():
            try:
                yield
            except MlflowException as exc:
                gone = exc.error_code == "RESOURCE_DOES_NOT_EXIST"
                raise (NoSuchVersion if gone else RegistryError)(bounded(exc)) from exc

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Says which registry it was, in every error. An address may carry a password, and this text goes into records
        and answers."""
        try:
            yield
        except (RegistryError, OSError) as exc:
            secret = urlsplit(self._uri).netloc.rpartition("@")[0]
            text = f"the model registry at {self._uri} cannot be used: {bounded(exc)}"
            kind = type(exc) if isinstance(exc, RegistryError) else RegistryAway
            raise kind(text.replace(f"{secret}@", "") if secret else text) from exc


def _import_client() -> None:
    """Its packages import each other in circles. A second thread that asks for one of them meanwhile finds half of
    another, and then none can be imported again in this process."""
    with _importing:
        import mlflow.tracking  # noqa: F401


def _tags(submission: Submission) -> dict[str, str]:
    return {RUN: submission.run, KEY: submission.key, **submission.tags}


def _metrics(figures: Mapping[str, float], at: int, step: int = 0) -> list[Any]:
    """One of the same name, value, step and time is the same to the server: a repeat adds no second point."""
    from mlflow.entities import Metric

    return [Metric(name, value, at, step) for name, value in figures.items()]


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


def _description(submission: Submission) -> str:
    text = submission.description
    return text if len(text) <= MAX_DESCRIPTION_CHARACTERS else text[: MAX_DESCRIPTION_CHARACTERS - 1] + "…"


def _inputs(submission: Submission) -> list[Any]:
    """The partitions as datasets of the run. A digest is at most 36 characters; the whole eTag is in the source."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    def entry(source: DataSource) -> Any:
        place = json.dumps({"uri": source.path, "etag": source.etag})
        digest = source.etag.strip('"')[:MAX_DIGEST_CHARACTERS]
        rows = json.dumps({"num_rows": source.rows})
        return Dataset(source.path[-MAX_NAME_CHARACTERS:], digest, "azure-blob", place, profile=rows)

    newest = sorted(submission.sources, key=lambda source: source.path)[-MAX_SOURCES:]
    tags = [InputTag("mlflow.data.context", "training"), InputTag("ratchet.dataset", submission.dataset)]
    return [DatasetInput(entry(source), tags) for source in newest]
