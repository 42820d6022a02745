"""How fast the local host is, beside what it is made of. `make bench-host` prints a table.

Ratios are of medians over interleaved rounds within this run. The load comes from wrk when it is installed, or else
from a small client in a process of its own (bench/load.py).
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobServiceClient
from rich.console import Console
from rich.table import Table

from bench.load import measure
from devhost.azurite import AzuritePorts, azurite_part
from devhost.ports import free_ports
from devhost.probes import http_probe
from devhost.supervisor import Part, Supervisor

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5
CONNECTIONS, LOAD_SECONDS = 16, 3.0
UPLOADS = 60
PATIENCE_SECONDS = 60.0

APP = """
import os, time
import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route(route="ping")
async def ping(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("pong")


@app.event_grid_trigger(arg_name="event")
async def on_blob(event: func.EventGridEvent) -> None:
    now = time.time()
    with open(os.environ["SEEN"], "a") as seen:
        seen.write(f"{event.subject.rpartition('/')[2]} {now}\\n")


@app.activity_trigger(input_name="number")
def one(number: int) -> int:
    return number + 1


@app.orchestration_trigger(context_name="context")
def flat(context):
    answers = yield context.task_all([context.call_activity("one", n) for n in range(int(context.get_input()))])
    return sum(answers)


@app.orchestration_trigger(context_name="context")
def batches(context):
    total = yield context.task_all(
        [context.call_sub_orchestrator("flat", 100) for _ in range(int(context.get_input()) // 100)]
    )
    return sum(total)
"""
BARE = """
import sys
from aiohttp import web


async def ping(request):
    return web.Response(text="pong")


app = web.Application()
app.router.add_get("/api/ping", ping)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    asked: str
    measured: str
    held: bool


class Bench:
    """A sample app on the host, and what it is compared with, in a folder that goes away."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.app = folder, folder / "app"
        self.app.mkdir()
        self.seen = folder / "seen.txt"
        self.seen.touch()
        (self.app / "function_app.py").write_text(APP)
        (self.app / "host.json").write_text('{"version": "2.0"}')
        (self.folder / "bare.py").write_text(BARE)
        blob, queue, table, self.port, self.bare_port, self.events_port = free_ports(6)
        self.azurite = AzuritePorts(blob, queue, table)
        self.url = f"http://127.0.0.1:{self.port}"

    def host(self, *, workers: int) -> Part:
        command = [sys.executable, "-m", "devhost", "start", "--app", str(self.app), "--port", str(self.port)]
        command += ["--workers", str(workers), "--state", str(self.folder / "state")]
        environment = {"AzureWebJobsStorage": self.azurite.connection_string, "SEEN": str(self.seen)}
        probe = http_probe(f"{self.url}/admin/host/status")
        return Part("Functions", command, probe, url=self.url, env=environment, cwd=ROOT)

    def bare(self) -> Part:
        url = f"http://127.0.0.1:{self.bare_port}/api/ping"
        command = [sys.executable, str(self.folder / "bare.py"), str(self.bare_port)]
        return Part("aiohttp", command, http_probe(url), cwd=ROOT)

    def event_grid(self, azurite_log: Path) -> Part:
        command = [sys.executable, "-m", "devhost", "eventgrid", "--port", str(self.events_port), "--azurite-log"]
        command += [str(azurite_log), "--connection-string", self.azurite.connection_string, "--function", "on_blob"]
        command += ["--functions-host", self.url, "--state", str(self.folder / "events")]
        return Part("Event Grid", command, http_probe(f"http://127.0.0.1:{self.events_port}/health"), cwd=ROOT)

    def orchestrate(self, name: str, size: int) -> float:
        """Seconds from asking for one orchestration to having its output."""
        place = f"{self.url}/runtime/webhooks/durabletask/orchestrators/{name}?timeout={PATIENCE_SECONDS}"
        body = json.dumps(json.dumps(size)).encode()  # as the durable client sends it
        begun = time.perf_counter()
        found = _json(urllib.request.Request(f"{place}&pollingInterval=1", data=body))  # noqa: S310 (our own http)
        taken = time.perf_counter() - begun
        right = sum(range(1, size + 1)) if name == "flat" else sum(range(1, 101)) * (size // 100)
        if found != right:
            raise RuntimeError(f"{name} of {size} gave {found} and not {right}")
        return taken


def ready(bench: Bench) -> Row:
    """From starting the process to the first good answer of the status."""
    taken = []
    for _ in range(ROUNDS):
        with Supervisor(bench.folder / "logs") as supervisor:
            begun = time.perf_counter()
            supervisor.start(bench.host(workers=2))
            taken.append(time.perf_counter() - begun)
    seconds = statistics.median(taken)
    return Row("host ready, 2 workers", "under 1.5 s", f"{seconds:.2f} s", seconds < 1.5)


def http(bench: Bench) -> Row:
    """A trivial async function through one worker process, beside the same handler on bare aiohttp."""
    with Supervisor(bench.folder / "logs") as supervisor:
        supervisor.start(bench.host(workers=1), bench.bare())
        targets = (f"{bench.url}/api/ping", f"http://127.0.0.1:{bench.bare_port}/api/ping")
        rates: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for target, found in zip(targets, rates, strict=True):
                found.append(measure(target, connections=CONNECTIONS, seconds=LOAD_SECONDS))
    host, bare = (statistics.median(found) for found in rates)
    return Row(
        f"HTTP, {CONNECTIONS} connections, of bare aiohttp's requests/s",
        "at least 0.5",
        f"{host / bare:.2f}  ({host:,.0f} of {bare:,.0f})",
        host / bare >= 0.5,
    )


def fan_out(bench: Bench) -> list[Row]:
    """A thousand trivial activities at once, and in sub-orchestrations of a hundred beside a hundred alone."""
    with Supervisor(bench.folder / "logs") as supervisor:
        supervisor.start(bench.host(workers=2))
        shapes = (("flat", 1_000), ("batches", 1_000), ("flat", 100))
        taken: dict[tuple[str, int], list[float]] = {shape: [] for shape in shapes}
        for _ in range(ROUNDS):
            for shape in shapes:
                taken[shape].append(bench.orchestrate(*shape))
    flat, batched, hundred = (statistics.median(taken[shape]) for shape in shapes)
    ratio = (batched / 1_000) / (hundred / 100)
    return [
        Row("fan-out of 1,000 activities", "under 1.5 s", f"{flat:.2f} s", flat < 1.5),
        Row(
            "cost per activity, 1,000 in batches of 100, of that at 100",
            "at most 1.5",
            f"{ratio:.2f}  ({batched:.2f} s, {1_000 * hundred:.0f} ms)",
            ratio <= 1.5,
        ),
    ]


def upload(bench: Bench) -> Row:
    """From the answer to an upload to the first line of the function that its event runs."""
    with ExitStack() as opened:
        supervisor = opened.enter_context(Supervisor(bench.folder / "logs"))
        azurite = azurite_part(bench.folder / "azurite", bench.azurite)
        supervisor.start(azurite, bench.host(workers=1))
        supervisor.start(bench.event_grid(supervisor.log(azurite.name)))
        storage = opened.enter_context(BlobServiceClient.from_connection_string(bench.azurite.connection_string))
        container = storage.create_container("uploads")
        uploaded = {}
        for number in range(UPLOADS):
            name = f"{number}.csv"
            container.upload_blob(name, b"a,b\n1,2\n")
            uploaded[name] = time.time()
            deadline = time.monotonic() + PATIENCE_SECONDS
            while name not in (seen := _seen(bench.seen)):
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the event of {name} did not arrive in {PATIENCE_SECONDS:g} s")
                time.sleep(0.002)
    milliseconds = statistics.median(1_000 * (seen[name] - at) for name, at in uploaded.items())
    return Row("upload to function running, median", "under 20 ms", f"{milliseconds:.1f} ms", milliseconds < 20)


def _seen(file: Path) -> dict[str, float]:
    lines = (line.split() for line in file.read_text().splitlines())
    return {parts[0]: float(parts[1]) for parts in lines if len(parts) == 2}


def _json(request: str | urllib.request.Request) -> Any:
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 (our own http)
        return json.load(answer)


def main() -> int:
    """Prints the table; 1 when a bar is missed."""
    console = Console(highlight=False)
    steps: list[Callable[[Bench], Row | list[Row]]] = [ready, http, fan_out, upload]
    rows: list[Row] = []
    for step in steps:
        folder = Path(tempfile.mkdtemp(prefix="bench-host-"))
        try:
            with console.status(f"measuring: {step.__name__.replace('_', '-')}"):
                found = step(Bench(folder))
            rows += found if isinstance(found, list) else [found]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    table = Table("what", "asked", "measured", "", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row.what, row.asked, row.measured, "[green]held[/]" if row.held else "[red]missed[/]")
    console.print(table)
    console.print(f"Load: {'wrk' if shutil.which('wrk') else 'bench/load.py'}. {_machine()}")
    return 0 if all(row.held for row in rows) else 1


def _machine() -> str:
    import os
    import platform

    return f"Python {platform.python_version()}, {os.cpu_count()} CPUs."


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, urllib.error.URLError, subprocess.SubprocessError) as error:
        sys.exit(f"The benchmark could not be run: {error}")
