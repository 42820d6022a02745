"""Which deliveries are acted upon. What MLflow really sends is tested in tests/integration/test_registry.py."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import mlflow_webhook
from adapters.mlflow_webhook import FOLDER, AliasChange, WebhookRefused, alias_change, forget, remember, verified
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
