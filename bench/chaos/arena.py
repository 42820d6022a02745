"""The real parts with a proxy before storage and one before MLflow, and the means to break them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from azure.storage.blob import BlobServiceClient

from bench.chaos.proxy import FaultProxy
from devhost.azurite import AzuritePorts, azurite_part
from devhost.ports import free_ports
from devhost.supervisor import Part, Supervisor
from local.parts import CONTAINERS, EVENT_GRID, HOST, REPOSITORY, Places, event_grid_part, host_part, mlflow_part

SECOND_HOST = "Functions 2"
STORAGE_TIMEOUT_SECONDS = 2
START_SECONDS = 600.0
"""MLflow may take minutes where the machine is busy with other things."""
SKEW = Path(__file__).parent / "skew"
"""A directory for PYTHONPATH, whose sitecustomize sets the app's clock wrong."""
TOPIC_KEY = "chaos"
WEBHOOK_SECRET = "a webhook secret"  # noqa: S105 (of a stack that lives for minutes on loopback)


@dataclass(slots=True)
class Arena:
    """A running stack. `app_url` is the first host's."""

    supervisor: Supervisor
    places: Places
    pipelines: Path
    blob: FaultProxy
    table: FaultProxy
    mlflow: FaultProxy
    events: tuple[str, ...] = ()
    skew: int = 0
    two_hosts: bool = False
    down: threading.Event = field(default_factory=threading.Event)
    """Set while the first host is down on purpose."""
    killed: int = 0
    strikes: int = 0
    """Odd while somebody is being killed."""

    @property
    def app_url(self) -> str:
        return self.places.app_url

    @property
    def storage(self) -> str:
        """Connection string past the proxy."""
        return self.places.azurite.connection_string

    def set(self, *, events: tuple[str, ...], seed: int, skew: int, two_hosts: bool) -> None:
        """Restarts what has to be, so that the stack has this setting."""
        if skew != self.skew:
            self.skew = skew
            self.supervisor.stop(HOST)
            self.supervisor.start(self._host())
        if events != self.events:
            self.events = events
            self.supervisor.stop(EVENT_GRID)
            self.supervisor.start(self._event_grid(seed))
        if two_hosts != self.two_hosts:
            self.two_hosts = two_hosts
            if two_hosts:
                self.supervisor.start(self._second_host())
            else:
                self.supervisor.stop(SECOND_HOST)

    def kill(self, victim: str) -> None:
        """SIGKILL to all workers of the first host, or to the host and its workers; a host is started again."""
        self.killed += 1
        self.strikes += 1
        try:
            self._kill(victim)
        finally:
            self.strikes += 1

    def _kill(self, victim: str) -> None:
        if victim == "workers":
            for pid in self.worker_pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        self.down.set()
        self.supervisor.kill(HOST)
        self.supervisor.start(self._host())
        self.down.clear()

    def worker_pids(self) -> list[int]:
        """None while the host does not answer: it is down, or starts."""
        try:
            with urllib.request.urlopen(f"{self.app_url}/admin/host/status", timeout=5) as answer:  # noqa: S310
                return [int(worker["pid"]) for worker in json.load(answer)["workers"]]
        except (OSError, http.client.HTTPException, ValueError):
            return []

    def sweep(self) -> None:
        """Runs the sweep of every host now, as its timer would."""
        ports = [self.places.app] + ([self._second_places().app] if self.two_hosts else [])
        for port in ports:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/admin/functions/sweep",
                data=b'{"input": ""}',
                headers={"Content-Type": "application/json"},
            )
            with (
                contextlib.suppress(OSError, http.client.HTTPException),
                urllib.request.urlopen(request, timeout=5),  # noqa: S310
            ):
                pass

    def _host(self) -> Part:
        return self._host_at(self.places)

    def _host_at(self, places: Places) -> Part:
        storage = AzuritePorts(blob=self.blob.port, queue=places.azurite.queue, table=self.table.port)
        env = {
            "AzureWebJobsStorage": storage.connection_string,
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{self.mlflow.port}",
            "RATCHET_PIPELINES_DIR": str(self.pipelines),
            "RATCHET_POINTER_TTL_SECONDS": "0.2",
            "RATCHET_STORAGE_TIMEOUT_SECONDS": str(STORAGE_TIMEOUT_SECONDS),
            "RATCHET_TRAINING_THREADS": "1",
            "RATCHET_SWEEP_SCHEDULE": "0 0 0 1 1 *",  # by hand: see sweep()
        }
        if self.skew:
            env |= {"PYTHONPATH": str(SKEW), "CHAOS_CLOCK_SKEW_SECONDS": str(self.skew)}
        part = host_part(
            places, app_dir=REPOSITORY, workers=2, topic_key=TOPIC_KEY, webhook_secret=WEBHOOK_SECRET, env=env
        )
        return replace(part, ready_within=START_SECONDS)

    def _second_places(self) -> Places:
        return replace(self.places, data=self.places.data / "second", app=self._second_port)

    @property
    def _second_port(self) -> int:
        return int((self.places.data / "second-port").read_text())

    def _second_host(self) -> Part:
        part = self._host_at(self._second_places())
        hub = {"AzureFunctionsJobHost__extensions__durableTask__hubName": "RatchetHub2"}
        return replace(part, name=SECOND_HOST, log_name="host-2", env={**part.env, **hub})

    def _event_grid(self, seed: int) -> Part:
        part = event_grid_part(self.places, azurite_log=self.supervisor.log("Azurite"), topic_key=TOPIC_KEY)
        faults = [text for fault in self.events for text in ("--fault", fault)]
        return replace(part, command=[*part.command, "--seed", str(seed), *faults], ready_within=START_SECONDS)


@contextlib.contextmanager
def arena(folder: Path) -> Iterator[Arena]:
    """A stack below `folder`, on free ports."""
    pipelines = folder / "pipelines"
    pipelines.mkdir(parents=True)
    blob, queue, table, app, mlflow, events, blob_front, table_front, mlflow_front, second = free_ports(10)
    places = Places(folder / "data", AzuritePorts(blob=blob, queue=queue, table=table), app, mlflow, events)
    places.data.mkdir()
    (places.data / "second-port").write_text(str(second))
    with (
        Supervisor(folder / "logs") as supervisor,
        FaultProxy(blob_front, blob) as before_blobs,
        FaultProxy(table_front, table) as before_tables,
        FaultProxy(mlflow_front, mlflow) as before_mlflow,
    ):
        registry = replace(mlflow_part(places), ready_within=START_SECONDS)
        supervisor.start(azurite_part(places.data / "azurite", places.azurite), registry)
        with BlobServiceClient.from_connection_string(places.azurite.connection_string) as service:
            for name in (*CONTAINERS, "outside"):
                service.create_container(name)
        made = Arena(supervisor, places, pipelines, before_blobs, before_tables, before_mlflow)
        supervisor.start(made._host())
        supervisor.start(made._event_grid(0))
        yield made
