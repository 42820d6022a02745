"""The real parts with a proxy before storage and one before MLflow, and the means to break them."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from azure.storage.blob import BlobServiceClient

from bench.chaos.proxy import FaultProxy
from devhost.azurite import AzuritePorts
from devhost.ports import free_ports
from devhost.probes import http_probe
from devhost.supervisor import Part
from local.parts import EVENT_GRID, HOST
from local.stack import HostSilent, LocalStack, Ports, start_stack

SECOND_HOST = "Functions 2"
START_SECONDS = 600.0
"""A host that is started again may take minutes where the machine is busy with other things."""
NOTICED_SECONDS, POLL_SECONDS = 10.0, 0.02
SKEW = Path(__file__).parent / "skew"
"""A directory for PYTHONPATH, whose sitecustomize sets the app's clock wrong."""
OUTSIDE = "outside"
"""A container that nobody watches, to copy from."""
ENVIRONMENT: Mapping[str, str] = {
    "RATCHET_POINTER_TTL_SECONDS": "0.2",
    "RATCHET_STORAGE_TIMEOUT_SECONDS": "2",  # less than a request may hang
    "RATCHET_TRAINING_THREADS": "1",
    "RATCHET_SWEEP_SCHEDULE": "0 0 0 1 1 *",  # by hand: see sweep()
}


@dataclass(slots=True)
class Arena:
    """A running stack, the directory of its pipelines' files, and what stands before its storage and its registry."""

    stack: LocalStack
    pipelines: Path
    blob: FaultProxy
    table: FaultProxy
    mlflow: FaultProxy
    second_port: int
    events: tuple[str, ...] = ()
    skew: int = 0
    two_hosts: bool = False
    down: threading.Event = field(default_factory=threading.Event)
    """Set while the first host is down on purpose."""
    killed: int = 0
    strikes: int = 0
    """Odd while somebody is being killed."""
    killing: threading.Lock = field(default_factory=threading.Lock)
    """One kill after the other, however close their moments are."""
    swept: float = field(default_factory=time.monotonic)
    sweeping: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False

    @property
    def app_url(self) -> str:
        """Of the first host."""
        return self.stack.app_url

    @property
    def storage(self) -> str:
        """Connection string past the proxy."""
        return self.stack.blob_connection_string

    def set(self, *, events: tuple[str, ...], seed: int, skew: int, two_hosts: bool) -> None:
        """Restarts what has to be, so that the stack has this setting."""
        if skew != self.skew:
            self.skew = skew
            with self._down():
                self.stack.supervisor.stop(HOST)
                self.stack.supervisor.start(self._host())
        if events != self.events:
            self.events = events
            self.stack.supervisor.stop(EVENT_GRID)
            self.stack.supervisor.start(self._event_grid(seed))
        if two_hosts != self.two_hosts:
            self.two_hosts = two_hosts
            if two_hosts:
                self.stack.supervisor.start(self._second_host())
            else:
                self.stack.supervisor.stop(SECOND_HOST)

    def kill(self, victim: str) -> None:
        """SIGKILL to all workers of the first host, or to the host and its workers; a host is started again."""
        with self.killing:
            self.killed += 1
            self.strikes += 1
            try:
                self._kill(victim)
            finally:
                self.strikes += 1

    def _kill(self, victim: str) -> None:
        if victim == "workers":
            killed = self.worker_pids()
            for pid in killed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            # Until the host has seen it, it gives them requests; the customer makes such a one again.
            deadline = time.monotonic() + NOTICED_SECONDS
            while not self._has_noticed(killed) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            return
        with self._down():
            self.stack.supervisor.kill(HOST)
            self.stack.supervisor.start(self._host())

    @contextlib.contextmanager
    def _down(self) -> Iterator[None]:
        self.down.set()
        try:
            yield
        finally:
            self.down.clear()

    def _has_noticed(self, killed: Sequence[int]) -> bool:
        """Not while it is silent: a busy host may yet give a request to the dead."""
        with contextlib.suppress(HostSilent):
            return not set(killed) & set(self.stack.worker_pids())
        return False

    def worker_pids(self) -> list[int]:
        """None while the host does not answer: it is down, or starts."""
        with contextlib.suppress(HostSilent):
            return self.stack.worker_pids()
        return []

    def sweep(self, *, every: float) -> None:
        """Runs the sweep of every host, as its timer would, unless it was run within the last `every` seconds."""
        with self.sweeping:
            if time.monotonic() - self.swept < every:
                return
            self.swept = time.monotonic()
        ports = [self.stack.places.app, *([self.second_port] if self.two_hosts else [])]
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
        host = replace(self.stack.host, ready_within=START_SECONDS)
        if not self.skew:
            return host
        return replace(host, env={**host.env, "PYTHONPATH": str(SKEW), "CHAOS_CLOCK_SKEW_SECONDS": str(self.skew)})

    def _second_host(self) -> Part:
        """With a task hub, a port and a state of its own; what is said last on a command line counts."""
        first, data = self._host(), self.stack.places.data / "second"
        own = {
            "AzureFunctionsJobHost__extensions__durableTask__hubName": "RatchetHub2",
            "RATCHET_CACHE_DIR": str(data / "cache"),
        }
        url = f"http://127.0.0.1:{self.second_port}"
        return replace(
            first,
            name=SECOND_HOST,
            log_name="host-2",
            command=[*first.command, "--port", str(self.second_port), "--state", str(data / "host")],
            probe=http_probe(f"{url}/admin/host/status"),
            url=url,
            env={**first.env, **own},
        )

    def _event_grid(self, seed: int) -> Part:
        part = self.stack.event_grid
        faults = [text for fault in self.events for text in ("--fault", fault)]
        command = [*part.command, "--seed", str(seed), *faults]
        return replace(part, command=command, ready_within=START_SECONDS)


@contextlib.contextmanager
def arena(folder: Path, pipelines: Path, env: Mapping[str, str] = ENVIRONMENT) -> Iterator[Arena]:
    """A stack below `folder`, on free ports, with `env` as the app's settings besides."""
    blob, queue, table, app, mlflow, events, blob_front, table_front, mlflow_front, second = free_ports(10)
    storage = AzuritePorts(blob=blob_front, queue=queue, table=table_front).connection_string
    fronts = {"AzureWebJobsStorage": storage, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow_front}"}
    env = {**fronts, "RATCHET_PIPELINES_DIR": str(pipelines), **env}
    with (
        FaultProxy(blob_front, blob) as before_blobs,
        FaultProxy(table_front, table) as before_tables,
        FaultProxy(mlflow_front, mlflow) as before_mlflow,
        start_stack(folder, ports=Ports(blob, queue, table, app, mlflow, events), env=env, quiet=True) as stack,
        BlobServiceClient.from_connection_string(stack.blob_connection_string) as service,
    ):
        service.create_container(OUTSIDE)
        made = Arena(stack, pipelines, before_blobs, before_tables, before_mlflow, second)
        try:
            yield made
        finally:
            made.closed = True
