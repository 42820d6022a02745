"""Load on an HTTP server: wrk when it is installed, or else a small client in a process of its own.

The client sends one fixed request per connection and waits for the answer's last byte, which it finds by its length.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import time
from urllib.parse import urlsplit

_WRK_RATE = re.compile(r"Requests/sec:\s+([0-9.]+)")


def measure(url: str, *, connections: int, seconds: float) -> float:
    """Requests per second. Raises RuntimeError when an answer is not a 200."""
    if wrk := shutil.which("wrk"):
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds:g}s", url]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rate = _WRK_RATE.search(printed)
        if rate is None or "Non-2xx" in printed:
            raise RuntimeError(f"wrk met errors at {url}:\n{printed}")
        return float(rate[1])
    command = [sys.executable, "-m", "bench.load", url, str(connections), str(seconds)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


class _Client(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, request: bytes, until: float) -> None:
        self.request, self.until = request, until
        self.answers = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._missing = 0

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
            self.answers += 1
            self._ask()

    def _ask(self) -> None:
        if time.perf_counter() >= self.until:
            self.transport.close()
            if not self.finished.done():
                self.finished.set_result(None)
        else:
            self.transport.write(self.request)  # type: ignore[attr-defined]


async def load(url: str, connections: int, seconds: float) -> float:
    """The client: requests per second. Raises RuntimeError when an answer is not a 200."""
    parts = urlsplit(url)
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    begun = time.perf_counter()
    loop = asyncio.get_running_loop()
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    clients = [
        (await loop.create_connection(lambda: _Client(request, begun + seconds), host, port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.finished for client in clients))
    return sum(client.answers for client in clients) / (time.perf_counter() - begun)


if __name__ == "__main__":
    sys.stdout.write(str(asyncio.run(load(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))))
