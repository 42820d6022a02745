"""Load on an HTTP server: wrk when it is installed, or else a small client in a process of its own.

The client sends one fixed request per connection and waits for the answer's last byte, which it finds by its length.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

_WRK_RATE = re.compile(r"Requests/sec:\s+([0-9.]+)")
_WRK_RESULT = re.compile(r"^RESULT (\d+) (\d+) (\d+) (\d+) (\d+)$", re.MULTILINE)
SLOWEST = "30s"
"""An answer that takes longer is an error to wrk. Slow ones are figures: some peers take seconds on a busy machine."""
SCRIPT = Path(__file__).with_name("request.lua")


@dataclass(frozen=True, slots=True)
class Post:
    """A request with a body, and what is sent with it."""

    url: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests per second, and latencies in milliseconds."""

    rate: float
    p50: float
    p99: float


def client() -> str:
    """Who sends the load, for the output."""
    return "wrk" if shutil.which("wrk") else "bench/load.py (wrk is not installed; it measures more evenly)"


def measure(url: str, *, connections: int, seconds: float) -> float:
    """Requests per second of a GET. Raises RuntimeError when an answer is not a 200."""
    if wrk := shutil.which("wrk"):
        command = [wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", url]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rate = _WRK_RATE.search(printed)
        if rate is None or "Non-2xx" in printed:
            raise RuntimeError(f"wrk met errors at {url}:\n{printed}")
        return float(rate[1])
    return _in_a_process(f"GET {_target(url)}", url, connections, seconds).rate


def measure_post(post: Post, *, connections: int, seconds: float) -> Measured:
    """Requests per second and latencies of a POST. Raises RuntimeError when an answer is not a 200."""
    headers = {"content-type": "application/json", **post.headers}
    with tempfile.NamedTemporaryFile(prefix="bench-body-") as file:
        file.write(post.body)
        file.flush()
        if wrk := shutil.which("wrk"):
            command = [wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", SLOWEST]
            command += ["-s", str(SCRIPT), post.url, "--", file.name]
            command += [f"{name}: {value}" for name, value in headers.items()]
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            result = _WRK_RESULT.search(printed)
            if result is None or result[3] != "0":
                raise RuntimeError(f"wrk met errors at {post.url}:\n{printed}")
            requests, micros, _, p50, p99 = map(int, result.groups())
            return Measured(requests / (micros / 1e6), p50 / 1_000, p99 / 1_000)
        head = "".join(f"\r\n{name}: {value}" for name, value in headers.items())
        first = f"POST {_target(post.url)}"
        return _in_a_process(first, post.url, connections, seconds, head=head, body=file.name)


def _target(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _in_a_process(
    first: str, url: str, connections: int, seconds: float, *, head: str = "", body: str = ""
) -> Measured:
    command = [sys.executable, "-m", "bench.load", first, url, str(connections), str(seconds), head, body]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the load on {url} ended with: {done.stderr.strip().splitlines()[-1]}")
    return Measured(**json.loads(done.stdout))


class _Client(asyncio.Protocol):
    """One connection that asks again as soon as it is answered. `taken` has the seconds of each answer."""

    def __init__(self, request: bytes, until: float) -> None:
        self.request, self.until = request, until
        self.taken: list[float] = []
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._missing = 0
        self._asked = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            if not data.startswith(b"HTTP/1.1 200"):
                self.finished.set_exception(RuntimeError(f"not a 200: {data[:200]!r}"))
                return
            head = data.index(b"\r\n\r\n") + 4
            length = re.search(rb"(?i)content-length: (\d+)", data[:head])
            self._missing = head + int(length[1] if length else 0)
        self._missing -= len(data)
        if self._missing <= 0:
            self._missing = 0
            self.taken.append(time.perf_counter() - self._asked)
            self._ask()

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        if self._asked >= self.until:
            self.transport.close()
            if not self.finished.done():
                self.finished.set_result(None)
        else:
            self.transport.write(self.request)  # type: ignore[attr-defined]


async def load(url: str, connections: int, seconds: float, request: bytes | None = None) -> Measured:
    """The client. `request` is the whole request; by default a GET of `url`. Raises RuntimeError for what is no 200."""
    parts = urlsplit(url)
    request = request or _request(f"GET {_target(url)}", url)
    begun = time.perf_counter()
    loop = asyncio.get_running_loop()
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    clients = [
        (await loop.create_connection(lambda: _Client(request, begun + seconds), host, port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.finished for client in clients))
    taken = sorted(seconds for client in clients for seconds in client.taken)
    rate = len(taken) / (time.perf_counter() - begun)
    return Measured(rate, 1_000 * taken[len(taken) // 2], 1_000 * taken[int(0.99 * len(taken))])


def _request(first: str, url: str, head: str = "", body: bytes = b"") -> bytes:
    lines = f"{first} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Length: {len(body)}{head}\r\n\r\n"
    return lines.encode() + body


def main(arguments: list[str]) -> None:
    first, url, connections, seconds, head, body = arguments
    request = _request(first, url, head, Path(body).read_bytes() if body else b"")
    measured = asyncio.run(load(url, int(connections), float(seconds), request))
    sys.stdout.write(json.dumps({"rate": measured.rate, "p50": measured.p50, "p99": measured.p99}))


if __name__ == "__main__":
    main(sys.argv[1:])
