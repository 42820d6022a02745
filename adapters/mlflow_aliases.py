"""MLflow's aliases and tags by its REST API, without its client.

Whoever follows an alias, at a webhook or on a timer, needs no more than these few requests. The client takes seconds
to import and 100 MB to keep, in each worker and at the first webhook that it gets: long after the two seconds within
which an alias that was moved is to be served.
(https://mlflow.org/docs/latest/api_reference/rest-api.html)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adapters.registry import NoSuchVersion, RegistryError
from models.errors import bounded

if TYPE_CHECKING:
    import requests

API = "/api/2.0/mlflow"
TIMEOUT_SECONDS = 10.0
"""What one of these requests may take. Milliseconds are usual; a server that needs longer is away."""
RETRIES, BACKOFF_SECONDS = "3", 0.1
"""After an answer that speaks of an outage, or none: at once, then after 0.2 and 0.4 s."""
TRANSIENT = (408, 429, 500, 502, 503, 504)
GONE = "RESOURCE_DOES_NOT_EXIST"


class MlflowAliases:
    """`uri` is that of a tracking server, https:// or http://. Credentials are MLflow's own: in the URI, or in its
    environment variables for a user with a password, a token, and TLS.
    """

    def __init__(self, uri: str) -> None:
        self._base = uri.rstrip("/") + API
        self._session = _session()

    def aliases(self, pipeline: str) -> Mapping[str, int]:
        try:
            found = self._call("GET", "registered-models/get", params={"name": pipeline})
        except NoSuchVersion:
            return {}
        return {entry["alias"]: int(entry["version"]) for entry in found["registered_model"].get("aliases", ())}

    def set_alias(self, pipeline: str, alias: str, version: int) -> None:
        self._call("POST", "registered-models/alias", json={"name": pipeline, "alias": alias, "version": str(version)})

    def remove_alias(self, pipeline: str, alias: str) -> None:
        with contextlib.suppress(NoSuchVersion):  # the whole model is gone, and its aliases with it
            self._call("DELETE", "registered-models/alias", json={"name": pipeline, "alias": alias})

    def knows(self, pipeline: str, version: int) -> bool:
        try:
            self._call("GET", "model-versions/get", params={"name": pipeline, "version": str(version)})
        except NoSuchVersion:
            return False
        return True

    def tag(self, pipeline: str, version: int, name: str, value: str) -> None:
        wanted = {"name": pipeline, "version": str(version), "key": name, "value": value}
        self._call("POST", "model-versions/set-tag", json=wanted)

    def _call(self, method: str, path: str, **content: Any) -> Any:
        """Raises NoSuchVersion, RegistryError and OSError: what requests raises is one."""
        with self._session.request(method, f"{self._base}/{path}", timeout=TIMEOUT_SECONDS, **content) as answer:
            try:
                document = answer.json()
            except ValueError:
                document = None
            if answer.ok and isinstance(document, dict):
                return document
            code = document.get("error_code") if isinstance(document, dict) else None
            said = document.get("message") if isinstance(document, dict) else answer.text
            raise (NoSuchVersion if code == GONE else RegistryError)(f"{answer.status_code}: {bounded(said or '')}")


def _session() -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = requests.Session()
    session.verify = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or (
        os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in {"true", "1"}
    )
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{what}") for what in ("USERNAME", "PASSWORD"))
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if user and password:
        session.auth = (user, password)
    elif token:
        session.headers["Authorization"] = f"Bearer {token}"
    # Every one of these requests may be repeated: it sets what it names, or reads.
    retries = Retry(
        total=int(os.environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES", RETRIES)),
        status_forcelist=TRANSIENT,
        respect_retry_after_header=False,
        allowed_methods=None,
        backoff_factor=BACKOFF_SECONDS,
        raise_on_status=False,
    )
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    return session
