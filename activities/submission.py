"""What goes to the model registry about a run: figures, files, and a description for people."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import platform
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from typing import Any

from activities.contracts import RunRef
from activities.decisions import DECISION
from activities.description import Facts, describe
from activities.uploads import TRAINING
from activities.workspace import Workspace
from adapters.registry import DataSource, Submission
from models.manifest import Signature

MAX_SLICE_METRICS = 200
"""Slices that become metrics, those with the most rows: a run's page lists each. All figures are in slices.csv."""


def make_submission(run: RunRef, workspace: Workspace, exported: dict[str, Any], model: bytes) -> Submission:
    """Everything that the registry is told. Its parameters follow from the dataset, the spec and the model alone."""
    from models.evaluation import yardstick

    documents = {name: workspace.read(f"{name}.json") for name in ("dataset", "training", "evaluation", "decision")}
    dataset, training = documents["dataset"], documents["training"]
    evaluation, decision = documents["evaluation"], documents["decision"]
    signature, spec = Signature.from_dict(exported["signature"]), workspace.spec()
    example = {column.name: dataset["example"][column.name] for column in signature.inputs}
    window, metric = _window(dataset), yardstick(spec).metric
    curve = training.get("metric", "log_loss")
    return Submission(
        pipeline=run.pipeline,
        run=run.run,
        key=_key(run, dataset["id"], exported["sha256"]),
        model=model,
        signature=signature,
        description=describe(Facts(run.pipeline, signature, decision, evaluation, dataset, window, example)),
        started=run.started,
        example=example,
        parameters={
            "task": spec.task,
            "objective": spec.objective,
            "rounds": str(spec.training.rounds),
            "best_iteration": str(training["best_iteration"]),
            "seed": str(spec.training.seed),
            "export": spec.export,
            "training_rows": str(training["training_rows"]),
            "validation_rows": str(training["validation_rows"]),
            "features": str(len(spec.features)),
            **{name: str(value) for name, value in spec.training.parameters.items()},
        },
        metrics=_metrics(exported, evaluation, decision, metric=metric),
        curves={f"training_{curve}": training["training_curve"], f"validation_{curve}": training["curve"]},
        tags={
            DECISION: "passed" if decision["promote"] else "rejected",
            "ratchet.dataset": dataset["id"],
            "ratchet.model_sha256": exported["sha256"],
            **{f"ratchet.{name}": moment for name, moment in window.items()},
        },
        dataset=dataset["id"],
        sources=[
            DataSource(f"{TRAINING}/{entry['path']}", entry["etag"], entry["rows"]) for entry in dataset["partitions"]
        ],
        files=lambda: _files(workspace, documents),
    )


def _key(run: RunRef, dataset: str, model_sha256: str) -> str:
    """Names the version: these bytes of this dataset, or of this run when that was forced."""
    return hashlib.sha256(f"{run.run if run.force else dataset}\n{model_sha256}".encode()).hexdigest()


def _files(workspace: Workspace, documents: Mapping[str, Any]) -> dict[str, bytes]:
    dataset, slices = documents["dataset"], documents["evaluation"].get("slices")
    return {
        "spec.yaml": workspace.spec_text().encode(),
        "environment.txt": _environment().encode(),
        "decision.json": _pretty(documents["decision"]),
        "evaluation.json": _pretty(documents["evaluation"]),
        "lineage/dataset.json": _pretty(dataset),
        "lineage/partitions.csv": _partitions_table(dataset),
        **({"slices.csv": _slices_table(slices)} if slices else {}),
    }


def _metrics(
    exported: dict[str, Any], evaluation: dict[str, Any], decision: dict[str, Any], *, metric: str
) -> dict[str, float]:
    """Plain names for the challenger's; groups (a name with a slash is a section of the run's page) for the rest."""
    gain, latency = decision["gain"] or {}, evaluation["latency_ms"] or {}
    named = {
        **evaluation["challenger"],
        **_grouped("champion", evaluation["champion"] or {}),
        **_grouped("gain", {name: gain.get(name) for name in ("value", "lower")}),
        **_grouped("latency_ms", latency),
        "parity_worst": exported["parity"]["worst"],
        "model_bytes": exported["bytes"],
    }
    largest = sorted(evaluation.get("slices") or [], key=lambda part: -part["challenger"]["rows"])[:MAX_SLICE_METRICS]
    for part in largest:
        named[f"slice_{metric}/{_plain(part['column'])}: {_plain(part['value'] or 'missing')}"] = part[
            "challenger"
        ].get(metric)
    return {name: float(value) for name, value in named.items() if value is not None}


def _grouped(group: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{group}/{name}": value for name, value in figures.items()}


def _plain(text: str) -> str:
    """With the letters that MLflow takes in a metric's name."""
    return re.sub(r"[^\w.\- ]", "_", text, flags=re.ASCII)[:60]


def _window(dataset: dict[str, Any]) -> dict[str, str]:
    """From when to when the rows are, and from when on they were held out, as far as these are known; ISO 8601 UTC."""
    ends = {
        "data_from": min(entry["time_min"] for entry in dataset["partitions"]),
        "data_to": max(entry["time_max"] for entry in dataset["partitions"]),
        "holdout_from": dataset["holdout_from"],
    }
    return {name: _moment(seconds) for name, seconds in ends.items() if seconds}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _partitions_table(dataset: dict[str, Any]) -> bytes:
    return _table(
        ("path", "etag", "rows", "from", "to"),
        (
            (
                f"{TRAINING}/{entry['path']}",
                entry["etag"],
                entry["rows"],
                _moment(entry["time_min"]) if entry["time_min"] else "",
                _moment(entry["time_max"]) if entry["time_max"] else "",
            )
            for entry in dataset["partitions"]
        ),
    )


def _slices_table(slices: list[dict[str, Any]]) -> bytes:
    names = [name for name in slices[0]["challenger"] if name != "rows"]
    return _table(
        ("column", "value", "rows", *names, *(f"champion {name}" for name in names)),
        (
            (
                part["column"],
                part["value"],
                part["challenger"]["rows"],
                *(part["challenger"][name] for name in names),
                *((part["champion"] or {}).get(name) for name in names),
            )
            for part in slices
        ),
    )


def _table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    return buffer.getvalue().encode()


@cache
def _environment() -> str:
    """The packages of this process, as a requirements file has them. To look at all of them takes a while."""
    found = {package.metadata["Name"]: package.version for package in metadata.distributions()}
    lines = [f"{name}=={found[name]}" for name in sorted(found, key=str.lower)]
    return "\n".join([f"# Python {platform.python_version()}, {platform.platform()}", *lines, ""])


def _pretty(document: Any) -> bytes:
    return json.dumps(document, indent=2, sort_keys=True).encode()
