"""MLflow's webhooks: whether a delivery is genuine, fresh and new, and what it says.

MLflow signs `delivery id.timestamp.body` with HMAC-SHA256 and the webhook's secret.
(https://mlflow.org/docs/latest/ml/webhooks)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass

from adapters.blobs import BlobConflict, BlobStore
from models.errors import RatchetError

SIGNATURE, TIMESTAMP, DELIVERY = "x-mlflow-signature", "x-mlflow-timestamp", "x-mlflow-delivery-id"
VERSION = "v1,"
WINDOW_SECONDS = 300.0
"""How far a delivery's time may be from this machine's, either way."""
MAX_BODY_BYTES = 64 * 1024
FOLDER = "runs/_webhooks/"
FORGET_SECONDS = 2 * WINDOW_SECONDS
"""A delivery older than this is refused for its time, so that it need not be remembered any longer."""


class WebhookRefused(RatchetError):
    """A delivery that is not acted upon: forged, stale, or seen before."""


@dataclass(frozen=True, slots=True)
class AliasChange:
    """An alias of a registered model was moved or deleted. Which version it names is asked of the registry itself."""

    pipeline: str
    alias: str


def verified(headers: Mapping[str, str], body: bytes, *, secret: str, now: float) -> str:
    """The delivery's id, when the delivery is signed with `secret` and no older than the window. Names of headers in
    lower case; `now` in seconds since 1970 UTC. Raises WebhookRefused.
    """
    delivery, timestamp = headers.get(DELIVERY, ""), headers.get(TIMESTAMP, "")
    given = headers.get(SIGNATURE, "")
    if len(body) > MAX_BODY_BYTES:
        raise WebhookRefused(f"the body has {len(body):,} bytes; at most {MAX_BODY_BYTES:,} are read")
    signed = f"{delivery}.{timestamp}.".encode() + body
    expected = VERSION + base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    if not delivery or not hmac.compare_digest(expected.encode(), given.encode()):
        raise WebhookRefused("the signature does not fit the body: the webhook's secret is another, or this is forged")
    # What is signed is MLflow's own, so the time is a number.
    if not timestamp.isdecimal() or abs(now - int(timestamp)) > WINDOW_SECONDS:
        raise WebhookRefused(f"the delivery is from {timestamp}; this machine's clock says {now:.0f}")
    return delivery


def remember(blobs: BlobStore, delivery: str) -> None:
    """Notes a verified delivery, for all processes. Raises WebhookRefused when it was seen before."""
    try:
        blobs.put(_path(delivery), b"", only_new=True)
    except BlobConflict as exc:
        raise WebhookRefused("this delivery was seen before") from exc


def give_back(blobs: BlobStore, delivery: str) -> None:
    """Forgets a delivery that came to nothing: MLflow sends it again, with the same id."""
    blobs.delete(_path(delivery))


def _path(delivery: str) -> str:
    return f"{FOLDER}{hashlib.sha256(delivery.encode()).hexdigest()[:40]}"


def forget(blobs: BlobStore, *, now: float) -> None:
    """Removes the notes of deliveries that are refused for their time by now."""
    for info in list(blobs.list(FOLDER)):
        if now - info.modified > FORGET_SECONDS:
            blobs.delete(info.path)


def alias_change(body: bytes) -> AliasChange | None:
    """What the delivery says; None for anything but an alias. Raises WebhookRefused when it is no such document."""
    try:
        document = json.loads(body)
        if document["entity"] != "model_version_alias":
            return None
        return AliasChange(str(document["data"]["name"]), str(document["data"]["alias"]))
    except (ValueError, KeyError, TypeError) as exc:
        raise WebhookRefused("the body is not a webhook's document") from exc
