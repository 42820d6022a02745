"""How fast the learning core is, beside a hand-written script that does only the same work. `make bench-train`.

Ratios are of medians over interleaved rounds within this run; memory is of a process of its own.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from activities.evaluate import evaluate
from activities.export import export
from activities.fit import fit
from activities.train import train
from activities.transform import transform
from activities.uploads import claim
from activities.validate import validate
from bench import floor_train, huge
from local.flights import month_csv, pipeline_spec
from models.export import export as export_graph
from models.features import FEATURES, compute_matrix, feeds, fit_features, signature
from models.folds import folds
from models.graphs import after_features
from models.matrices import matrix_part
from models.partitions import clean_partition
from models.profiles import profile
from models.scoring import open_session
from tests.activities.world import PIPELINE, World

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3
MONTHS = range(1, 13)
THREADS = max(1, (os.cpu_count() or 1) - 1)
HUGE_ROWS = 10_000_000
HUGE_TREES = 20
EXPORT_ROUNDS, ROW_ROUNDS = 5, 2_000
CHOSEN = 7
"""The row that is predicted alone; which one it is does not matter."""
TREES = {"objective": "binary", "num_leaves": 63, "learning_rate": 0.05, "min_data_in_leaf": 50, "verbosity": -1}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    what: str
    measured: str
    wanted: str
    kept: bool


def main() -> int:
    """Measures and prints; 1 when a target is missed."""
    months = {f"{month:02d}.csv": month_csv(month) for month in MONTHS}
    lines: list[Line] = []
    for measure in (_memory, partial(_year, months), partial(_graph, months)):
        for line in measure():
            # It takes minutes: each figure is told when it is there.
            Console(width=200).print(f"{line.what}: {line.measured}")
            lines.append(line)
    table = Table("what", "measured", "wanted", title=f"The learning core ({THREADS} LightGBM thread(s))")
    for line in lines:
        table.add_row(line.what, line.measured, line.wanted + ("" if line.kept else "  MISSED"))
    Console(width=120).print(table)
    return 0 if all(line.kept for line in lines) else 1


class _Run:
    """The pipeline's steps on storage in memory, one after the other in this process."""

    def __init__(self, directory: str) -> None:
        text = (ROOT / "pipelines" / "flight-delays.yaml").read_text(encoding="utf-8")
        self.world = World(Path(directory), text.replace("name: flight-delays", f"name: {PIPELINE}"))
        object.__setattr__(self.world.to, "threads", THREADS)
        self.seconds: dict[str, float] = {}
        self.of_processor = 0.0
        """Seconds of the processor: two waves that are compared are not run side by side."""

    def upload(self, months: dict[str, bytes]) -> None:
        for name, data in months.items():
            self.world.upload(name, data)

    def waves(self) -> Any:
        """Claim, both fan-out waves, and what lies between; the run."""
        run = self.world.start()
        claimed = self._timed("claim", lambda: claim(run, self.world.to))
        self._timed("read, check, profile", lambda: self.world.fan_out(validate, run, claimed.todo))
        fitted = self._timed("fit features", lambda: fit(run, self.world.to))
        self._timed("features", lambda: self.world.fan_out(transform, run, fitted.todo))
        return run

    def model(self, run: Any) -> None:
        self._timed("train", lambda: train(run, self.world.to))
        self._timed("export, parity", lambda: export(run, self.world.to))
        self._timed("evaluate", lambda: evaluate(run, self.world.to))

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        begin, of_processor = time.perf_counter(), time.process_time()
        result = work()
        self.seconds[name] = time.perf_counter() - begin
        self.of_processor += time.process_time() - of_processor
        return result


def _year(months: dict[str, bytes]) -> Iterable[Line]:
    spec = pipeline_spec()
    chosen = {name: _clean_folds(name, data) for name, data in months.items()}
    ours, floors, shares = [], [], []
    steps: dict[str, float] = {}
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        floor = floor_train.run(months, chosen, spec.training.rounds, THREADS)
        floors.append(time.perf_counter() - begin)
        with tempfile.TemporaryDirectory() as directory:
            whole = _Run(directory)
            whole.upload(months)
            run = whole.waves()
            waves = whole.of_processor
            whole.model(run)
            ours.append(sum(whole.seconds.values()))
            steps = whole.seconds
            evaluation = whole.world.read(f"features/{PIPELINE}/steps/{run.run}/evaluation.json")
        difference = abs(evaluation["challenger"]["auc"] - floor["auc"])
        if difference > 1e-9:
            raise AssertionError(f"the floor does other work: the AUC differs by {difference}")
        shares.append(_added_month(months) / waves)
    ratio, share = statistics.median(np.array(ours) / np.array(floors)), statistics.median(shares)
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in steps.items())
    Console(width=120).print(f"seconds of the last round: floor {floors[-1]:.2f}; ours {ours[-1]:.2f} ({parts})")
    return [
        Line("a year of flights, beside the hand-written script", f"{ratio:.2f} times", "at most 1.25", ratio <= 1.25),
        Line("fan-out waves for one month more, of those for twelve", f"{share:.2f}", "at most 0.25", share <= 0.25),
    ]


