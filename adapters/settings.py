"""Settings from the environment, read once into one frozen object. Every missing or bad one is named in one error."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from models.errors import RatchetError, bounded

Role = Literal["all", "train", "serve"]
ROLES: tuple[Role, ...] = ("all", "train", "serve")
APP_DIRECTORY = Path(__file__).resolve().parent.parent
DEVELOPMENT_STORAGE, DEVELOPMENT_ACCOUNT = "UseDevelopmentStorage=true", "devstoreaccount1"
"""Azurite on its own ports. The tables client takes it in this spelling only."""
BLOB_URI, TABLE_URI = "AzureWebJobsStorage__blobServiceUri", "AzureWebJobsStorage__tableServiceUri"
TOPIC_ENDPOINT, TOPIC_KEY = "RATCHET_EVENTS_TOPIC_ENDPOINT", "RATCHET_EVENTS_TOPIC_KEY"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
BODY_BYTES, ROWS, REQUEST_SECONDS = 10 * 2**20, 100_000, 30.0
"""What one request to a model may take, unless the settings say otherwise."""
MAX_BODY_BYTES = 100 * 2**20
"""The Functions host itself takes no longer body."""
MAX_ROWS = 10_000_000
MIN_REQUEST_SECONDS, MAX_REQUEST_SECONDS = 0.001, 230.0
"""The load balancer in front of the Functions host waits no longer."""
MAX_TTL_SECONDS = 3600.0
MAX_THREADS = 256
MAX_MEGABYTES = 1_000_000
MAX_VERSIONS = 100
MAX_CACHE_DAYS = 3650.0
MIN_MEMORY_MB, MAX_MEMORY_MB = 128, 1_048_576
STORAGE_TIMEOUT_SECONDS, MAX_STORAGE_TIMEOUT_SECONDS = 30.0, 300.0


@dataclass(frozen=True, slots=True)
class Pricing:
    """What a run is priced by. Without prices its record has GB-seconds only."""

    instance_memory_mb: int = 2048
    """RATCHET_INSTANCE_MEMORY_MB: the plan's instance size."""
    gb_second: float | None = None
    """RATCHET_PRICE_GB_SECOND."""
    million_executions: float | None = None
    """RATCHET_PRICE_MILLION_EXECUTIONS."""
    currency: str = "USD"
    """RATCHET_PRICE_CURRENCY."""
    as_of: str = ""
    """RATCHET_PRICES_AS_OF: the day the prices are from (2026-11-01)."""


