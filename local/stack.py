"""Ratchet's local stack: Azurite, MLflow, the functions host and the local Event Grid, under one supervisor.

DevhostError
├── StackBusy      another stack works on the same data directory
└── HostSilent     the functions host does not say how it is

    with start_stack(Path(".local")) as stack:
        print(stack.app_url)

Everything is kept below the data directory, so that the same directory gives the same stack again.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import secrets
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Self

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient
from rich.console import Console

from devhost.azurite import AzuritePorts, azurite_part
from devhost.display import Display, SilentDisplay
from devhost.errors import DevhostError
from devhost.ports import PortWish, choose_ports
from devhost.supervisor import Part, Supervisor
from local.display import display_for
from local.events import events_file
from local.parts import CONTAINERS, HOST, REPOSITORY, Places, event_grid_part, host_part, mlflow_part
from local.webhook import WebhookNotMade, subscribe

type _Say = Callable[[str], None]

STOPPING_SECONDS = 20.0
"""How long a stack that was killed may take to end its last part, before the next one gives up waiting for it."""
STATUS_SECONDS = 5.0
PORTS_FILE = "stack.json"


class StackBusy(DevhostError):
    """Another stack works on the same data directory."""

    def __init__(self, data: Path) -> None:
        super().__init__(f"Another stack is running on {data}. Stop it, or choose another data directory.")
        self.data = data


class HostSilent(DevhostError):
    """The functions host does not answer, or not in the way that devhost does."""

    def __init__(self, url: str, problem: object) -> None:
        super().__init__(f"The functions host did not answer {url}: {problem}. Start it with start_host().")
        self.url = url


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports that somebody insists on. None: the default, or a free one when that is taken."""

    blob: int | None = None
    queue: int | None = None
    table: int | None = None
    app: int | None = None
    mlflow: int | None = None
    events: int | None = None


DEFAULT_PORTS = Ports(blob=10000, queue=10001, table=10002, app=7071, mlflow=5000, events=7072)
ASKED_BY = {
    "blob": "Azurite's blobs",
    "queue": "Azurite's queues",
    "table": "Azurite's tables",
    "app": "the functions host",
    "mlflow": "MLflow",
    "events": "the local Event Grid",
}


class LocalStack:
    """A running stack. A context manager that stops it; `stop` may be called any number of times."""

    def __init__(
        self, places: Places, supervisor: Supervisor, host: Part, event_grid: Part, opened: contextlib.ExitStack
    ) -> None:
        self.places, self.supervisor = places, supervisor
        self.host, self.event_grid = host, event_grid
        self.blob_connection_string = places.azurite.connection_string
        self.app_url = places.app_url
        self.mlflow_url = places.mlflow_url
        self.events_url = places.events_url
        self.events_file = events_file(places.data)
        self.log_dir = supervisor.log_dir
        self._opened = opened

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stops every part, the last started first."""
        self._opened.close()

    def watch(self) -> None:
        """Blocks while everything runs. Raises PartFailed when a part ends by itself."""
        self.supervisor.watch()

    def kill_host(self) -> None:
        """SIGKILL to the functions host and its workers at once, as a crash of the machine would."""
        self.supervisor.kill(HOST)

    def start_host(self) -> None:
        """Starts the functions host again, on the same port and state. Raises PartFailed."""
        self.supervisor.start(self.host)

    def host_pids(self) -> list[int]:
        """Process ids of the functions host and then of its workers. Raises HostSilent."""
        return [self.supervisor.pid(HOST), *self.worker_pids()]

    def worker_pids(self) -> list[int]:
        """Process ids of the host's workers. Raises HostSilent."""
        url = f"{self.app_url}/admin/host/status"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=STATUS_SECONDS) as answer:
                workers = json.load(answer)["workers"]
                return [int(worker["pid"] if isinstance(worker, dict) else worker) for worker in workers]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            raise HostSilent(url, error) from error


