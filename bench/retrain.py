"""How long a retrain takes from the event to the live model, beside a single script that does the same work.

`make bench-retrain` prints ratios of medians within one run: the whole stack is real, and warm.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobServiceClient
from rich.console import Console

from bench.report import Row, print_rows
from bench.trigger import trigger_times
from devhost.ports import free_ports
from local.flights import month_csv
from local.parts import REPOSITORY
from local.stack import LocalStack, Ports, start_stack

ROUNDS = 3
MONTHS = range(1, 13)
QUIET_SECONDS = 0.5
"""Lets the twelve uploads come together; it is not counted."""
WAVES = frozenset({"validate", "features"})
TURN_SECONDS = 0.01
FEW, MANY = 100, 1_000
ROWS_OF_TEN = 10
START = datetime(2026, 1, 1, tzinfo=UTC)
FOUR_WEEKS_MINUTES, STRIDE_MINUTES = 28 * 24 * 60, 397
PATIENCE_SECONDS, PATIENCE_PER_FILE = 900.0, 0.5
POLL_SECONDS, POLL_SHARE, IDLE_POLL_SECONDS = 0.05, 0.01, 0.5
"""To look costs the storage a while, so what takes long is looked at less often."""
EVENTS = 300
FLOOR_TIMES, WORKERS_TIMES, PARTITIONS_TIMES, TRIGGER_MS = 1.35, 1.6, 12.0, 50
PARTS = ("year", "partitions", "trigger", "workers")

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
        self.uploaded: dict[str, datetime] = {}
        """When the last of each pipeline's files was there."""
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

    def retrain(self, name: str, files: Mapping[str, bytes]) -> tuple[float, list[dict[str, Any]]]:
        """Uploads, then waits until runs have taken it all: seconds from the last upload, the runs' records in order.

        It looks into storage: to be asked for the status all the time would keep a worker from its work.
        """
        for file, data in files.items():
            self._storage.get_blob_client("training", f"{name}/{file}").upload_blob(data, overwrite=True)
        self.uploaded[name], started = datetime.now(UTC), time.monotonic()
        missing, records = {f"{name}/{file}" for file in files}, dict[str, dict[str, Any]]()
        runs = self._storage.get_container_client("runs")
        while (waited := time.monotonic() - started) < PATIENCE_SECONDS + PATIENCE_PER_FILE * len(files):
            for path in set(runs.list_blob_names(name_starts_with=f"{name}/")) - records.keys():
                records[path] = json.loads(runs.download_blob(path).readall())
                missing -= {entry["path"] for entry in records[path]["partitions"]}
            if not missing:
                seconds = time.monotonic() - started
                self._until_idle(name)
                return seconds, [records[path] for path in sorted(records)]
            time.sleep(POLL_SECONDS + POLL_SHARE * waited)
        raise RuntimeError(f"{name} has not come to an end: {len(missing)} files are not in {sorted(records)}")

    def one_run(self, name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
        """The record of the one run that takes all these files."""
        _, records = self.retrain(name, files)
        if len(records) > 1:
            raise RuntimeError(f"{name}: the files were spread over {len(records)} runs; its quiet period is too short")
        return records[0]

    def live_since(self, name: str) -> datetime:
        """When its champion went live."""
        pointer = self._storage.get_blob_client("models", f"{name}/live.json").download_blob().readall()
        return datetime.fromisoformat(json.loads(pointer)["since"])

    @contextmanager
    def half_a_processor_each(self) -> Iterator[None]:
        """One or two workers take turns on one processor, each half of the time, whether there are others or not."""
        workers = [int(worker["pid"]) for worker in self._get("/admin/host/status")["workers"]]
        for worker in workers:
            for thread in Path(f"/proc/{worker}/task").iterdir():
                os.sched_setaffinity(int(thread.name), {0})
        over = threading.Event()
        turns = threading.Thread(target=_take_turns, args=(workers, over))
        turns.start()
        try:
            yield
        finally:
            over.set()
            turns.join()

    def _until_idle(self, name: str) -> None:
        """What runs at the end of a run is over before something else is measured."""
        while self._get(f"/api/pipelines/{name}")["run"] is not None:
            time.sleep(IDLE_POLL_SECONDS)

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.stack.app_url + path, timeout=30) as answer:  # noqa: S310
            document: dict[str, Any] = json.load(answer)
        return document