class SettingsError(RatchetError):
    """Settings are missing or malformed. `problems` has one line for each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        where = "Set them in the app's settings (locally: local.settings.json, or the environment)."
        super().__init__("\n".join(["The app cannot start its work:", *(f"  - {line}" for line in problems), where]))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Settings:
    """What the app is told from outside. Secrets do not show in its repr."""

    storage_connection: str | None = field(repr=False)
    """AzureWebJobsStorage: the connection string of the account; None with an identity."""
    blob_service_uri: str | None
    """AzureWebJobsStorage__blobServiceUri, for an identity."""
    table_service_uri: str | None
    """AzureWebJobsStorage__tableServiceUri, for an identity."""
    client_id: str | None
    """AzureWebJobsStorage__clientId: which user-assigned identity; None for the system-assigned one."""
    mlflow_tracking_uri: str | None = field(repr=False)
    """MLFLOW_TRACKING_URI. The serving role does without. Not shown: it may carry a password."""
    role: Role
    """RATCHET_ROLE: all, train or serve."""
    pipelines_dir: Path
    """RATCHET_PIPELINES_DIR: where the pipeline files are; by default `pipelines` beside the app."""
    hostname: str | None
    """WEBSITE_HOSTNAME, which the platform sets: the app's host, with a port where it runs locally."""
    events_topic_endpoint: str | None
    """RATCHET_EVENTS_TOPIC_ENDPOINT: the Event Grid topic that Ratchet's own events go to."""
    events_topic_key: str | None = field(repr=False)
    """RATCHET_EVENTS_TOPIC_KEY; without it the app's identity is used."""
    webhook_secret: str | None = field(repr=False)
    """RATCHET_MLFLOW_WEBHOOK_SECRET: what MLflow signs its webhooks with; without it none are taken."""
    cache_dir: Path
    """RATCHET_CACHE_DIR: where serving keeps models on local disk."""
    pointer_ttl_seconds: float
    """RATCHET_POINTER_TTL_SECONDS: how often a process looks for a new champion, at most."""
    pointer_max_age_seconds: float
    """RATCHET_POINTER_MAX_AGE_SECONDS: a request waits for a look at the pointer when the last one is longer ago."""
    cache_megabytes: int
    """RATCHET_CACHE_MEGABYTES: how much of RATCHET_CACHE_DIR the models of all pipelines may fill."""
    versions_kept: int
    """RATCHET_VERSIONS_KEPT: versions asked for by number that a process keeps loaded beside its champions."""
    cache_days: float
    """RATCHET_CACHE_DAYS: how long caches below features/ are kept once nothing can use them any more."""
    pricing: Pricing
    storage_timeout_seconds: float
    """RATCHET_STORAGE_TIMEOUT_SECONDS: how long storage may be silent before a request is given up and made again."""
    training_threads: int
    """RATCHET_TRAINING_THREADS: threads of LightGBM; 0 means what fits the instance (adapters.threads)."""
    max_body_bytes: int
    """RATCHET_MAX_BODY_BYTES: the longest request to a model, as it is sent and without its compression."""
    max_rows: int
    """RATCHET_MAX_ROWS: the most rows in one request to a model."""
    request_seconds: float
    """RATCHET_REQUEST_SECONDS: how long a request to a model may take before it is given up."""

    @property
    def url(self) -> str:
        """Where the app answers, without a slash at the end; '' where nobody said."""
        if self.hostname is None:
            return ""
        scheme = "http" if urlsplit(f"//{self.hostname}").hostname in LOOPBACK else "https"
        return f"{scheme}://{self.hostname}"

    @property
    def account(self) -> str:
        """The storage account's name, or '' when it cannot be told (a domain of one's own)."""
        if self.storage_connection is None:
            host = urlsplit(self.blob_service_uri or "").hostname or ""
            return host.partition(".")[0] if ".blob." in host else ""
        if self.storage_connection == DEVELOPMENT_STORAGE:
            return DEVELOPMENT_ACCOUNT
        parts = dict(part.partition("=")[::2] for part in self.storage_connection.split(";"))
        return next((value.strip() for name, value in parts.items() if name.strip().lower() == "accountname"), "")

    def require_mlflow(self) -> str:
        """The tracking server's address. Raises SettingsError."""
        if self.mlflow_tracking_uri is None:
            raise SettingsError(("MLFLOW_TRACKING_URI is missing: the address of the MLflow server",))
        return self.mlflow_tracking_uri


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Settings from an environment. Raises SettingsError that names everything that is wrong."""
    read = _Reader(environ)
    settings = Settings(
        storage_connection=read.connection(),
        blob_service_uri=read.address(BLOB_URI),
        table_service_uri=read.address(TABLE_URI),
        client_id=read.text("AzureWebJobsStorage__clientId"),
        mlflow_tracking_uri=read.text("MLFLOW_TRACKING_URI"),
        role=read.parsed("RATCHET_ROLE", "all", _role, "all, train or serve"),
        pipelines_dir=read.parsed("RATCHET_PIPELINES_DIR", APP_DIRECTORY / "pipelines", _directory, "a directory"),
        hostname=read.parsed("WEBSITE_HOSTNAME", None, _hostname, "a host, such as app.azurewebsites.net"),
        events_topic_endpoint=read.address(TOPIC_ENDPOINT),
        events_topic_key=read.text(TOPIC_KEY),
        webhook_secret=read.text("RATCHET_MLFLOW_WEBHOOK_SECRET"),
        cache_dir=read.parsed("RATCHET_CACHE_DIR", Path(tempfile.gettempdir()) / "ratchet", Path, "a directory"),
        pointer_ttl_seconds=read.parsed("RATCHET_POINTER_TTL_SECONDS", 1.0, *_measure("seconds", 0, MAX_TTL_SECONDS)),
        pointer_max_age_seconds=read.parsed(
            "RATCHET_POINTER_MAX_AGE_SECONDS", 10.0, *_measure("seconds", 0, MAX_TTL_SECONDS)
        ),
        cache_megabytes=read.parsed("RATCHET_CACHE_MEGABYTES", 256, *_whole(0, MAX_MEGABYTES)),
        versions_kept=read.parsed("RATCHET_VERSIONS_KEPT", 3, *_whole(0, MAX_VERSIONS)),
        training_threads=read.parsed("RATCHET_TRAINING_THREADS", 0, *_whole(0, MAX_THREADS)),
        max_body_bytes=read.parsed("RATCHET_MAX_BODY_BYTES", BODY_BYTES, *_whole(1, MAX_BODY_BYTES)),
        max_rows=read.parsed("RATCHET_MAX_ROWS", ROWS, *_whole(1, MAX_ROWS)),
        request_seconds=read.parsed(
            "RATCHET_REQUEST_SECONDS", REQUEST_SECONDS, *_measure("seconds", MIN_REQUEST_SECONDS, MAX_REQUEST_SECONDS)
        ),
        cache_days=read.parsed("RATCHET_CACHE_DAYS", 7.0, *_measure("days", 0, MAX_CACHE_DAYS)),
        pricing=read.pricing(),
        storage_timeout_seconds=read.parsed(
            "RATCHET_STORAGE_TIMEOUT_SECONDS",
            STORAGE_TIMEOUT_SECONDS,
            *_measure("seconds", 1, MAX_STORAGE_TIMEOUT_SECONDS),
        ),
    )
    if read.text(TOPIC_KEY) is not None and read.text(TOPIC_ENDPOINT) is None:
        read.problems.append(f"{TOPIC_ENDPOINT} is missing, although there is a {TOPIC_KEY} for it")
    if read.problems:
        raise SettingsError(tuple(read.problems))
    return settings


class _Reader:
    """Values by name; what is wrong with them is collected in `problems`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self._environ = environ

    def text(self, name: str) -> str | None:
        """The value; an empty one is none."""
        return self._environ.get(name, "").strip() or None

    def parsed(self, name: str, default: Any, convert: Callable[[str], Any], expectation: str) -> Any:
        raw = self.text(name)
        if raw is None:
            return default
        try:
            return convert(raw)
        except ValueError:
            self.problems.append(f"{name} is {bounded(raw, 40)!r}; it has to be {expectation}")
            return default

    def address(self, name: str) -> str | None:
        value: str | None = self.parsed(name, None, _address, "an address that starts with https:// or http://")
        return value

    def pricing(self) -> Pricing:
        """Prices belong together: one alone, or without their day, says nothing."""
        names = ("RATCHET_PRICE_GB_SECOND", "RATCHET_PRICE_MILLION_EXECUTIONS", "RATCHET_PRICES_AS_OF")
        given = [name for name in names if self.text(name) is not None]
        if given and len(given) < len(names):
            missing = ", ".join(name for name in names if name not in given)
            self.problems.append(f"{missing} missing: the prices of a run need {', '.join(names)}")
        return Pricing(
            instance_memory_mb=self.parsed("RATCHET_INSTANCE_MEMORY_MB", 2048, *_whole(MIN_MEMORY_MB, MAX_MEMORY_MB)),
            gb_second=self.parsed(names[0], None, _price, "a price, such as 0.000026"),
            million_executions=self.parsed(names[1], None, _price, "a price, such as 0.40"),
            currency=self.text("RATCHET_PRICE_CURRENCY") or "USD",
            as_of=self.parsed(names[2], "", _day, "a day, such as 2026-11-01"),
        )

    def connection(self) -> str | None:
        """The storage account's connection string; None when an identity is to be used."""
        raw = self.text("AzureWebJobsStorage")
        if raw is None:
            if self.text(BLOB_URI) is None or self.text(TABLE_URI) is None:
                message = f"AzureWebJobsStorage is missing: a connection string, or {BLOB_URI} and {TABLE_URI}"
                self.problems.append(f"{message} for an identity")
            return None
        try:
            return _connection(raw)
        except ValueError:
            # The value itself is a secret, and stays out of the message.
            self.problems.append(
                "AzureWebJobsStorage is no connection string; it has to be what the storage account shows under Access "
                f"keys (DefaultEndpointsProtocol=https;AccountName=...;AccountKey=...), or {DEVELOPMENT_STORAGE}"
            )
            return None


