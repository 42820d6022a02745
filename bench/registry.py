"""How long a wish takes to be served: an alias that is moved, and a rollback without MLflow. `make bench-registry`.

The whole of the local stack but for the local Event Grid: Azurite, MLflow with its webhook, the host with two workers.
Two really different models take turns. A move is over when every worker has answered with the other version. Only the
webhook looks at the alias: the reconciler's timer is years away. What was waited for in the slowest move of each kind
is printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobServiceClient
from rich.console import Console

from adapters.azure_blobs import AzureBlobStore
from adapters.blobs import BlobNotFound
from adapters.settings import read_settings
from bench.machine import machine
from bench.report import Row, print_rows
from bench.trees import point, publish, rows, trees
from devhost.azurite import AzuritePorts, azurite_part
from devhost.ports import free_ports
from devhost.supervisor import PartFailed, Supervisor
from local.flights import PIPELINE
from local.parts import CONTAINERS, MLFLOW, REPOSITORY, Places, host_part, mlflow_part
from local.webhook import WebhookNotMade, subscribe

WORKERS, MOVES, ROLLBACKS, HUNG = 2, 20, 20, 5
BAR_SECONDS = 2.0
PATIENCE_SECONDS = 60.0
SECRET = "bench"  # noqa: S105 (of a stack that lives for minutes on loopback)
NEVER = "0 0 0 1 1 *"
SEED = 7
AFTER_SECONDS = 0.2
"""So long after a move is over, lines of the log still belong to it."""
LOGGED = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})\] (.*)")


@dataclass(frozen=True, slots=True)
class Moved:
    """Seconds from before the move was asked for, which was at `begun` (seconds since 1970): until that was answered,
    until the pointer was written, and until each worker (by its process) served it.
    """

    begun: float
    answered: float
    pointed: float
    by_worker: Mapping[str, float]

    @property
    def served(self) -> float:
        """Until every worker did."""
        return max(self.by_worker.values())


class Bench:
    """The stack with two versions, the first of them live and with the alias."""

    def __init__(self, folder: Path, supervisor: Supervisor) -> None:
        blob, queue, table, app, mlflow, events = free_ports(6)
        self.places = Places(folder, AzuritePorts(blob, queue, table), app, mlflow, events)
        self.supervisor = supervisor
        supervisor.start(azurite_part(folder / "azurite", self.places.azurite), mlflow_part(self.places))
        with BlobServiceClient.from_connection_string(self.places.azurite.connection_string) as service:
            for name in CONTAINERS:
                service.create_container(name)
        # Nobody listens here: no topic, and so no local Event Grid.
        env = {
            "RATCHET_RECONCILE_SCHEDULE": NEVER,
            "RATCHET_SWEEP_SCHEDULE": NEVER,
            "RATCHET_EVENTS_TOPIC_ENDPOINT": "",
        }
        host = host_part(self.places, app_dir=REPOSITORY, workers=WORKERS, topic_key="", webhook_secret=SECRET, env=env)
        supervisor.start(host)
        subscribe(self.places.mlflow_url, self.places.app_url, SECRET)
        settings = read_settings({"AzureWebJobsStorage": self.places.azurite.connection_string})
        self.blobs = AzureBlobStore.from_settings(settings)
        self.row = rows(1)[0]
        self.random = random.Random(SEED)  # noqa: S311 (spreads the moves over the TTL)
        self._register()

    def _register(self) -> None:
        from mlflow.tracking import MlflowClient

        models = {1: trees((1, 2, 3)), 2: trees((6, 7, 8))}
        self.client = MlflowClient(self.places.mlflow_url, self.places.mlflow_url)
        run = self.client.create_run(self.client.create_experiment(PIPELINE))
        self.client.create_registered_model(PIPELINE)
        for version, model in models.items():
            publish(self.blobs, version, model)
            source = f"{run.info.artifact_uri}/model"
            self.client.create_model_version(PIPELINE, source, run_id=run.info.run_id, await_creation_for=0)
        point(self.blobs, 1, models[1], generation=1)
        self.client.set_registered_model_alias(PIPELINE, "champion", "1")
        self.until_served(1)
        while not self._aligned():
            time.sleep(0.05)

    def _aligned(self) -> bool:
        try:
            return bool(json.loads(self.blobs.get(f"models/{PIPELINE}/aligned.json").data)["version"] == 1)
        except BlobNotFound:
            return False

    def moves(self, count: int, move: Callable[[int], Any]) -> Iterator[Moved]:
        """Makes the versions take turns."""
        live = self.live()
        for _ in range(count):
            # A move falls anywhere between two looks at the pointer.
            time.sleep(self.random.uniform(0, 1.2))
            live = 3 - live
            clock, begun = time.time(), time.perf_counter()
            move(live)
            answered = time.perf_counter()
            seen = self.until_served(live)
            pointer = json.loads(self.blobs.get(f"models/{PIPELINE}/live.json").data)
            yield Moved(
                begun=clock,
                answered=answered - begun,
                pointed=datetime.fromisoformat(pointer["since"]).timestamp() - clock,
                by_worker={worker: at - begun for worker, at in seen.items()},
            )

    def until_served(self, version: int) -> dict[str, float]:
        """When each worker first answered with the version, by the performance counter. Raises RuntimeError when one
        does not in time.
        """
        workers = {str(worker["pid"]) for worker in self._ask("/admin/host/status")[1]["workers"]}
        deadline, seen = time.monotonic() + PATIENCE_SECONDS, dict[str, float]()
        while seen.keys() != workers:
            headers, _ = self._predict()
            if headers.get("x-ratchet-model-version") == str(version):
                seen.setdefault(headers["x-ratchet-worker"], time.perf_counter())
            if time.monotonic() > deadline:
                raise RuntimeError(f"version {version} was not served by every worker within {PATIENCE_SECONDS:g} s")
        return seen

    def what_was_waited_for(self, moved: Moved) -> list[str]:
        """What happened in a move, in order: what was seen from outside, and what host and workers logged meanwhile."""
        happened = [(moved.answered, "answered"), (moved.pointed, "the pointer is written")]
        happened += [(at, f"served by worker {worker}") for worker, at in moved.by_worker.items()]
        happened += [
            (at - moved.begun, line)
            for at, line in _logged(self.supervisor.log_dir / "host.log")
            if 0 <= at - moved.begun <= moved.served + AFTER_SECONDS
        ]
        return [f"  {seconds:7.3f} s  {what}" for seconds, what in sorted(happened)]

    def live(self) -> int:
        return int(self._predict()[0]["x-ratchet-model-version"])

    def by_alias(self, version: int) -> None:
        """What a click in the UI does."""
        self.client.set_registered_model_alias(PIPELINE, "champion", str(version))

    def by_rollback(self, version: int) -> None:
        body = {"version": version, "who": "bench", "why": "to see how long it takes"}
        self._ask(f"/api/pipelines/{PIPELINE}/rollback", body)

    @contextlib.contextmanager
    def hanging_mlflow(self) -> Iterator[None]:
        """MLflow takes connections and answers none."""
        group = self.supervisor.pid(MLFLOW)
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)

    def _predict(self) -> tuple[dict[str, str], Any]:
        try:
            return self._ask(f"/api/pipelines/{PIPELINE}/predict", self.row)
        except OSError:  # before the first model is there
            return {}, None

    def _ask(self, path: str, body: Any = None) -> tuple[dict[str, str], Any]:
        data = None if body is None else json.dumps(body, default=str).encode()
        request = urllib.request.Request(self.places.app_url + path, data=data)  # noqa: S310 (loopback)
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return headers, json.loads(answer.read() or b"null")


def _logged(log: Path) -> Iterator[tuple[float, str]]:
    """The lines of the host's log with when they were written (seconds since 1970)."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if (found := LOGGED.match(line)) is not None:
            yield datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").timestamp(), found[2]  # noqa: DTZ007 (local time)