def start_stack(
    data_root: Path,
    *,
    ports: Ports | None = None,
    env: Mapping[str, str] | None = None,
    quiet: bool = False,
    workers: int = 2,
    app_dir: Path | None = None,
    console: Console | None = None,
) -> LocalStack:
    """Starts the stack and returns when all of it is ready; when it fails, nothing is left running.

    `env` goes over the app's settings. `app_dir` is the repository's root by default. Raises DevhostError: PartFailed
    (names the log), PortTaken (a port of `ports`), StackBusy, AzuriteMissing.
    """
    data = data_root.resolve()
    display, say = _voices(quiet=quiet, console=console)
    with contextlib.ExitStack() as opened:
        lock = opened.enter_context(_only_stack(data))
        places = _places(data, ports or Ports(), say)
        supervisor = opened.enter_context(Supervisor(data / "logs", display=display, hold_fd=lock))
        supervisor.start(azurite_part(data / "azurite", places.azurite), mlflow_part(places))
        _make_containers(places.azurite.connection_string)
        topic_key, webhook_secret = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        host = host_part(
            places,
            app_dir=(app_dir or REPOSITORY).resolve(),
            workers=workers,
            topic_key=topic_key,
            webhook_secret=webhook_secret,
            env=env or {},
        )
        supervisor.start(host)
        try:
            subscribe(places.mlflow_url, places.app_url, webhook_secret)
        except WebhookNotMade as exc:  # a hint more or less: the app looks at the alias by itself, too
            say(str(exc))
        event_grid = event_grid_part(places, azurite_log=supervisor.log("Azurite"), topic_key=topic_key)
        supervisor.start(event_grid)
        return LocalStack(places, supervisor, host, event_grid, opened.pop_all())


def _voices(*, quiet: bool, console: Console | None) -> tuple[Display, _Say]:
    if quiet:
        return SilentDisplay(), lambda text: None
    chosen = console or Console(highlight=False)
    return display_for(chosen), chosen.print


@contextlib.contextmanager
def _only_stack(data: Path) -> Iterator[int]:
    """Holds the data directory's lock; yields its file descriptor, which every tether keeps open too.

    So the lock lasts until the last part of a stack is gone, also of one that was killed; that one is waited for.
    """
    data.mkdir(parents=True, exist_ok=True)
    with (data / "lock").open("w") as lock:
        deadline = time.monotonic() + STOPPING_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if _owner_lives(data) or time.monotonic() > deadline:
                    raise StackBusy(data) from error
            time.sleep(0.1)
        yield lock.fileno()


def _owner_lives(data: Path) -> bool:
    """Whether the process that started the latest stack on the directory is still there."""
    try:
        os.kill(int(json.loads((data / PORTS_FILE).read_text(encoding="utf-8"))["pid"]), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, KeyError, TypeError):  # no such process, or no such file as this version writes
        return False
    return True


def storage_of(data: Path) -> str:
    """Connection string of the storage that the stack on a data directory has, or had when it ran last."""
    ports = asdict(DEFAULT_PORTS) | _remembered(data / PORTS_FILE)
    return AzuritePorts(blob=ports["blob"], queue=ports["queue"], table=ports["table"]).connection_string


def _places(data: Path, ports: Ports, say: _Say) -> Places:
    """Chooses the ports, and leaves them in stack.json for those who look for this stack."""
    firm = {key: port for key, port in asdict(ports).items() if port is not None}
    wishes = {key: PortWish(ASKED_BY[key], (asdict(DEFAULT_PORTS) | firm)[key], firm=key in firm) for key in ASKED_BY}
    choices = choose_ports(wishes)
    for choice in choices.values():
        if choice.moved:
            say(f"Port {choice.wish.port} is in use: {choice.wish.asked_by} will be on {choice.port}.")
    chosen = {key: choice.port for key, choice in choices.items()}
    temporary = data / f"{PORTS_FILE}.tmp"
    temporary.write_text(json.dumps({"ports": chosen, "pid": os.getpid()}, indent=2) + "\n", encoding="utf-8")
    temporary.replace(data / PORTS_FILE)
    azurite = AzuritePorts(blob=chosen["blob"], queue=chosen["queue"], table=chosen["table"])
    return Places(data, azurite, app=chosen["app"], mlflow=chosen["mlflow"], events=chosen["events"])


def _remembered(file: Path) -> dict[str, int]:
    """The ports of the last start; none when there was none, or its file is not what this version writes."""
    try:
        ports = json.loads(file.read_text(encoding="utf-8"))["ports"]
        return {field.name: int(ports[field.name]) for field in fields(Ports)}
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # a wish at best: the defaults do as well
        return {}


def _make_containers(connection_string: str) -> None:
    with BlobServiceClient.from_connection_string(connection_string) as service:
        for name in CONTAINERS:
            with contextlib.suppress(ResourceExistsError):
                service.create_container(name)
