"""Aliases and tags without MLflow's client. With a real MLflow: test_mlflow_registry.py and test_mlflow_wishes.py."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from adapters.mlflow_aliases import MlflowAliases
from adapters.mlflow_registry import MlflowRegistry
from adapters.registry import RegistryError
from devhost.ports import LOOPBACK

FOUND = {"registered_model": {"name": "shops", "aliases": [{"alias": "champion", "version": "3"}]}}


class Server(HTTPServer):
    """Gives its `answers` (status, body) in turn, the last one again and again, and remembers who asked."""

    answers: list[tuple[int, bytes]]
    asked: list[str]

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.headers.get("Authorization", ""))
        answers = self.server.answers
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server((LOOPBACK, 0), Handler) as server:
        server.answers, server.asked = [(200, json.dumps(FOUND).encode())], []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_outage_that_passes_is_not_noticed(server: Server) -> None:
    server.answers.insert(0, (503, b"busy"))
    assert MlflowAliases(server.url + "/").aliases("shops") == {"champion": 3}


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [(500, b"<html>a proxy's page", "500: <html>a proxy's page"), (403, b'{"message": "not you"}', "403: not you")],
)
def test_an_answer_that_is_none(
    server: Server, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, said: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server.answers = [(status, body)]
    with pytest.raises(RegistryError, match=said):
        MlflowRegistry(server.url).aliases("shops")
    server.answers = [(200, b"<html>sign in")]
    with pytest.raises(RegistryError, match="sign in"):
        MlflowRegistry(server.url).aliases("shops")


@pytest.mark.parametrize(
    ("environment", "header"),
    [
        ({"USERNAME": "ann", "PASSWORD": "secret"}, "Basic " + base64.b64encode(b"ann:secret").decode()),
        ({"TOKEN": "secret"}, "Bearer secret"),
        ({}, ""),
    ],
)
def test_credentials_are_those_of_mlflow(
    server: Server, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], header: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    MlflowAliases(server.url).aliases("shops")
    assert server.asked == [header]


def test_credentials_in_the_address(server: Server) -> None:
    MlflowAliases(server.url.replace("://", "://ann:secret@")).aliases("shops")
    assert server.asked == ["Basic " + base64.b64encode(b"ann:secret").decode()]


def test_whoever_follows_an_alias_does_not_import_the_client(server: Server) -> None:
    """It takes seconds, which a webhook does not have."""
    code = (
        "import sys; from adapters.mlflow_registry import MlflowRegistry; "
        f"print(MlflowRegistry({server.url!r}).aliases('shops'), 'mlflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split("\n")[0] == "{'champion': 3} False"
