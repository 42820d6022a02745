"""The libraries' threads fit the instance, counted in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.threads import ACTIVITIES, POLARS, PROCESSES, Threads, limit_polars, share, threads_of
from tests.models.flights import ROOT


@pytest.mark.parametrize(
    ("cpus", "activities", "processes", "training", "polars"),
    [
        (1, 2, 1, 1, 1),
        (2, 2, 1, 1, 2),
        (2, 2, 2, 1, 1),
        (4, 2, 1, 2, 4),
        (4, 2, 2, 2, 2),
        (4, 2, 8, 2, 2),
        (4, 1, 1, 3, 4),
        (4, 1, 4, 3, 4),
        (8, 40, 1, 1, 8),
    ],
)
def test_shares(cpus: int, activities: int, processes: int, training: int, polars: int) -> None:
    assert share(cpus, activities=activities, processes=processes) == Threads(training, polars)


@pytest.mark.parametrize("cpus", range(1, 65))
def test_activities_that_train_at_the_same_time_fit_the_instance(cpus: int) -> None:
    for activities in range(1, 9):
        for processes in range(1, 9):
            given = share(cpus, activities=activities, processes=processes)
            assert given.training * activities <= max(cpus, activities)
            assert given.polars * min(activities, processes) <= max(cpus, activities)


def test_what_the_host_is_told_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8)
    file = tmp_path / "host.json"
    assert threads_of({}, file) == Threads(1, 8)
    file.write_text("[]")
    assert threads_of({}, file) == Threads(1, 8)
    file.write_text(json.dumps({"extensions": {"durableTask": {"maxConcurrentActivityFunctions": 4}}}))
    assert threads_of({PROCESSES: "many"}, file) == Threads(2, 8)
    assert threads_of({PROCESSES: "2"}, file) == Threads(2, 4)
    assert threads_of({ACTIVITIES: "2", PROCESSES: "2"}, file) == Threads(4, 4)
    assert threads_of({}, ROOT / "host.json") == Threads(4, 8)


def test_what_somebody_has_said_of_polars_stays() -> None:
    environ = {POLARS: "3"}
    limit_polars(environ, Threads(1, 1))
    assert environ == {POLARS: "3"}


IN_THE_APP = """
import json, sys
import function_app
from triggers import services
services.settings()
early = "polars" in sys.modules
import polars
print(json.dumps([early, polars.thread_pool_size()]))
"""


def test_the_app_tells_polars_before_it_is_imported() -> None:
    environ = {**os.environ, "AzureWebJobsStorage": "UseDevelopmentStorage=true", PROCESSES: "2"}
    environ.pop(POLARS, None)
    assert _answer(IN_THE_APP, environ) == [False, max(1, (os.process_cpu_count() or 1) // 2)]


STEPS = """
import json, os
import polars as pl
import sklearn.metrics, scipy.stats
from models.features import FeatureRows
from tests.models.boosters import frame, trained
from tests.models.test_training import _train

data, made = frame(2000), trained()
pl.DataFrame({"a": range(100_000)}).select(pl.col("a").sort(), b=pl.col("a") * 2).lazy().collect()
count = lambda: len(os.listdir("/proc/self/task"))
counts = [count()]
in_the_fan_out = FeatureRows(made.graph, made.spec)
in_the_fan_out.compute(data)
for threads in (1, 3):
    _train(data, threads=threads)
    counts.append(count())
print(json.dumps(counts))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux shows them")
def test_features_and_training_start_no_more_threads_than_it_is_given() -> None:
    before, one, three = _answer(STEPS, dict(os.environ))
    assert (one - before, three - before) == (0, 2)


def _answer(code: str, environ: dict[str, str]) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: list[int] = json.loads(done.stdout)
    return answer
