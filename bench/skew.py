"""Loads that are out of balance: one huge partition, very many tiny ones, many pipelines at once. `make bench-skew`.

What is asserted is not a time but that nothing grows with the load: what crosses an activity's boundary stays below
4 KB, and no history gets long.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from activities.contracts import MAX_PAYLOAD_BYTES
from bench.retrain import SMALL, Bench, small_rows
from bench.sweep import BLOBS, Load, sweep_loads
from devhost.durable_gate import DATABASE

MILLION = 1_000_000
TINY = 10_000
PIPELINES = 20
MAX_EVENTS = 2_500
"""Longest history allowed: a batch of a hundred items that all fail a few times stays below it."""
PAYLOADS = ("Input", "Result")


def main(argv: Sequence[str]) -> int:
    """0 when payloads and histories stay small, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.skew", description=__doc__)
    parser.add_argument("--tiny", type=int, default=TINY, metavar="N", help="how many partitions of ten rows")
    parser.add_argument("--blobs", type=int, default=BLOBS, metavar="N", help="how many the sweep has to look at")
    arguments = parser.parse_args(argv)
    table, console = Table("load", "seconds", "outcome"), Console(highlight=False)
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-skew-")))
        bench = Bench(opened, folder, workers=2)
        for load in _loads(bench, arguments.tiny):
            _tell(load, console, table)
        largest, longest = sizes(folder / "data" / "host" / DATABASE)
    for load in sweep_loads(arguments.blobs):
        _tell(load, console, table)
    console.print(table)
    console.print(f"largest payload {largest} bytes, limit {MAX_PAYLOAD_BYTES}")
    console.print(f"longest history {longest} events, limit {MAX_EVENTS}")
    return int(largest > MAX_PAYLOAD_BYTES or longest > MAX_EVENTS)


def sizes(database: Path) -> tuple[int, int]:
    """The largest input or output of any activity or orchestration in a task hub, and the longest history."""
    with closing(sqlite3.connect(database)) as hub:
        events = [(instance, json.loads(text)) for instance, text in hub.execute("SELECT id, event FROM history")]
    lengths: dict[str, int] = {}
    for instance, _ in events:
        lengths[instance] = lengths.get(instance, 0) + 1
    payloads = [len(str(event[name])) for _, event in events for name in PAYLOADS if event.get(name)]
    return max(payloads, default=0), max(lengths.values(), default=0)


def _tell(load: Load, console: Console, table: Table) -> None:
    """It takes most of an hour: each figure is told when it is there."""
    console.print(f"{load.what}: {load.seconds:.1f} s, {load.outcome}")
    table.add_row(load.what, f"{load.seconds:.1f}", load.outcome)


def _loads(bench: Bench, tiny: int) -> Iterator[Load]:
    bench.define("huge", SMALL.format(name="huge", quiet=0.2))
    seconds, records = bench.retrain("huge", {"all.csv": huge(MILLION)})
    yield Load(f"one partition of {MILLION:,} rows", seconds, records[-1]["outcome"])
    bench.define("tiny", SMALL.format(name="tiny", quiet=10))
    seconds, records = bench.retrain("tiny", {f"{number:05}.csv": small_rows(number, 10) for number in range(tiny)})
    yield Load(f"{tiny:,} partitions of ten rows", seconds, f"{records[-1]['outcome']}, in {len(records)} runs")
    yield _many_pipelines(bench)


def _many_pipelines(bench: Bench) -> Load:
    outcomes: list[str] = []

    def one(name: str) -> None:
        bench.define(name, SMALL.format(name=name, quiet=0.5))
        files = {f"{number}.csv": small_rows(number * 400, 200) for number in range(3)}
        outcomes.append(bench.retrain(name, files)[1][-1]["outcome"])

    threads = [threading.Thread(target=one, args=(f"many-{number}",)) for number in range(PIPELINES)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(outcomes) != PIPELINES:
        raise RuntimeError(f"of {PIPELINES} pipelines {len(outcomes)} came to an end")
    summary = ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in sorted(set(outcomes)))
    return Load(f"{PIPELINES} pipelines at once", time.monotonic() - started, summary)


def huge(count: int) -> bytes:
    """A CSV of so many rows over four weeks."""
    rng = np.random.default_rng(7)
    price = rng.uniform(1, 100, count).round(2)
    start = pl.datetime(2026, 1, 1)
    frame = pl.DataFrame(
        {
            "second": np.linspace(0, 28 * 86_400 - 1, count).astype(np.int64),
            "sold": (rng.random(count) < 1 / (1 + np.exp((price - 50) / 15))).astype(np.int8),
            "price": price,
            "town": rng.choice(["Ghent", "Lille", "Porto"], count),
        }
    )
    at = (start + pl.duration(seconds=pl.col("second"))).dt.to_string("%Y-%m-%dT%H:%M:%SZ").alias("at")
    return frame.select(at, "sold", "price", "town").write_csv().encode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
