"""The processes of Ratchet's local stack besides Azurite: MLflow, the functions host, the local Event Grid."""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devhost.azurite import AzuritePorts
from devhost.ports import LOOPBACK
from devhost.probes import http_probe
from devhost.supervisor import Part

REPOSITORY = Path(__file__).resolve().parents[1]
MLFLOW, HOST, EVENT_GRID = "MLflow", "Functions", "Event Grid"
TRAINING = "training"
CONTAINERS = (TRAINING, "features", "models", "quarantine", "runs")
FUNCTION = "on_training_blob"
EVENT_TYPES = tuple(f"Microsoft.Storage.Blob{what}" for what in ("Created", "Deleted", "Renamed"))
"""What a subscription for the function has to include; accounts with a hierarchical namespace rename without writing,
which Azurite cannot."""
FERNET_KEY_BYTES = 32
TOPIC = "ratchet"
SWEEP_SCHEDULE = "0 */1 * * * *"
"""Every minute: a lost event should not keep somebody waiting who watches."""
RECONCILE_SCHEDULE = "*/30 * * * * *"
SLOW_START_SECONDS = 120.0
"""MLflow's server needs 7 to 15 s on two idle cores, most of it imports; this leaves room for a loaded machine."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything is: the data directory, and the port of each service on loopback."""

    data: Path
    azurite: AzuritePorts
    app: int
    mlflow: int
    events: int

    @property
    def app_url(self) -> str:
        """Of the functions host."""
        return f"http://{LOOPBACK}:{self.app}"

    @property
    def mlflow_url(self) -> str:
        """Of MLflow's server and UI."""
        return f"http://{LOOPBACK}:{self.mlflow}"

    @property
    def events_url(self) -> str:
        """Of the local Event Grid."""
        return f"http://{LOOPBACK}:{self.events}"


def mlflow_part(places: Places) -> Part:
    """MLflow's tracking server and registry on SQLite, serving its artifacts itself.

    Its webhooks may go to this machine over plain http; their secrets are encrypted with a key that lies beside them.
    """
    folder = places.data / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "webhooks.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_text(base64.urlsafe_b64encode(secrets.token_bytes(FERNET_KEY_BYTES)).decode())
    command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(places.mlflow)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    webhooks = {
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_CACHE_TTL": "1",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": key.read_text(),
    }
    return Part(
        name=MLFLOW,
        command=command,
        probe=http_probe(f"{places.mlflow_url}/health"),
        url=places.mlflow_url,
        env={**_no_proxy(), **quiet, **webhooks},
        cwd=folder,  # MLflow leaves an mlruns folder where it starts
        ready_within=SLOW_START_SECONDS,
    )


def host_part(
    places: Places, *, app_dir: Path, workers: int, topic_key: str, webhook_secret: str, env: Mapping[str, str]
) -> Part:
    """The functions host with the app in `app_dir`; `env` goes over the settings made here."""
    command = [sys.executable, "-m", "devhost", "start", "--app", str(app_dir), "--host", LOOPBACK]
    command += ["--port", str(places.app), "--workers", str(workers), "--state", str(places.data / "host")]
    settings = {
        "AzureWebJobsStorage": places.azurite.connection_string,
        "MLFLOW_TRACKING_URI": places.mlflow_url,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "RATCHET_EVENTS_TOPIC_ENDPOINT": f"{places.events_url}/topics/{TOPIC}/api/events",
        "RATCHET_EVENTS_TOPIC_KEY": topic_key,
        "RATCHET_CACHE_DIR": str(places.data / "cache"),
        "RATCHET_SWEEP_SCHEDULE": SWEEP_SCHEDULE,
        "RATCHET_RECONCILE_SCHEDULE": RECONCILE_SCHEDULE,
        "RATCHET_MLFLOW_WEBHOOK_SECRET": webhook_secret,
    }
    return Part(
        name=HOST,
        command=command,
        probe=http_probe(f"{places.app_url}/admin/host/status"),
        url=places.app_url,
        env={**_no_proxy(), **settings, **env},
        cwd=REPOSITORY,
        ready_within=SLOW_START_SECONDS,
        log_name="host",
    )


def event_grid_part(places: Places, *, azurite_log: Path, topic_key: str) -> Part:
    """The local Event Grid: blob events of the training container to the app, and the app's own topic.

    It is ready when the function has answered the handshake.
    """
    command = [sys.executable, "-m", "devhost.eventgrid", "--port", str(places.events)]
    command += ["--state", str(places.data / "eventgrid"), "--azurite-log", str(azurite_log)]
    command += ["--functions-host", places.app_url, "--function", FUNCTION]
    command += ["--subject-begins-with", f"/blobServices/default/containers/{TRAINING}/"]
    command += [text for event_type in EVENT_TYPES for text in ("--event-type", event_type)]
    env = {"AzureWebJobsStorage": places.azurite.connection_string, "EVENTGRID_TOPIC_KEY": topic_key}
    return Part(
        name=EVENT_GRID,
        command=command,
        probe=http_probe(f"{places.events_url}/ready"),
        url=places.events_url,
        env={**_no_proxy(), **env},
        cwd=REPOSITORY,
        log_name="eventgrid",
    )


def _no_proxy() -> dict[str, str]:
    """Clients that honour a proxy of the user's must not use it for this machine."""
    given = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    value = ",".join(filter(None, [given, LOOPBACK, "localhost"]))
    return {"NO_PROXY": value, "no_proxy": value}
