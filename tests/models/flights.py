"""Rows that look like flights, and a small pipeline over them: data for the tests of `models`."""

from __future__ import annotations

import gzip
import io
import random
from pathlib import Path

import polars as pl

from models.spec import PipelineSpec, parse_spec

ROOT = Path(__file__).parents[2]
PIPELINE = """\
name: small
columns:
  when: timestamp
  delay: {type: number, minimum: -200, maximum: 3000}
  carrier: category
  origin: {type: category, allowed: [EWR, JFK, LGA]}
  distance: {type: number, minimum: 0}
  hour: {type: integer, required: true}
  weekend: boolean
label: {expression: delay > 15}
time: when
categories: {minimum_count: 2, maximum: 3}
quality: {maximum_bad_rows: 1}
"""
HEADER = "when,delay,carrier,origin,distance,hour,weekend"
GOOD = "2013-04-01T05:00:00Z,20,UA,JFK,100.5,5,true"


def small(**changes: str) -> PipelineSpec:
    """The small pipeline; a keyword replaces the line that begins with it."""
    lines = [changes.pop(line.partition(":")[0].strip(), line) for line in PIPELINE.splitlines()]
    assert not changes
    return parse_spec("\n".join(lines), source="small.yaml")


def flight_delays() -> PipelineSpec:
    """The pipeline that the project ships."""
    path = ROOT / "pipelines" / "flight-delays.yaml"
    return parse_spec(path.read_text(encoding="utf-8"), source=path.name)


def csv(*lines: str) -> bytes:
    """A CSV of the small pipeline's columns."""
    return "\n".join([HEADER, *lines]).encode()


def rows(count: int, *, seed: int = 7) -> pl.DataFrame:
    """Raw rows of the small pipeline, some cells missing; the same for the same seed."""
    dice = random.Random(seed)

    def maybe[T](value: T) -> T | None:
        return None if dice.random() < 0.1 else value

    return pl.DataFrame(
        [
            {
                "when": f"2013-04-{dice.randint(1, 30):02d}T{dice.randint(0, 23):02d}:30:00",
                "delay": maybe(float(dice.randint(-60, 200))),
                "carrier": maybe(dice.choice(["UA", "AA", "B6", "DL", "Ü8", "quoted, one"])),
                "origin": maybe(dice.choice(["EWR", "JFK", "LGA"])),
                "distance": maybe(round(dice.uniform(50, 5000), 3)),
                "hour": dice.randint(0, 23),
                "weekend": maybe(dice.random() < 0.3),
            }
            for _ in range(count)
        ],
        schema_overrides={"delay": pl.Float64, "distance": pl.Float64},
    )


def files(frame: pl.DataFrame) -> dict[str, bytes]:
    """The same rows as each type of file, by a name of that type."""
    text = frame.write_csv(null_value="NA").encode()
    parquet = io.BytesIO()
    frame.with_columns(pl.col("when").str.to_datetime("%Y-%m-%dT%H:%M:%S")).write_parquet(parquet)
    return {
        "a.csv": text,
        "b.CSV": b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"),
        "c.csv.gz": gzip.compress(text[: len(text) // 2]) + gzip.compress(text[len(text) // 2 :]),
        "d.parquet": parquet.getvalue(),
        "e.jsonl": frame.write_ndjson().encode(),
    }
