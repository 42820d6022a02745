"""How fast Ratchet answers, beside its peers. `make bench-serving` prints the tables.

The same trees in every server, one worker process each, medians over interleaved rounds, ratios within this run. Only
the server that is measured runs: the others are halted, because some of them work while nobody asks them, which would
cost a server the more the more processes it has. Rows below the peers say where the time goes: an empty function on the
same host, and Ratchet's service without a host.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import costs
from bench.load import Measured, Post, client, measure_post
from bench.machine import machine
from bench.peers import FLOOR, PEERS, PROGRAMS, Peer, PeerUnavailable, part, prepare, tensors
from bench.report import Row, print_rows
from bench.stack import Stack, host
from bench.trees import Trees, point, publish, rows, trees
from devhost.ports import free_ports
from devhost.probes import http_probe
from devhost.supervisor import Part, PartFailed, Supervisor
from models.manifest import Signature
from serving.session import Session

ROUNDS, SECONDS = 5, 2.0
WARM_SECONDS = 1.0
"""The same load before anything counts: for what a halted server makes up for, and first requests cost more."""
MONTHS = (1, 2, 3)
TOLERANCE = 1e-6
"""mlflow turns doubles into text and back; everybody else is exact."""
RATCHET, RATCHET_BINARY, FLOOR_BINARY = "Ratchet", "Ratchet, binary tensors", "floor, binary tensors"
EMPTY_APP = """
import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route(route="empty", methods=["POST", "GET"])
async def empty(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(b"{}", mimetype="application/json")
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """One load: so many rows in a request, on so many connections."""

    rows: int
    connections: int

    def __str__(self) -> str:
        return f"{self.rows} row{'s' * (self.rows > 1)}, {self.connections} connection{'s' * (self.connections > 1)}"


CELLS = (Cell(1, 16), Cell(1, 1), Cell(100, 16))
type Bodies = Callable[[int], Post]
"""From a number of rows to the request with them."""
type Found = dict[tuple[str, Cell], list[Measured]]


class Bench:
    """All servers, running."""

    def __init__(self, folder: Path, supervisor: Supervisor, model: Trees) -> None:
        self.folder, self.supervisor, self.model = folder, supervisor, model
        self.stack = Stack.on_free_ports(folder)
        self.targets: dict[str, Bodies] = {}
        self.parts: dict[str, tuple[Part, ...]] = {}
        """The processes that each of them needs."""
        self.missing: list[str] = []
        self.expected = _expected(model.signature, model.model)

    def start(self) -> None:
        """Starts and checks every server; a peer that cannot be had is said."""
        ours = (self.stack.azurite(), self.stack.host(workers=1))
        self.supervisor.start(ours[0])
        blobs = self.stack.blobs()
        publish(blobs, 1, self.model)
        point(blobs, 1, self.model, generation=1)
        self.supervisor.start(ours[1])
        self._add(RATCHET, lambda n: Post(self.stack.infer, tensors(self.model, rows(n))), _first_output, ours)
        self._floor(ours)
        for peer in PEERS:
            try:
                self._peer(peer)
            except (PeerUnavailable, PartFailed) as error:
                self.missing.append(f"{peer.label}: {error}")
        self._empty()
        self._alone()

    def _floor(self, ours: tuple[Part, ...]) -> None:
        url = self._peer(FLOOR)
        listed = json.loads(send(Post(f"{self.stack.url}/v2", b"")))["extensions"]
        self._add_binary(FLOOR_BINARY, f"{url}/binary", self.parts[FLOOR.label])
        if "binary_tensor_data" in listed:
            self._add_binary(RATCHET_BINARY, self.stack.infer, ours)

    def _peer(self, peer: Peer) -> str:
        (port,) = free_ports(1)
        started = part(peer, port, self.model)
        self.supervisor.start(started)
        url = f"http://127.0.0.1:{port}"

        def post(count: int) -> Post:
            return Post(f"{url}{peer.path}", peer.body(self.model, rows(count)))

        self._add(peer.label, post, peer.read, (started,))
        return url

    def _add(self, name: str, post: Bodies, read: Callable[[Any], list[float]], parts: tuple[Part, ...]) -> None:
        """Takes a server in, once its answers are right."""
        for count in (1, 100):
            self._check(name, read(json.loads(send(post(count)))), count)
        self.targets[name], self.parts[name] = post, parts

    def _add_binary(self, name: str, url: str, parts: tuple[Part, ...]) -> None:
        def post(count: int) -> Post:
            return binary(url, self.model, rows(count))

        for count in (1, 100):
            self._check(name, _read_binary(send(post(count), whole=True)), count)
        self.targets[name], self.parts[name] = post, parts

    def _check(self, name: str, found: Sequence[float], count: int) -> None:
        wrong = [(have, want) for have, want in zip(found, self.expected, strict=False) if abs(have - want) > TOLERANCE]
        if len(found) != count or wrong:
            raise RuntimeError(f"{name} answers {found[:3]}... and not {self.expected[:3]}...")

    def _empty(self) -> None:
        app = self.folder / "empty"
        app.mkdir()
        (app / "function_app.py").write_text(EMPTY_APP)
        (app / "host.json").write_text('{"version": "2.0"}')
        (port,) = free_ports(1)
        started = host(app, port, self.folder / "empty-state", workers=1, settings={})
        self.supervisor.start(started)
        url, name = f"http://127.0.0.1:{port}/api/empty", "an empty function on the same host"
        self.targets[name], self.parts[name] = lambda n: Post(url, tensors(self.model, rows(n))), (started,)

    def _alone(self) -> None:
        python = prepare(FLOOR)
        blobs = _Folder(self.folder / "blobs")
        publish(blobs, 1, self.model)  # type: ignore[arg-type]
        point(blobs, 1, self.model, generation=1)  # type: ignore[arg-type]
        (port,) = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        options = ["--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools"]
        command = [str(python), "-m", "uvicorn", "alone:app", "--host", "127.0.0.1", "--port", str(port), *options]
        root = str(Path(__file__).resolve().parents[1])
        env = {"PYTHONPATH": f"{PROGRAMS}:{root}", "BENCH_BLOBS": str(blobs.root)}
        started = Part("alone", command, http_probe(url), env=env, cwd=PROGRAMS)
        self.supervisor.start(started)
        name = "Ratchet's service behind uvicorn"
        self._add(name, lambda n: Post(url, tensors(self.model, rows(n))), _first_output, (started,))

    def run(self, status: Callable[[str], None]) -> Found:
        """Every server under every load, in turn, so that what else the machine does meets all of them."""
        found: Found = {}
        everybody = {part.name for parts in self.parts.values() for part in parts}
        self._signal(everybody, signal.SIGSTOP)
        try:
            for turn in range(ROUNDS):
                for cell in CELLS:
                    for name, post in self.targets.items():
                        if "binary" in name and cell.rows == 1:
                            continue
                        status(f"round {turn + 1} of {ROUNDS}: {cell}, {name}")
                        with self._alone_at_work(name):
                            for seconds in (WARM_SECONDS, SECONDS):
                                measured = measure_post(post(cell.rows), connections=cell.connections, seconds=seconds)
                        found.setdefault((name, cell), []).append(measured)
        finally:
            self._signal(everybody, signal.SIGCONT)
        return found

    @contextmanager
    def _alone_at_work(self, name: str) -> Iterator[None]:
        """Of all servers only this one goes on."""
        parts = {part.name for part in self.parts[name]}
        self._signal(parts, signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(parts, signal.SIGSTOP)

    def _signal(self, parts: Iterable[str], number: signal.Signals) -> None:
        for name in parts:
            os.killpg(self.supervisor.pid(name), number)


class _Folder:
    """Where `publish` writes for a server without Azurite."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: str, data: bytes, **_: object) -> str:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(data)
        return "1"


def _expected(signature: Signature, model: bytes) -> list[float]:
    from serving.feeds import FeedReader

    found = Session(model).run(FeedReader(signature).from_records(rows(100)))
    return [float(value) for value in found[:, 1]]


def _first_output(document: Any) -> list[float]:
    data: list[float] = document["outputs"][0]["data"]
    return data[1::2]


def binary(url: str, model: Trees, records: Sequence[Mapping[str, Any]]) -> Post:
    """The request with binary tensors, both ways: a JSON head, then the columns, NaN and '' for missing."""
    import struct

    import numpy as np

    heads, content = [], b""
    for column in model.signature.inputs:
        values = [record[column.name] for record in records]
        if column.kind == "category":
            texts = [(value or "").encode() for value in values]
            raw = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        else:
            raw = np.array(values, dtype=np.float64).tobytes()
        datatype = "BYTES" if column.kind == "category" else "FP64"
        size = {"binary_data_size": len(raw)}
        heads.append({"name": column.name, "datatype": datatype, "shape": [len(values)], "parameters": size})
        content += raw
    outputs = [{"name": "probability", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": heads, "outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "content-type": "application/octet-stream"}
    return Post(url, head + content, headers)


def _read_binary(answer: tuple[bytes, Mapping[str, str]]) -> list[float]:
    import numpy as np

    body, headers = answer
    head = int({name.lower(): value for name, value in headers.items()}["inference-header-content-length"])
    values = np.frombuffer(body[head:], dtype=np.float64)
    return [float(value) for value in values[1::2]]


def send(post: Post, *, whole: bool = False) -> Any:
    """The answer's body; `whole`, with its headers. A post without a body is a GET."""
    headers = {"content-type": "application/json", **post.headers}
    request = urllib.request.Request(post.url, data=post.body or None, headers=headers)  # noqa: S310 (our own http)
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        content = answer.read()
        return (content, dict(answer.headers)) if whole else content


def median(found: Found, name: str, cell: Cell) -> Measured:
    """Of each figure by itself."""
    runs = found[name, cell]
    rate, p50, p99 = (statistics.median(getattr(run, field) for run in runs) for field in ("rate", "p50", "p99"))
    return Measured(rate, p50, p99)


def verdicts(found: Found, peers: Sequence[str]) -> list[Row]:
    """The bars of the comparison. A peer that did not start is not compared with."""
    one, single, hundred = CELLS
    lines = [
        _against(found, RATCHET, peers, one, 2.0),
        _against(found, RATCHET, peers, single, 1.5),
        _against(found, RATCHET, peers, hundred, 1.3, tail=False),
    ]
    if (RATCHET_BINARY, hundred) not in found:
        asked = "1.3 times the best peer, 0.9 of the floor"
        return [*lines, Row("100 rows, binary tensors", asked, "the server does not list the extension", held=False)]
    lines.append(_against(found, RATCHET_BINARY, peers, hundred, 1.3, tail=False))
    ours = median(found, RATCHET_BINARY, hundred).rate
    for name in (FLOOR.label, FLOOR_BINARY):
        ratio = ours / median(found, name, hundred).rate
        lines.append(Row(f"{hundred}, binary, of the {name}", "at least 0.9", f"{ratio:.2f}", held=ratio >= 0.9))
    return lines


def _against(found: Found, name: str, peers: Sequence[str], cell: Cell, least: float, *, tail: bool = True) -> Row:
    ours = median(found, name, cell)
    best = max(peers, key=lambda peer: median(found, peer, cell).rate)
    theirs = median(found, best, cell)
    ratio = ours.rate / theirs.rate
    asked, measured = f"at least {least:g} times the best peer", f"{ratio:.2f} times {best}"
    held = ratio >= least
    if tail:
        asked += ", p99 not above its"
        measured += f"; p99 {ours.p99:.2f} ms, its {theirs.p99:.2f} ms"
        held = held and ours.p99 <= theirs.p99
    what = str(cell) if name == RATCHET else f"{cell}, binary"
    return Row(f"{what}, req/s", asked, measured, held)


def table(bench: Bench, found: Found) -> Table:
    made = Table("server", *(f"{cell}: req/s, p50 / p99 ms" for cell in CELLS), box=None, pad_edge=False)
    for name in bench.targets:
        cells = []
        for cell in CELLS:
            shown = median(found, name, cell) if (name, cell) in found else None
            cells.append(f"{shown.rate:,.0f}   {shown.p50:.2f} / {shown.p99:.2f}" if shown else "")
        made.add_row(name, *cells)
    return made


def main() -> int:
    """Prints the tables; 1 when a bar is missed."""
    console = Console(highlight=False, width=160)
    folder = Path(tempfile.mkdtemp(prefix="bench-serving-"))
    try:
        with console.status("training the trees") as status, Supervisor(folder / "logs") as supervisor:
            model = trees(MONTHS)
            status.update("starting the servers (their environments are made the first time)")
            bench = Bench(folder, supervisor, model)
            bench.start()
            found = bench.run(status.update)
            status.update("measuring what a worker costs")
            cost = costs.measure(bench.stack, model, rows(1))
        console.print(table(bench, found))
        for line in bench.missing:
            console.print(f"not measured: {line}", style="yellow")
        peers = [peer.label for peer in PEERS if peer.label in bench.targets]
        lines = [*verdicts(found, peers), *cost]
        print_rows(console, lines)
        versions = ", ".join(f"{peer.label} {peer.version()}" for peer in (FLOOR, *PEERS))
        console.print(f"Load: {client()}; {ROUNDS} rounds of {SECONDS:g} s. {machine()} {versions}.")
        return 0 if all(line.held for line in lines) and not bench.missing else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, PartFailed) as error:
        sys.exit(f"The benchmark could not be run: {error}")