def measured(what: str, seconds: Sequence[float]) -> Row:
    middle, longest = statistics.median(seconds), max(seconds)
    shown = f"median {middle:.2f} s, longest {longest:.2f} s of {len(seconds)}"
    return Row(what, f"under {BAR_SECONDS:g} s", shown, longest < BAR_SECONDS)


def main() -> int:
    """Prints the table; 1 when a bar is missed."""
    console = Console(highlight=False, width=160)
    folder = Path(tempfile.mkdtemp(prefix="bench-registry-"))
    try:
        with console.status("starting the stack") as status, Supervisor(folder / "logs") as supervisor:
            bench = Bench(folder, supervisor)
            status.update("moving the alias")
            moved = list(bench.moves(MOVES, bench.by_alias))
            status.update("rolling back while MLflow hangs")
            with bench.hanging_mlflow():
                hung = list(bench.moves(HUNG, bench.by_rollback))
            status.update("rolling back without MLflow")
            supervisor.kill(MLFLOW)
            back = list(bench.moves(ROLLBACKS, bench.by_rollback))
            slowest = {
                what: bench.what_was_waited_for(max(moves, key=lambda moved: max(moved.served, moved.answered)))
                for what, moves in {"alias": moved, "rollback, MLflow hanging": hung, "rollback": back}.items()
            }
        lines = [
            measured(f"alias moved to served by each of {WORKERS} workers", [each.served for each in moved]),
            measured("rollback answered, MLflow down", [each.answered for each in back]),
            measured("the same, to served by each worker", [each.served for each in back]),
            measured("rollback answered, MLflow hanging", [each.answered for each in hung]),
            measured("the same, to served by each worker", [each.served for each in hung]),
        ]
        print_rows(console, lines)
        for what, lines_of in slowest.items():
            console.print(f"slowest {what}:", *lines_of, sep="\n", markup=False)
        console.print(machine())
        return 0 if all(line.held for line in lines) else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, PartFailed, WebhookNotMade) as error:
        sys.exit(f"The benchmark could not be run: {error}")
