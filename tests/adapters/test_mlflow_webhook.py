"""Which deliveries are acted upon."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient

from adapters import mlflow_webhook
from adapters.mlflow_webhook import FOLDER, AliasChange, WebhookRefused, alias_change, forget, remember, verified
from local.webhook import subscribe
from tests.fakes.blobs import MemoryBlobs

NOW = 1_800_000_000.0
SECRET = "s"
BODY = json.dumps({"entity": "model_version_alias", "data": {"name": "shops", "alias": "champion"}}).encode()


def signed(body: bytes = BODY, *, secret: str = SECRET, delivery: str = "d1", at: str | None = None) -> dict[str, str]:
    timestamp = at or str(int(NOW))
    digest = hmac.new(secret.encode(), f"{delivery}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return {
        mlflow_webhook.SIGNATURE: "v1," + base64.b64encode(digest).decode(),
        mlflow_webhook.TIMESTAMP: timestamp,
        mlflow_webhook.DELIVERY: delivery,
    }


def test_a_genuine_delivery() -> None:
    assert verified(signed(), BODY, secret="s", now=NOW) == "d1"
    assert alias_change(BODY) == AliasChange("shops", "champion")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, BODY),
        (signed(secret="other"), BODY),
        (signed(), BODY + b" "),
        (signed() | {mlflow_webhook.DELIVERY: "d2"}, BODY),
        (signed() | {mlflow_webhook.TIMESTAMP: str(int(NOW) + 1)}, BODY),
        (signed() | {mlflow_webhook.SIGNATURE: "v1,é"}, BODY),
        (signed(delivery=""), BODY),
    ],
    ids=["unsigned", "another secret", "another body", "another id", "another time", "no base64", "no id"],
)
def test_a_forged_delivery(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(WebhookRefused, match="signature"):
        verified(headers, body, secret="s", now=NOW)


@pytest.mark.parametrize("at", [str(int(NOW) - 301), str(int(NOW) + 301), "-5", "1e9"])
def test_a_stale_delivery(at: str) -> None:
    with pytest.raises(WebhookRefused, match="clock"):
        verified(signed(at=at), BODY, secret="s", now=NOW)


def test_a_body_that_is_too_long_is_not_looked_at() -> None:
    body = b" " * (mlflow_webhook.MAX_BODY_BYTES + 1)
    with pytest.raises(WebhookRefused, match="bytes"):
        verified(signed(body), body, secret="s", now=NOW)


@given(body=st.binary(max_size=200))
def test_any_other_body_is_refused_or_nothing_to_do(body: bytes) -> None:
    with contextlib.suppress(WebhookRefused):
        assert alias_change(body) is None


def test_a_replayed_delivery_is_refused_until_its_time_does_that() -> None:
    blobs = MemoryBlobs()
    remember(blobs, "d1")
    with pytest.raises(WebhookRefused, match="seen before"):
        remember(blobs, "d1")
    remember(blobs, "d2")
    forget(blobs, now=mlflow_webhook.FORGET_SECONDS)
    assert len(blobs.paths(FOLDER)) == 2
    forget(blobs, now=mlflow_webhook.FORGET_SECONDS + 1)
    assert blobs.paths(FOLDER) == []


@dataclass
class Receiver:
    """What arrived, header names in lower case."""

    url: str = ""
    deliveries: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.deliveries.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(200)
            self.end_headers()
            found.arrived.set()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_port}"
        yield found
        server.shutdown()
        thread.join()


@pytest.mark.integration
def test_what_mlflow_sends_is_taken_once_and_only_as_it_was_sent(mlflow_url: str, receiver: Receiver) -> None:
    subscribe(mlflow_url, receiver.url, "a shared secret")
    client = MlflowClient(mlflow_url, mlflow_url)
    run = client.create_run("0")
    client.create_registered_model("hooked")
    client.create_model_version(
        "hooked", f"{run.info.artifact_uri}/model", run_id=run.info.run_id, await_creation_for=0
    )
    client.set_registered_model_alias("hooked", "champion", "1")
    assert receiver.arrived.wait(30)
    for webhook in client.list_webhooks():
        client.delete_webhook(webhook.webhook_id)
    headers, body = receiver.deliveries[0]
    now, blobs = time.time(), MemoryBlobs()
    remember(blobs, verified(headers, body, secret="a shared secret", now=now))
    assert alias_change(body) == AliasChange("hooked", "champion")
    with pytest.raises(WebhookRefused, match="seen before"):
        remember(blobs, verified(headers, body, secret="a shared secret", now=now))
    with pytest.raises(WebhookRefused, match="clock"):
        verified(headers, body, secret="a shared secret", now=now + 400)
    for forged, secret in ((body.replace(b"champion", b"champions"), "a shared secret"), (body, "another secret")):
        with pytest.raises(WebhookRefused, match="signature"):
            verified(headers, forged, secret=secret, now=now)
    with pytest.raises(WebhookRefused, match="signature"):
        verified(headers | {mlflow_webhook.DELIVERY: "another"}, body, secret="a shared secret", now=now)