def main(argv: Sequence[str]) -> int:
    """0 when every ratio is within its limit, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.retrain", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these: {', '.join(PARTS)}")
    parts = parser.parse_args(argv).parts or PARTS
    console, found = Console(highlight=False), list[Row]()
    for row in rows(parts):
        console.print(f"{row.what}: {row.measured}", markup=False)
        found.append(row)
    print_rows(console, found)
    return int(not all(row.held for row in found))


def rows(parts: Sequence[str]) -> Iterator[Row]:
    """What was asked and what was measured, as it comes."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-bench-")))
        bench = Bench(opened, folder / "two", workers=2)
        if "year" in parts:
            yield from _against_the_floor(*_years(bench, floor=folder))
        if "partitions" in parts:
            yield from _many_small(bench)
        if "trigger" in parts:
            yield from _trigger(bench)
    if "workers" in parts:
        yield _one_against_two(*(_slow_years(workers) for workers in (1, 2)))


def _slow_years(workers: int) -> list[Year]:
    """With so many workers, each as fast as half a processor, as instances of the cloud have processors of their own.

    Two of them then leave to the storage what it takes, which in the cloud is another machine.
    """
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-bench-")))
        bench = Bench(opened, folder, workers)
        with bench.half_a_processor_each():
            return _years(bench)[0]


def _take_turns(workers: Sequence[int], over: threading.Event) -> None:
    for turn in cycle((0, 1)):
        for number, worker in enumerate(workers):
            os.kill(worker, signal.SIGCONT if number == turn else signal.SIGSTOP)
        if over.wait(TURN_SECONDS):
            break
    for worker in workers:
        os.kill(worker, signal.SIGCONT)


@dataclass(frozen=True, slots=True)
class Year:
    """A run over a year of flights: seconds from its last upload to the live model, without the quiet period."""

    live: float
    steps: Mapping[str, float]

    @property
    def waves(self) -> float:
        """Seconds of the two fan-out waves."""
        return sum(seconds for name, seconds in self.steps.items() if name in WAVES)


def _years(bench: Bench, floor: Path | None = None) -> tuple[list[Year], list[float]]:
    """Runs of pipelines that have nothing yet, on warm workers; and the seconds of the script after each of them."""
    text = (REPOSITORY / "pipelines" / "flight-delays.yaml").read_text(encoding="utf-8").rpartition("quiet:")[0]
    files = {f"2013-{month:02}.csv": month_csv(month) for month in MONTHS}
    years, floors = [], []
    for number in range(ROUNDS + 1):
        name = f"year-{number}"
        quiet = f"quiet: {{seconds: {QUIET_SECONDS}, longest_wait_seconds: 60}}"
        bench.define(name, text.replace("name: flight-delays", f"name: {name}") + quiet)
        record = bench.one_run(name, files)
        live = (bench.live_since(name) - bench.uploaded[name]).total_seconds() - QUIET_SECONDS
        years.append(Year(live, {step["name"]: step["seconds"] for step in record["steps"]}))
        if floor is not None:
            floors.append(_floor_seconds(files, floor))
    return years[1:], floors[1:]  # the first run warms the workers


def _against_the_floor(years: Sequence[Year], floors: Sequence[float]) -> Iterator[Row]:
    live, floor = statistics.median(year.live for year in years), statistics.median(floors)
    what, measured = "a year of flights, event to live : single script", f"{live:.2f} s : {floor:.2f} s"
    yield _ratio(what, measured, live / floor, most=FLOOR_TIMES)
    medians = {name: statistics.median(year.steps[name] for year in years) for name in years[0].steps}
    yield Row("its steps, seconds", "", ", ".join(f"{name} {seconds:.2f}" for name, seconds in medians.items()), True)


