"""Load from wrk that records every answer: when, how long, which version, which worker, and whether it was right."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

CONNECTIONS = 16
SCRIPT = Path(__file__).with_name("record.lua")
_RESULT = re.compile(r"^RESULT (\d+) (\d+)$", re.MULTILINE)
LONGEST_SECONDS = 3_600


class Answer(NamedTuple):
    """`asked` is in seconds since 1970, `taken` in milliseconds."""

    asked: float
    taken: float
    version: int
    worker: int
    right: bool

    @property
    def ended(self) -> float:
        return self.asked + self.taken / 1_000


class Recording:
    """Load on `url` while it is open. `expected` says what an answer of each version has to hold."""

    def __init__(self, url: str, body: Path, folder: Path, expected: Mapping[int, str]) -> None:
        wrk = shutil.which("wrk")
        if wrk is None:
            raise RuntimeError("this benchmark needs wrk, which records every answer: install the package wrk")
        folder.mkdir()
        self._command = [wrk, f"-t{CONNECTIONS}", f"-c{CONNECTIONS}", f"-d{LONGEST_SECONDS}s", "--timeout", "10s"]
        self._command += ["-s", str(SCRIPT), url, "--", str(body), str(folder)]
        self._command += [f"{version}={text}" for version, text in expected.items()]
        self._files = [folder / f"{number}.txt" for number in range(CONNECTIONS)]
        self._read = dict.fromkeys(self._files, 0)
        self.answers: list[Answer] = []
        self.errors = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGINT)  # which makes wrk tell what it has measured
        printed, _ = self._process.communicate(timeout=60)
        result = _RESULT.search(printed)
        if result is None:
            raise RuntimeError(f"wrk ended with:\n{printed}")
        self.errors = int(result[2])
        self.news()

    def news(self) -> list[Answer]:
        """The answers since the last call. They are in `answers` as well."""
        if self._process.poll() not in {None, 0}:
            raise RuntimeError(f"wrk ended with status {self._process.returncode}")
        found: list[Answer] = []
        for path in self._files:
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self._read[path])
                content = file.read()
            whole = content.rfind(b"\n") + 1
            self._read[path] += whole
            found += [_answer(line) for line in content[:whole].splitlines()]
        self.answers += found
        return found

    def until_served(self, version: int, workers: frozenset[int], since: float, patience: float) -> dict[int, float]:
        """When each worker first answered with `version` a request of after `since`. Raises RuntimeError."""
        first: dict[int, float] = {}
        deadline = time.monotonic() + patience
        while first.keys() < workers:
            for answer in self.news():
                if answer.version == version and answer.asked >= since:
                    first[answer.worker] = min(answer.ended, first.get(answer.worker, answer.ended))
            if time.monotonic() > deadline:
                raise RuntimeError(f"version {version} was not served by every process within {patience:g} s: {first}")
            time.sleep(0.02)
        return first


def _answer(line: bytes) -> Answer:
    asked, taken, version, worker, right = line.split()
    known = version.isdigit() and worker.isdigit()
    return Answer(
        int(asked) / 1e6, int(taken) / 1_000, int(version) if known else -1, int(worker) if known else -1, right == b"1"
    )