def _clean_folds(name: str, data: bytes) -> np.ndarray[Any, Any]:
    rows = clean_partition(data, name=name, spec=pipeline_spec()).frame.height
    return folds(f"{PIPELINE}/{name}", rows)


def _added_month(months: dict[str, bytes]) -> float:
    """Seconds of the processor for the twelfth month's waves, after a run over the other eleven."""
    *before, last = months
    with tempfile.TemporaryDirectory() as directory:
        run = _Run(directory)
        run.upload({name: months[name] for name in before})
        first = run.waves()
        run.world.settle(first, "promoted", "")
        run.upload({last: months[last]})
        run.of_processor = 0.0
        run.waves()
        return run.of_processor


def _graph(months: dict[str, bytes]) -> Iterable[Line]:
    """Export and single rows of a model of 300 trees with 63 leaves."""
    spec = pipeline_spec()
    frame = pl.concat([clean_partition(months[name], name=name, spec=spec).frame for name in list(months)[:3]])
    features = fit_features(profile(frame, spec), spec)
    part = matrix_part(compute_matrix(features, frame, spec), frame, key="a")
    settings = {**TREES, "num_threads": THREADS}
    booster = lgb.train(settings, lgb.Dataset(part.x, part.y), num_boost_round=spec.training.rounds)
    text = booster.model_to_string()
    taken: dict[str, float] = {}
    model = b""
    for kind in ("portable", "exact"):
        rounds = []
        for _ in range(EXPORT_ROUNDS):
            # Of the processor, because it is one thread's work and other processes may be about.
            begin = time.process_time()
            model = export_graph(text, features, signature(spec), kind=kind)
            rounds.append(time.process_time() - begin)
        taken[kind] = statistics.median(rounds)
    trees = f"{booster.num_trees()} trees"
    whole, bare = _single_rows(model, features, feeds(frame[CHOSEN : CHOSEN + 1], spec))
    return [
        Line(f"export, {trees} of 63 leaves", f"{taken['exact']:.2f} s", "at most 1.5 s", taken["exact"] <= 1.5),
        Line("the same, portable", f"{taken['portable']:.2f} s", "", kept=True),
        Line(
            f"one row, raw columns to probability, beside the bare trees ({whole:.0f} and {bare:.0f} us)",
            f"{whole / bare:.2f} times",
            "at most 2.5",
            whole / bare <= 2.5,
        ),
    ]


def _single_rows(model: bytes, features: bytes, feed: dict[str, Any]) -> tuple[float, float]:
    """Median microseconds of one row through the whole graph, and of its float matrix through the trees alone."""
    served, bare = open_session(model, threads=1), open_session(after_features(model), threads=1)
    width = bare.get_inputs()[0].shape[1]
    matrix = np.ascontiguousarray(open_session(features, threads=1).run([FEATURES], feed)[0][:, :width])
    taken: dict[str, list[float]] = {"whole": [], "bare": []}
    for _ in range(ROW_ROUNDS):
        for name, session, fed in (("whole", served, feed), ("bare", bare, {FEATURES: matrix})):
            begin = time.perf_counter()
            session.run(None, fed)
            taken[name].append(time.perf_counter() - begin)
    return statistics.median(taken["whole"]) * 1e6, statistics.median(taken["bare"]) * 1e6


def _memory() -> Iterable[Line]:
    """The largest resident size of processes that have ten million rows to train on."""
    rows = f"{HUGE_ROWS / 1e6:.0f} million rows"
    months = -(-HUGE_ROWS * 12 // huge.ROWS_OF_A_YEAR)
    for files, name in ((1, "one upload"), (months, f"{months} uploads")):
        write = partial(huge.write_uploads, months=months, files=files)
        yield _peak("uploads", f"a whole run over {name} of {rows}", write)
    yield _peak("matrices", f"training on {rows} of 17 features", partial(huge.write_matrices, rows=HUGE_ROWS))


def _peak(what: str, name: str, write: Callable[[Path], None]) -> Line:
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory))
        command = [sys.executable, "-m", "bench.huge", what, directory, str(HUGE_TREES), str(THREADS)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    megabytes, seconds = (float(word) for word in printed.split())
    wanted = "at most 2 GB"
    return Line(
        f"peak memory, {name} ({HUGE_TREES} trees, {seconds:.0f} s)",
        f"{megabytes / 1024:.2f} GB",
        wanted,
        megabytes <= 2048,
    )


if __name__ == "__main__":
    sys.exit(main())
