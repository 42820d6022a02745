"""A pipeline in memory: fake storage, ledger and registry, and a run that calls the activities one after another."""

from __future__ import annotations

import json
import math
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from activities.contracts import Claimed, Done, Finish, Fitted, ItemRef, Judged, RunRef
from activities.dependencies import Dependencies
from activities.evaluate import evaluate
from activities.export import export
from activities.fit import fit
from activities.illustrate import illustrate
from activities.judge import judge
from activities.promote import align, promote
from activities.register import register
from activities.settle import settle
from activities.train import train
from activities.transform import transform
from activities.uploads import TRAINING, claim
from activities.validate import validate
from adapters.ledger import Sighting
from adapters.outbox import Outbox
from adapters.specs import SpecFiles
from tests.fakes.blobs import MemoryBlobs
from tests.fakes.ledger import MemoryLedger
from tests.fakes.registry import Listener, MemoryRegistry, at_once

PIPELINE = "shops"
SPEC = """
name: shops
columns:
  at: timestamp
  sold: {type: integer, minimum: 0, maximum: 1}
  price: {type: number, minimum: 0}
  town: category
label: {column: sold, negative: kept, positive: sold}
time: at
training: {rounds: 40, minimum_rows: 100, parameters: {num_leaves: 7, min_data_in_leaf: 10}}
holdout: {days: 2}
categories: {minimum_count: 2}
quality: {maximum_bad_rows: 0.2}
gate: {minimum_rows: 50, maximum_latency_ms: 1000}
quiet: {seconds: 0, longest_wait_seconds: 0}
"""
START = datetime(2026, 1, 1, tzinfo=UTC)
TODAY = START + timedelta(days=365)
TOWNS = ("Ghent", "Lille", "Porto", "Turin")


def rows(first_day: int, days: int = 10, *, seed: int = 0, per_day: int = 60, noise: float = 0.3) -> bytes:
    """A CSV whose label depends on price and town, the more so the less noise there is."""
    rng = random.Random(f"{seed}-{first_day}")
    lines = ["at,sold,price,town"]
    for index in range(days * per_day):
        at = START + timedelta(days=first_day) + timedelta(seconds=index * 86_400 // per_day)
        price, town = rng.uniform(1, 100), rng.choice(TOWNS)
        lean = math.tanh((50 - price) / 15) + (1 if town in {"Ghent", "Turin"} else -1) / 2
        sold = int(rng.random() < (noise / 2 if lean < 0 else 1 - noise / 2))
        lines.append(f"{at.isoformat()},{sold},{price:.3f},{town}")
    return ("\n".join(lines) + "\n").encode()


class World:
    """One pipeline, `shops` if nothing else is said, with a run's steps as one call."""

    def __init__(
        self, directory: Path, spec: str = SPEC, *, pipeline: str = PIPELINE, blobs: MemoryBlobs | None = None
    ) -> None:
        self.blobs, self.ledger = blobs or MemoryBlobs(), MemoryLedger()
        self.mlflow, self.events = MemoryRegistry(), Listener()
        self.outbox = Outbox(self.blobs, self.events, at_once)
        self.pipelines, self.pipeline = directory, pipeline
        self.now = TODAY
        self.runs = 0
        self.times = 1
        self.payloads: list[dict[str, Any]] = []
        self.write_spec(spec)
        self.to = Dependencies(
            blobs=self.blobs,
            ledger=self.ledger,
            registry=lambda: self.mlflow,
            events=self.outbox,
            specs=SpecFiles(directory),
            threads=1,
            clock=self.clock,
        )

    def copy(self, directory: Path) -> World:
        """The same world again, to be changed on its own: what took long to make is made once."""
        twin = World(directory, (self.pipelines / f"{PIPELINE}.yaml").read_text(encoding="utf-8"))
        twin.now, twin.runs = self.now, self.runs
        for source, target in (
            (self.blobs, twin.blobs),
            (self.ledger, twin.ledger),
            (self.mlflow, twin.mlflow),
            (self.events, twin.events),
        ):
            for name, value in vars(source).items():
                if isinstance(value, dict | list | set):
                    setattr(target, name, type(value)(value))
        return twin

    def clock(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def write_spec(self, text: str) -> None:
        (self.pipelines / f"{self.pipeline}.yaml").write_text(text, encoding="utf-8")

    def upload(self, name: str, data: bytes) -> str:
        """An upload and its event; the partition's path."""
        self.blobs.put(f"{TRAINING}/{self.pipeline}/{name}", data)
        return self._seen(name, len(data))

    def upload_file(self, name: str, file: Path) -> str:
        """The same of a file that may be large."""
        self.blobs.put_file(f"{TRAINING}/{self.pipeline}/{name}", file)
        return self._seen(name, file.stat().st_size)

    def _seen(self, name: str, size: int) -> str:
        path = f"{self.pipeline}/{name}"
        etag = self.blobs.head(f"{TRAINING}/{path}").etag
        self.ledger.see(self.pipeline, Sighting(path, etag, size), now=self.to.now())
        return path

    def start(self, *, force: bool = False) -> RunRef:
        self.runs += 1
        return RunRef(self.pipeline, f"run-{self.runs}", self.to.now(), force)

    def run(self, run: RunRef | None = None) -> dict[str, Any]:
        """Every step as the orchestration calls it; the run's record."""
        run = run or self.start()
        outcome, sentence = self.steps(run)
        self.settle(run, outcome, sentence)
        record: dict[str, Any] = self.read(f"runs/{self.pipeline}/{run.run}.json")
        return record

    def steps(self, run: RunRef) -> tuple[str, str]:
        return self.after_claim(run, self.call(claim, run))

    def after_claim(self, run: RunRef, claimed: Claimed) -> tuple[str, str]:
        self.fan_out(validate, run, claimed.todo)
        fitted: Fitted = self.call(fit, run)
        if fitted.ended:
            return fitted.ended, fitted.sentence
        self.fan_out(transform, run, fitted.todo)
        trained: Done = self.call(train, run)
        if trained.ended:
            return trained.ended, trained.sentence
        exported: Done = self.call(export, run)
        if exported.ended:
            return exported.ended, exported.sentence
        self.call(evaluate, run)
        judged: Judged = self.call(judge, run)
        self.call(register, run)
        outcome = self.promotion(run, judged)
        self.call(illustrate, run)
        return outcome

    def promotion(self, run: RunRef, judged: Judged) -> tuple[str, str]:
        if not judged.promote:
            return "kept", judged.sentence
        promoted: Done = self.call(promote, run)
        if promoted.ended:
            return promoted.ended, promoted.sentence
        self.call(align, run)
        return "promoted", judged.sentence

    def call(self, activity: Any, request: Any) -> Any:
        """One activity, `times` times, as when its completion was lost; the first answer."""
        answers = [activity(request, self.to) for _ in range(self.times)]
        self.payloads += [request.to_dict(), *(answer.to_dict() for answer in answers)]
        return answers[0]

    def fan_out(self, activity: Any, run: RunRef, todo: int) -> None:
        for index in range(todo):
            self.call(activity, ItemRef(run.pipeline, run.run, index // 100, index % 100))

    def settle(self, run: RunRef, outcome: str, sentence: str) -> None:
        settle(Finish(run.pipeline, run.run, run.started, outcome, sentence, (1.0, 2.0), (0.5, 1.5), 2), self.to)

    def read(self, path: str) -> Any:
        return json.loads(self.blobs.get(path).data)
