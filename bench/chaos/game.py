"""One scenario after the other: uploads under faults, then the referee's verdict."""

from __future__ import annotations

import base64
import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobServiceClient

from bench.chaos.arena import OUTSIDE, Arena
from bench.chaos.customer import Customer
from bench.chaos.proxy import FAIR, FaultProxy, Trap, Weather
from bench.chaos.referee import Referee, Verdict
from bench.chaos.scenarios import BOUNDARIES, EVENT_FAULTS, Scenario
from bench.chaos.uploads import SPEC, Script, Upload, script
from devhost.eventgrid.faults import parse_faults

SEATS = 4
"""Scenarios that one stack plays at the same time: most of a scenario is waiting."""
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
        """One scenario, alone."""
        (result,) = self.play_together([scenario])
        return result

    def play_together(self, scenarios: Sequence[Scenario]) -> Iterator[Result]:
        """Scenarios of one setting, SEATS at a time; results as they come."""
        first = scenarios[0]
        events = EVENT_FAULTS if first.events else ()
        self._arena.set(events=events, seed=self._seed, skew=first.skew, two_hosts=first.two_hosts)
        for proxy in self._proxies:
            proxy.clear()
        if first.storage:  # what is nobody's own fares as the first one does
            self._arena.blob.weather = self._arena.table.weather = Weather(first.seed, first.storage)
        with ThreadPoolExecutor(SEATS) as seats:
            for playing in as_completed([seats.submit(self._guarded, scenario) for scenario in scenarios]):
                yield playing.result()

    def _guarded(self, scenario: Scenario) -> Result:
        """From the pipeline's file to the verdict; the file is taken away. What breaks the game is a loss, too."""
        started = time.monotonic()
        try:
            return self._play(scenario)
        except Exception as exc:
            verdict = Verdict((f"{type(exc).__name__}: {exc}",), 0, 0, time.monotonic() - started)
            return Result(scenario, verdict, Counter(), 0, 0, Counter())
        finally:
            (self._arena.pipelines / f"{scenario.pipeline}.yaml").unlink(missing_ok=True)

    def _play(self, scenario: Scenario) -> Result:
        name, todo = scenario.pipeline, script(scenario.seed)
        self._write_spec(name)
        self._customer.ask_about(name)
        started, killed = time.monotonic(), self._arena.killed
        try:
            with self._faults(scenario):
                self._upload_all(name, todo)
                verdict = Referee(self._arena, name).judge(todo, started=started)
        finally:
            # The canary's answers, and what hit nobody's requests, are told with whoever ends first.
            met = self._customer.leave(name) + self._customer.take(self._canary)
        faults = sum((proxy.take(name.encode()) for proxy in self._proxies), Counter[str]())
        faults["kill"] = self._arena.killed - killed
        faults += self._event_faults(name, todo) if scenario.events else Counter()
        faults["down"] = int(bool(scenario.storage_down)) + int(bool(scenario.registry_down))
        faults["skew"] = int(bool(scenario.skew))
        faults["second host"] = int(scenario.two_hosts)
        del faults["trap"]  # it is counted as the kill that it was set for
        return Result(scenario, verdict, +faults, met.answers, met.repeated, met.errors)

    @property
    def _proxies(self) -> tuple[FaultProxy, ...]:
        return self._arena.blob, self._arena.table, self._arena.mlflow

    def _write_spec(self, name: str) -> None:
        (self._arena.pipelines / f"{name}.yaml").write_text(SPEC.format(name=name), encoding="utf-8")

    @contextlib.contextmanager
    def _faults(self, scenario: Scenario) -> Iterator[None]:
        arena, name = self._arena, scenario.pipeline.encode()
        for proxy in (arena.blob, arena.table):
            proxy.local[name] = Weather(scenario.seed, scenario.storage)
        if scenario.alone:
            # Of the registry's requests many have no name in them.
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
            for proxy in self._proxies:
                proxy.local.pop(name, None)
                if scenario.alone:
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