def _one_against_two(one: Sequence[Year], two: Sequence[Year]) -> Row:
    alone, together = (statistics.median(year.waves for year in years) for years in (one, two))
    asked, measured = f"at least {WORKERS_TIMES}", f"{alone:.2f} s : {together:.2f} s, {alone / together:.2f}"
    return Row(
        "fan-out waves, half a processor a worker, one worker : two", asked, measured, alone / together >= WORKERS_TIMES
    )


def _ratio(what: str, measured: str, ratio: float, *, most: float) -> Row:
    return Row(what, f"at most {most:g}", f"{measured}, {ratio:.2f}", ratio <= most)


def _trigger(bench: Bench) -> Iterator[Row]:
    """What the trigger takes for an event, with a run of the pipeline in its quiet period."""
    bench.define("events", SMALL.format(name="events", quiet=3600).replace("wait_seconds: 60", "wait_seconds: 7200"))
    new, known = trigger_times(bench.stack.app_url, "events", EVENTS)
    for what, times in (("a new blob", new), ("a blob that is known", known)):
        measured = f"median {statistics.median(times):.1f} ms, p99 {_p99(times):.1f} ms"
        yield Row(f"the trigger, of {what}", f"under {TRIGGER_MS} ms", measured, _p99(times) < TRIGGER_MS)


def _p99(times: Sequence[float]) -> float:
    return times[math.ceil(0.99 * len(times)) - 1]


def _floor_seconds(files: Mapping[str, bytes], folder: Path) -> float:
    """In a process of its own that is warm: imports are not counted, as they are not for warm workers."""
    for name, data in files.items():
        (folder / name).write_bytes(data)
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


def _many_small(bench: Bench) -> Iterator[Row]:
    """A thousand partitions of ten rows against a hundred, and what one of them costs."""
    seconds = {count: _small_run(bench, f"small-{count}", count) for count in (FEW, MANY)}
    measured = f"{seconds[MANY]:.1f} s : {seconds[FEW]:.1f} s"
    what = f"{MANY} partitions of {ROWS_OF_TEN} rows : {FEW}"
    yield _ratio(what, measured, seconds[MANY] / seconds[FEW], most=PARTITIONS_TIMES)
    each = (seconds[MANY] - seconds[FEW]) / (MANY - FEW) * 1000
    yield Row("overhead of a partition", "", f"{each:.1f} ms", True)


def _small_run(bench: Bench, name: str, count: int) -> float:
    bench.define(name, SMALL.format(name=name, quiet=3))
    record = bench.one_run(name, {f"{number:05}.csv": small_rows(number, ROWS_OF_TEN) for number in range(count)})
    return _seconds(record)


def _seconds(record: Mapping[str, Any]) -> float:
    """From the end of the quiet period to the live model."""
    return float(sum(step["seconds"] for step in record["steps"] if step["name"] != "quiet"))


def small_rows(number: int, count: int) -> bytes:
    """A CSV of so many rows, spread over four weeks."""
    rng = random.Random(number)  # noqa: S311 (a seed makes it repeatable)
    lines = ["at,sold,price,town"]
    for index in range(count):
        minute = (number * 17 + index) * STRIDE_MINUTES % FOUR_WEEKS_MINUTES
        at = START + timedelta(minutes=minute)
        price, town = rng.uniform(1, 100), rng.choice(("Ghent", "Lille", "Porto"))
        sold = int(rng.random() < 1 / (1 + math.exp((price - 50) / 15)))
        lines.append(f"{at.isoformat()},{sold},{price:.2f},{town}")
    return ("\n".join(lines) + "\n").encode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
