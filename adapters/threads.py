"""How many threads the libraries of a worker process may start, so that together they fit the instance.

LightGBM waits for the slowest of its threads many times a second, so each activity that may run at the same time gets
its share of the CPUs. Polars' pool is one for the process and only hands out work, so it may have all of them, unless
there are several processes. onnxruntime gets a thread for each session in the fan-out; nothing here uses BLAS.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLARS = "POLARS_MAX_THREADS"
"""Polars reads it when it is imported."""
PROCESSES = "FUNCTIONS_WORKER_PROCESS_COUNT"
ACTIVITIES = "AzureFunctionsJobHost__extensions__durableTask__maxConcurrentActivityFunctions"
"""The app setting that stands above host.json's, as Azure Functions names it."""
ACTIVITIES_A_CPU = 10
"""The Durable extension's own default."""


@dataclass(frozen=True, slots=True)
class Threads:
    """`training` is for an activity: LightGBM's, and those that score a holdout. `polars` is for the process."""

    training: int
    polars: int


def share(cpus: int, *, activities: int, processes: int) -> Threads:
    """What fits into `cpus` when so many activities may run at a time in the instance's worker processes.

    One CPU stays free of LightGBM for requests, where there are several.
    """
    busy = min(activities, processes)
    return Threads(training=max(1, min(cpus - 1, cpus // activities)), polars=max(1, cpus // busy))


def threads_of(environ: Mapping[str, str], host_json: Path) -> Threads:
    """The share of this process."""
    cpus = os.process_cpu_count() or 1
    given = environ.get(ACTIVITIES, "") or _configured(host_json)
    return share(
        cpus,
        activities=_whole(given, ACTIVITIES_A_CPU * cpus),
        processes=_whole(environ.get(PROCESSES, ""), 1),
    )


def limit_polars(environ: MutableMapping[str, str], threads: Threads) -> None:
    """Says how many threads Polars may start, unless somebody has. Polars must not be imported before."""
    environ.setdefault(POLARS, str(threads.polars))


def _configured(host_json: Path) -> Any:
    try:
        document = json.loads(host_json.read_text(encoding="utf-8"))
        return document["extensions"]["durableTask"]["maxConcurrentActivityFunctions"]
    except (OSError, ValueError, KeyError, TypeError):
        # Not ours to judge: the Functions host has read that file before it started this process.
        return ""


def _whole(value: Any, default: int) -> int:
    """The host judges these values; what it would not take counts as not said."""
    return int(value) if str(value).strip().isdecimal() and int(value) > 0 else default
