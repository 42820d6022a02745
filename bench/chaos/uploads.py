"""What a seeded scenario uploads: files, their changes and removals, and what has to be in the dataset at the end."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Verb = Literal["put", "blocks", "copy", "delete"]
"""put: one request. blocks: staged in blocks, then committed. copy: copied from a blob outside. delete: removed."""

START = datetime(2026, 1, 1, tzinfo=UTC)
TOWNS = ("Ghent", "Lille", "Porto", "Turin")
SPEC = """
name: {name}
columns:
  at: timestamp
  sold: {{type: integer, minimum: 0, maximum: 1}}
  price: {{type: number, minimum: 0}}
  town: category
label: {{column: sold, negative: kept, positive: sold}}
time: at
training: {{rounds: 5, minimum_rows: 50, parameters: {{num_leaves: 5, min_data_in_leaf: 5}}}}
holdout: {{days: 1}}
categories: {{minimum_count: 2}}
quality: {{maximum_bad_rows: 0.2}}
gate: {{minimum_auc: 0.0, minimum_rows: 20, maximum_latency_ms: 1000}}
quiet: {{seconds: 0.1, longest_wait_seconds: 2}}
"""
DAYS, ROWS_A_DAY = 3, 40


@dataclass(frozen=True, slots=True)
class Upload:
    """One thing that a user does to `name` (within the pipeline's prefix), `pause` seconds after the one before."""

    verb: Verb
    name: str
    data: bytes
    pause: float


@dataclass(frozen=True, slots=True)
class Script:
    """What is done, in order; what is in storage afterwards, and which of that is fit for use."""

    uploads: tuple[Upload, ...]
    content: Mapping[str, bytes]
    usable: frozenset[str]


def script(seed: int) -> Script:
    """Two to four good files; then, by chance, one written over, one deleted, one that is bad, one that is mended."""
    rng = random.Random(f"uploads-{seed}")  # noqa: S311 (a seed makes it repeatable)
    names = [f"part-{number}.csv" for number in range(rng.randint(2, 4))]
    uploads = [_good(rng, name, number) for number, name in enumerate(names)]
    if rng.random() < 0.4:
        uploads.append(_good(rng, rng.choice(names), rng.randrange(len(names))))
    if rng.random() < 0.3:
        uploads.append(Upload("put", "bad.csv", b"at,sold\n2026-01-01T00:00:00Z,1\n", _pause(rng)))
        if rng.random() < 0.5:
            uploads.append(_good(rng, "bad.csv", len(names)))
    if rng.random() < 0.3 and len(names) > 2:
        uploads.append(Upload("delete", rng.choice(names[1:]), b"", _pause(rng)))
    content: dict[str, bytes] = {}
    for upload in uploads:
        if upload.verb == "delete":
            del content[upload.name]
        else:
            content[upload.name] = upload.data
    usable = frozenset(name for name, data in content.items() if b"price" in data)
    return Script(tuple(uploads), content, usable)


def rows(rng: random.Random, first_day: int, *, days: int = DAYS, per_day: int = ROWS_A_DAY) -> bytes:
    """A CSV whose label depends on price and town."""
    lines = ["at,sold,price,town"]
    for index in range(days * per_day):
        at = START + timedelta(days=first_day, seconds=index * 86_400 // per_day)
        price, town = rng.uniform(1, 100), rng.choice(TOWNS)
        lean = math.tanh((50 - price) / 15) + (1 if town in {"Ghent", "Turin"} else -1) / 2
        sold = int(rng.random() < (0.15 if lean < 0 else 0.85))
        lines.append(f"{at.isoformat()},{sold},{price:.3f},{town}")
    return ("\n".join(lines) + "\n").encode()


def _good(rng: random.Random, name: str, number: int) -> Upload:
    verb: Verb = rng.choice(("put", "put", "blocks", "copy"))
    return Upload(verb, name, rows(rng, number * DAYS), _pause(rng))


def _pause(rng: random.Random) -> float:
    """Mostly together, sometimes while the run is under way."""
    return rng.choice((0.0, 0.0, 0.05, 0.3, 1.0))
