"""What a user does with one pipeline of a running stack: upload, look, ask."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from azure.storage.blob import BlobServiceClient

from local.stack import LocalStack

PATIENCE_SECONDS = 180.0
"""Long: a worker that is killed imports its libraries anew, which takes many times as long on a busy machine."""
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: Any


class Shop:
    """One pipeline."""

    def __init__(self, stack: LocalStack, name: str, blobs: BlobServiceClient) -> None:
        self.stack, self.name, self.blobs = stack, name, blobs

    @classmethod
    @contextlib.contextmanager
    def of(cls, stack: LocalStack, name: str) -> Iterator[Shop]:
        with BlobServiceClient.from_connection_string(stack.blob_connection_string) as blobs:
            yield cls(stack, name, blobs)

    def upload(self, name: str, data: bytes) -> str:
        path = f"{self.name}/{name}"
        with self.blobs.get_blob_client("training", path) as blob:
            blob.upload_blob(data, overwrite=True)
        return path

    def download(self, path: str) -> bytes:
        container, _, name = path.partition("/")
        with self.blobs.get_blob_client(container, name) as blob:
            return blob.download_blob().readall()

    def ask(self, path: str, document: Any = None, headers: Mapping[str, str] = MappingProxyType({})) -> Reply:
        data = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(self.stack.app_url + path, data=data, headers=dict(headers))
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return Reply(response.status, _lower(response.headers), json.loads(response.read() or b"null"))
        except urllib.error.HTTPError as exc:
            with exc:
                text = exc.read()
            return Reply(exc.code, _lower(exc.headers), json.loads(text) if text else None)

    def status(self) -> Any:
        return self._seen(f"/api/pipelines/{self.name}")

    def predict(self, document: Any) -> Reply:
        return self.ask(f"/api/pipelines/{self.name}/predict", document)

    def runs(self) -> list[Any]:
        listed = self._seen(f"/api/pipelines/{self.name}/runs")["runs"]
        return [self._seen(f"/api/pipelines/{self.name}/runs/{run['id']}") for run in listed]

    def _seen(self, path: str) -> Any:
        """A document. Raises ConnectionError where the worker that was to answer has been killed."""
        reply = self.ask(path)
        if reply.status >= 500:
            raise ConnectionError(reply.status)
        assert reply.status == 200, reply
        return reply.body

    def record_of(self, *paths: str, patience: float = PATIENCE_SECONDS) -> Any:
        """The record of the run that took all these partitions, once it is there and nothing runs any more."""

        def found() -> Any:
            if self.status()["run"] is not None:
                return None
            return next((r for r in self.runs() if set(paths) <= {p["path"] for p in r["partitions"]}), None)

        return self.eventually(found, patience=patience)

    def eventually[T](self, condition: Callable[[], T | None], *, patience: float = PATIENCE_SECONDS) -> T:
        """The condition's first true answer. A host that is away at the moment counts as not yet."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if answer := condition():
                    return answer
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"not within {patience} s; the status is {self.status()}")

    def step_reached(self, *steps: str) -> str:
        """Waits until the run is in one of these steps."""

        def reached() -> str | None:
            run = self.status()["run"]
            return run["step"] if run is not None and run["step"] in steps else None

        return self.eventually(reached)


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