def role(environ: Mapping[str, str]) -> Role:
    """The role alone: the one setting that is needed when functions are indexed, where nothing else may be missing."""
    raw = environ.get("RATCHET_ROLE", "").strip() or "all"
    try:
        return _role(raw)
    except ValueError as exc:
        raise SettingsError((f"RATCHET_ROLE is {bounded(raw, 40)!r}; it has to be all, train or serve",)) from exc


def _role(raw: str) -> Role:
    if raw not in ROLES:
        raise ValueError(raw)
    return raw


def _connection(raw: str) -> str:
    """What all storage clients take: names with values, among them an account or its addresses, and a key."""
    parts = [part.partition("=") for part in raw.rstrip(";").split(";")]
    values = {name.strip().lower(): value.strip() for name, _, value in parts}
    if not all(equals for _, equals, _ in parts):
        raise ValueError(raw)
    if values.get("usedevelopmentstorage", "").lower() == "true":
        return DEVELOPMENT_STORAGE
    named = values.get("accountname") or {"blobendpoint", "tableendpoint"} <= values.keys()
    if not named or not (values.get("accountkey") or values.get("sharedaccesssignature")):
        raise ValueError(raw)
    return raw


def _hostname(raw: str) -> str:
    parts = urlsplit(f"//{raw}")
    if parts.netloc != raw or not parts.hostname or parts.username is not None or parts.port == 0:
        raise ValueError(raw)
    return raw


def _address(raw: str) -> str:
    if not raw.startswith(("https://", "http://")) or not raw.partition("://")[2]:
        raise ValueError(raw)
    return raw


def _directory(raw: str) -> Path:
    path = Path(raw)
    if not path.is_dir():
        raise ValueError(raw)
    return path


type _Reading[N] = tuple[Callable[[str], N], str]
"""How to read a value, and how to name what is read."""


def _within[N: (int, float)](read: Callable[[str], N], least: float, most: float, named: str) -> _Reading[N]:
    def convert(raw: str) -> N:
        value = read(raw)
        if not least <= value <= most:
            raise ValueError(raw)
        return value

    return convert, named


def _whole(least: int, most: int) -> _Reading[int]:
    return _within(int, least, most, f"a whole number from {least} to {most}")


def _measure(unit: str, least: float, most: float) -> _Reading[float]:
    return _within(float, least, most, f"{unit}, from {least:g} to {most:g}")


def _price(raw: str) -> float:
    value = float(raw)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(raw)
    return value


def _day(raw: str) -> str:
    return date.fromisoformat(raw).isoformat()
