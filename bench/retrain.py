"""How long a retrain takes from the event to the live model, beside a single script that does the same work.

`make bench-retrain` prints ratios of medians within one run: the whole stack is real, and warm.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobServiceClient
from rich.console import Console
from rich.table import Table

from devhost.ports import free_ports
from local.flights import month_csv
from local.parts import REPOSITORY
from local.stack import LocalStack, Ports, start_stack

ROUNDS = 3
YEAR = range(1, 13)
WAVES = frozenset({"validate", "features"})
FEW, MANY = 100, 1_000
ROWS_OF_TEN = 10
PATIENCE_SECONDS = 900.0
POLL_SECONDS = 0.02
LIMITS = {"floor": 1.35, "workers": 1.6, "partitions": 12.0}

SMALL = """
name: {name}
columns: {{at: timestamp, sold: integer, price: number, town: category}}
label: {{column: sold}}
time: at
training: {{rounds: 10, minimum_rows: 50, parameters: {{num_leaves: 7}}}}
holdout: {{days: 2}}
gate: {{minimum_auc: 0.0, minimum_rows: 20, maximum_latency_ms: 1000}}
quiet: {{seconds: {quiet}, longest_wait_seconds: 60}}
"""


class Bench:
    """A running stack whose pipelines are written as they are needed."""

    def __init__(self, opened: ExitStack, folder: Path, workers: int) -> None:
        self._pipelines = folder / "pipelines"
        self._pipelines.mkdir(parents=True)
        env = {"RATCHET_PIPELINES_DIR": str(self._pipelines), "RATCHET_POINTER_TTL_SECONDS": "0"}
        env["RATCHET_SWEEP_SCHEDULE"] = "0 0 0 1 1 *"
        ports = Ports(*free_ports(6))
        self.stack: LocalStack = opened.enter_context(
            start_stack(folder / "data", ports=ports, env=env, quiet=True, workers=workers)
        )
        self._storage = opened.enter_context(
            BlobServiceClient.from_connection_string(self.stack.blob_connection_string)
        )

    def define(self, name: str, text: str) -> None:
        (self._pipelines / f"{name}.yaml").write_text(text, encoding="utf-8")

    def retrain(self, name: str, files: Mapping[str, bytes]) -> tuple[float, dict[str, Any]]:
        """Uploads, then waits until the run that took them all has ended: seconds from the last upload, its record."""
        for file, data in files.items():
            self._storage.get_blob_client("training", f"{name}/{file}").upload_blob(data, overwrite=True)
        started = time.monotonic()
        wanted = {f"{name}/{file}" for file in files}
        while time.monotonic() - started < PATIENCE_SECONDS:
            status = self._get(f"/api/pipelines/{name}")
            if status["run"] is None and status["partitions"]["pending"] == status["partitions"]["claimed"] == 0:
                runs = [self._get(f"/api/pipelines/{name}/runs/{one['id']}") for one in self._runs(name)]
                if wanted <= {entry["path"] for run in runs for entry in run["partitions"]}:
                    return time.monotonic() - started, runs[-1]
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"{name} has not come to an end: {status}")

    def _runs(self, name: str) -> list[dict[str, Any]]:
        runs: list[dict[str, Any]] = self._get(f"/api/pipelines/{name}/runs")["runs"]
        return runs

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.stack.app_url + path, timeout=30) as answer:  # noqa: S310
            document: dict[str, Any] = json.load(answer)
        return document


def main() -> int:
    """0 when every ratio is within its limit, else 1."""
    console = Console(highlight=False)
    table = Table("what", "measured", "ratio", "limit")
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-bench-")))
        bench = Bench(opened, folder / "two", workers=2)
        ratios = {"floor": _against_the_floor(bench, table, folder), "partitions": _many_small(bench, table)}
        two = _waves(bench, "waves-two")
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-bench-")))
        one = _waves(Bench(opened, folder / "one", workers=1), "waves-one")
    ratios["workers"] = one / two
    table.add_row(
        "fan-out waves, one worker : two", f"{one:.2f} s : {two:.2f} s", f"{one / two:.2f}", f">= {LIMITS['workers']}"
    )
    console.print(table)
    within = ratios["floor"] <= LIMITS["floor"] and ratios["partitions"] <= LIMITS["partitions"]
    return int(not (within and ratios["workers"] >= LIMITS["workers"]))


def _against_the_floor(bench: Bench, table: Table, folder: Path) -> float:
    """A year of flights from event to live, with warm workers and no quiet period, against the script."""
    text = (REPOSITORY / "pipelines" / "flight-delays.yaml").read_text(encoding="utf-8")
    year = {f"2013-{month:02}.csv": month_csv(month) for month in YEAR}
    for name, data in year.items():
        (folder / name).write_bytes(data)
    floors, whole = [], []
    for number in range(ROUNDS + 1):
        name = f"year-{number}"
        quiet = "quiet: {seconds: 0.5, longest_wait_seconds: 60}"
        bench.define(name, text.replace("name: flight-delays", f"name: {name}").rpartition("quiet:")[0] + quiet)
        _, record = bench.retrain(name, year)
        floor = _floor_seconds(folder)
        if number:  # the first one warms the workers
            # The half second lets the twelve uploads come together; the run is counted from its end on.
            whole.append(_seconds(record))
            floors.append(floor)
    ratio = float(statistics.median(whole) / statistics.median(floors))
    measured = f"{statistics.median(whole):.2f} s : {statistics.median(floors):.2f} s"
    table.add_row("a year of flights, event to live : single script", measured, f"{ratio:.2f}", f"<= {LIMITS['floor']}")
    return ratio


def _floor_seconds(folder: Path) -> float:
    """In a process of its own that is warm: imports are not counted, as they are not for warm workers."""
    code = (
        "import sys, time; from pathlib import Path; from bench.floor import model_of; "
        "from local.flights import pipeline_spec; spec = pipeline_spec(); "
        "files = {p.name: p.read_bytes() for p in Path(sys.argv[1]).glob('*.csv')}; "
        "model_of(dict(list(files.items())[:1]), spec); "
        "t = time.monotonic(); model_of(files, spec); print(time.monotonic() - t)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True, cwd=REPOSITORY
    ).stdout
    return float(printed.split()[-1])


def _many_small(bench: Bench, table: Table) -> float:
    """A thousand partitions of ten rows against a hundred, and what one of them costs."""
    seconds = {count: _small_run(bench, f"small-{count}", count) for count in (FEW, MANY)}
    ratio = seconds[MANY] / seconds[FEW]
    table.add_row(
        f"{MANY} partitions of {ROWS_OF_TEN} rows : {FEW}",
        f"{seconds[MANY]:.1f} s : {seconds[FEW]:.1f} s",
        f"{ratio:.2f}",
        f"<= {LIMITS['partitions']:g}",
    )
    each = (seconds[MANY] - seconds[FEW]) / (MANY - FEW) * 1000
    table.add_row("orchestration overhead of a partition", f"{each:.1f} ms", "", "")
    return ratio


def _small_run(bench: Bench, name: str, count: int) -> float:
    bench.define(name, SMALL.format(name=name, quiet=3))
    _, record = bench.retrain(name, {f"{number:05}.csv": small_rows(number, ROWS_OF_TEN) for number in range(count)})
    return _seconds(record)


def _waves(bench: Bench, name: str) -> float:
    """Median seconds of the two fan-out waves over the year."""
    text = (REPOSITORY / "pipelines" / "flight-delays.yaml").read_text(encoding="utf-8")
    year = {f"2013-{month:02}.csv": month_csv(month) for month in YEAR}
    seconds = []
    for number in range(ROUNDS + 1):
        own = f"{name}-{number}"
        quiet = "quiet: {seconds: 0.5, longest_wait_seconds: 60}"
        bench.define(own, text.replace("name: flight-delays", f"name: {own}").rpartition("quiet:")[0] + quiet)
        _, record = bench.retrain(own, year)
        seconds.append(sum(step["seconds"] for step in record["steps"] if step["name"] in WAVES))
    return float(statistics.median(seconds[1:]))


def _seconds(record: Mapping[str, Any]) -> float:
    """From the end of the quiet period to the live model."""
    return float(sum(step["seconds"] for step in record["steps"] if step["name"] != "quiet"))


def small_rows(number: int, count: int) -> bytes:
    """A CSV of so many rows, an hour of its own for each file."""
    rng = random.Random(number)  # noqa: S311 (a seed makes it repeatable)
    lines = ["at,sold,price,town"]
    for index in range(count):
        day, minute = divmod(number * 17 + index, 24 * 60)
        at = f"2026-01-{1 + day % 28:02}T{minute // 60:02}:{minute % 60:02}:00Z"
        price, town = rng.uniform(1, 100), rng.choice(("Ghent", "Lille", "Porto"))
        sold = int(rng.random() < 1 / (1 + math.exp((price - 50) / 15)))
        lines.append(f"{at},{sold},{price:.2f},{town}")
    return ("\n".join(lines) + "\n").encode()


if __name__ == "__main__":
    sys.exit(main())
