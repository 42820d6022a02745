"""One scenario after the other: uploads under faults, then the referee's verdict."""

from __future__ import annotations

import base64
import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobServiceClient

from bench.chaos.arena import OUTSIDE, Arena
from bench.chaos.customer import Customer
from bench.chaos.proxy import FAIR, Trap, Weather
from bench.chaos.referee import Referee, Verdict
from bench.chaos.scenarios import BOUNDARIES, EVENT_FAULTS, Scenario
from bench.chaos.uploads import SPEC, Script, Upload, script
from devhost.eventgrid.faults import parse_faults

CANARY = "canary"
"""The pipeline that is live from the start and asked throughout."""


@dataclass(frozen=True, slots=True)
class Result:
    """A scenario's verdict, what was injected, and what the customer met."""

    scenario: Scenario
    verdict: Verdict
    faults: Counter[str]
    answers: int
    repeated: int
    errors: Counter[str]

    @property
    def lost(self) -> bool:
        return bool(self.verdict.losses or self.errors)


class Game:
    """Plays scenarios in one arena."""

    def __init__(self, arena: Arena, customer: Customer, *, seed: int, canary: str = CANARY) -> None:
        self._arena, self._customer, self._seed, self._canary = arena, customer, seed, canary
        self._storage = BlobServiceClient.from_connection_string(arena.storage)

    def open(self) -> None:
        """Makes the canary live."""
        self._write_spec(self._canary)
        started, first = time.monotonic(), script(0)
        self._upload_all(self._canary, first)
        verdict = Referee(self._arena, self._canary).judge(first, started=started)
        if verdict.losses:
            raise RuntimeError(f"the stack does not work even without faults: {verdict.losses}")
        self._customer.ask_about(self._canary)

    def play(self, scenario: Scenario) -> Result:
        """One scenario, from its pipeline's file to the verdict; what breaks the game itself is a loss, too."""
        started = time.monotonic()
        try:
            return self._play(scenario)
        except Exception as exc:
            verdict = Verdict((f"{type(exc).__name__}: {exc}",), 0, 0, time.monotonic() - started)
            return Result(scenario, verdict, Counter(), 0, 0, Counter())
        finally:
            (self._arena.pipelines / f"{scenario.pipeline}.yaml").unlink(missing_ok=True)

    def _play(self, scenario: Scenario) -> Result:
        events = EVENT_FAULTS if scenario.events else ()
        self._arena.set(events=events, seed=self._seed, skew=scenario.skew, two_hosts=scenario.two_hosts)
        name, todo = scenario.pipeline, script(scenario.seed)
        self._write_spec(name)
        self._customer.ask_about(self._canary, name)
        self._customer.take()
        started, killed = time.monotonic(), self._arena.killed
        with self._faults(scenario):
            self._upload_all(name, todo)
            verdict = Referee(self._arena, name).judge(todo, started=started)
        faults = sum((p.clear() for p in (self._arena.blob, self._arena.table, self._arena.mlflow)), Counter[str]())
        faults["kill"] = self._arena.killed - killed
        faults += self._event_faults(name, todo) if scenario.events else Counter()
        faults["down"] = int(bool(scenario.storage_down)) + int(bool(scenario.registry_down))
        faults["skew"] = int(bool(scenario.skew))
        faults["second host"] = int(scenario.two_hosts)
        self._customer.ask_about(self._canary)
        answers, repeated, errors = self._customer.take()
        del faults["trap"]  # it is counted as the kill that it was set for
        return Result(scenario, verdict, +faults, answers, repeated, errors)

    def _write_spec(self, name: str) -> None:
        (self._arena.pipelines / f"{name}.yaml").write_text(SPEC.format(name=name), encoding="utf-8")

    @contextlib.contextmanager
    def _faults(self, scenario: Scenario) -> Iterator[None]:
        arena = self._arena
        for proxy in (arena.blob, arena.table):
            proxy.weather = Weather(scenario.seed, scenario.storage)
        arena.mlflow.weather = Weather(scenario.seed, scenario.registry)
        if scenario.boundary:
            pattern = re.compile(b"^PUT .*" + BOUNDARIES[scenario.boundary].encode())
            arena.blob.trap = Trap(pattern, scenario.after, lambda: arena.kill(scenario.victim or "workers"))
        timers = [_later(moment, lambda: arena.kill(scenario.victim or "workers")) for moment in scenario.kills]
        if scenario.storage_down:
            timers += self._outage(scenario.storage_down, "storage")
        if scenario.registry_down:
            timers += self._outage(scenario.registry_down, "registry")
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()
                timer.join()
            for proxy in (arena.blob, arena.table, arena.mlflow):
                proxy.weather, proxy.trap = FAIR, None

    def _outage(self, seconds: float, which: str) -> list[threading.Timer]:
        arena = self._arena
        proxies = [arena.blob, arena.table] if which == "storage" else [arena.mlflow]

        def set_down(*, down: bool) -> None:
            for proxy in proxies:
                proxy.weather = Weather(down=down)

        begin = 0.3 if which == "storage" else 0.0
        return [
            _later(begin, lambda: set_down(down=True)),
            _later(begin + seconds, lambda: set_down(down=False)),
        ]

    def _upload_all(self, pipeline: str, todo: Script) -> None:
        for upload in todo.uploads:
            time.sleep(upload.pause)
            self._upload(f"{pipeline}/{upload.name}", upload)

    def _upload(self, path: str, upload: Upload) -> None:
        blob = self._storage.get_blob_client("training", path)
        if upload.verb == "delete":
            with contextlib.suppress(ResourceNotFoundError):
                blob.delete_blob()
        elif upload.verb == "blocks":
            half = len(upload.data) // 2
            ids = [base64.b64encode(str(number).encode()).decode() for number in (1, 2)]
            for block, data in zip(ids, (upload.data[:half], upload.data[half:]), strict=True):
                blob.stage_block(block, data)
            blob.commit_block_list([BlobBlock(block) for block in ids])
        elif upload.verb == "copy":
            outside = self._storage.get_blob_client(OUTSIDE, path)
            outside.upload_blob(upload.data, overwrite=True)
            blob.start_copy_from_url(outside.url)
        else:
            blob.upload_blob(upload.data, overwrite=True)

    def _event_faults(self, pipeline: str, todo: Script) -> Counter[str]:
        """What the local Event Grid did to this scenario's events: it decides by a hash, so it can be computed."""
        faults, counted, nth = parse_faults(EVENT_FAULTS, seed=self._seed), Counter[str](), Counter[str]()
        for upload in todo.uploads:
            kind = "BlobDeleted" if upload.verb == "delete" else "BlobCreated"
            subject = f"/blobServices/default/containers/training/blobs/{pipeline}/{upload.name}"
            nth[kind + subject] += 1
            fate = faults.fate("on_training_blob", f"Microsoft.Storage.{kind} {subject} {nth[kind + subject]}")
            counted["event dropped"] += int(fate.dropped)
            counted["event twice"] += int(len(fate.waits) > 1)
            counted["event late"] += int(any(fate.waits) and len(fate.waits) >= 1 and fate.waits[0] > 0)
            counted["event overtaken"] += int(fate.overtaken)
        return counted


def _later(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer
