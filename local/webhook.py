"""MLflow's webhook to the app: moving the alias `champion` in its UI is told at once."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from devhost.errors import DevhostError

NAME = "ratchet"
PATH = "/api/mlflow/webhook"
EVENTS = [{"entity": "MODEL_VERSION_ALIAS", "action": action} for action in ("CREATED", "DELETED")]
TIMEOUT_SECONDS = 20.0


class WebhookNotMade(DevhostError):
    """MLflow did not take the webhook."""


def subscribe(mlflow_url: str, app_url: str, secret: str) -> None:
    """Makes the webhook anew: an older one of this name may have another port and secret. Raises WebhookNotMade."""
    try:
        for webhook in _call(mlflow_url, "GET", "").get("webhooks", []):
            if webhook["name"] == NAME:
                _call(mlflow_url, "DELETE", f"/{webhook['webhook_id']}", {})
        wanted = {"name": NAME, "url": app_url + PATH, "events": EVENTS, "secret": secret, "status": "ACTIVE"}
        _call(mlflow_url, "POST", "", wanted)
    except (OSError, ValueError, KeyError) as exc:
        raise WebhookNotMade(f"MLflow at {mlflow_url} did not take the webhook to {app_url}: {exc}") from exc


def _call(mlflow_url: str, method: str, path: str, document: Any = None) -> dict[str, Any]:
    data = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(f"{mlflow_url}/api/2.0/mlflow/webhooks{path}", data=data, method=method)  # noqa: S310 (the local stack's own address)
    request.add_header("content-type", "application/json")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
        found: dict[str, Any] = json.loads(answer.read() or b"{}")
        return found
