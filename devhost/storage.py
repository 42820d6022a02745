"""Storage accounts as an app's settings name them, and requests to them signed with the account's key.

Signing: https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Literal, Self

import aiohttp
from yarl import URL

from devhost.azurite import AzuritePorts
from devhost.errors import ConnectionInvalid, DevhostError
from devhost.settings import Settings

type Service = Literal["blob", "queue"]

API_VERSION = "2021-12-02"
DEFAULT_CONNECTION = "AzureWebJobsStorage"
DEFAULT_SUFFIX = "core.windows.net"
DEVELOPMENT_STORAGE = AzuritePorts(10000, 10001, 10002).connection_string
"""What UseDevelopmentStorage=true stands for."""
ERROR_HEADER = "x-ms-error-code"
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0

_SIGNED_HEADERS = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)


class StorageRefused(DevhostError):
    """The storage service did not do what it was asked. `code` is its name for the reason, such as QueueNotFound."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"storage answered {status} {code}".rstrip())
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Answer:
    """What the storage service answered."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Account:
    """A storage account with its key, and where its services are, without a slash at the end."""

    name: str
    key: bytes = field(repr=False)
    endpoints: Mapping[Service, str]

    @classmethod
    def parse(cls, text: str) -> Self:
        """An account from its connection string. Raises ValueError with what is wrong with it, and no secret."""
        parts = _parts(text)
        if parts.get("usedevelopmentstorage", "").lower() == "true":
            parts = _parts(DEVELOPMENT_STORAGE)
        name, key = parts.get("accountname"), parts.get("accountkey")
        if not name or not key:
            raise ValueError("it has no AccountName or no AccountKey")
        try:
            decoded = base64.b64decode(key, validate=True)
        except binascii.Error:
            raise ValueError("its AccountKey is not base64") from None
        protocol = parts.get("defaultendpointsprotocol", "https")
        suffix = parts.get("endpointsuffix", DEFAULT_SUFFIX)
        services: tuple[Service, ...] = ("blob", "queue")
        endpoints = {
            service: parts.get(f"{service}endpoint", f"{protocol}://{name}.{service}.{suffix}").rstrip("/")
            for service in services
        }
        return cls(name, decoded, endpoints)

    def authorization(self, method: str, url: URL, headers: Mapping[str, str]) -> str:
        """The Authorization header of a request with these headers."""
        lower = {name.lower(): value for name, value in headers.items()}
        own = sorted((name, value) for name, value in lower.items() if name.startswith("x-ms-"))
        lines = [
            method,
            *(lower.get(name, "") for name in _SIGNED_HEADERS),
            *(f"{name}:{value}" for name, value in own),
            f"/{self.name}{url.raw_path}",
            *(f"{name.lower()}:{value}" for name, value in sorted(url.query.items())),
        ]
        digest = hmac.new(self.key, "\n".join(lines).encode(), hashlib.sha256).digest()
        return f"SharedKey {self.name}:{base64.b64encode(digest).decode()}"


class Storage:
    """Sends requests to the accounts that an app's settings name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    def account(self, connection: str, *, wanted_by: str) -> Account:
        """The account behind a binding's `connection`. Raises ConnectionInvalid, which names `wanted_by`."""
        name = connection or DEFAULT_CONNECTION
        environment = self._settings.environment
        text = environment.get(f"AzureWebJobs{name}") or environment.get(name)
        if not text:
            raise ConnectionInvalid(name, wanted_by, "it is not set; devhost takes connection strings only")
        try:
            return Account.parse(text)
        except ValueError as error:
            raise ConnectionInvalid(name, wanted_by, str(error)) from error

    async def request(
        self,
        account: Account,
        method: str,
        url: URL,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Sends one request. Raises StorageRefused for 400 and above, aiohttp.ClientError and TimeoutError."""
        sent = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": API_VERSION, **(headers or {})}
        if body:
            sent["Content-Length"] = str(len(body))
            sent.setdefault("Content-Type", "application/xml")
        sent["Authorization"] = account.authorization(method, url, sent)
        async with self._open().request(
            method, url, data=body or None, headers=sent, skip_auto_headers=("Content-Type",)
        ) as response:
            if response.status >= 400:  # noqa: PLR2004
                raise StorageRefused(response.status, response.headers.get(ERROR_HEADER, ""))
            return Answer(response.headers.copy(), await response.read())

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            limits = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
            self._session = aiohttp.ClientSession(timeout=limits)
        return self._session


def _parts(text: str) -> dict[str, str]:
    pairs = (part.split("=", 1) for part in text.split(";") if "=" in part)
    return {name.strip().lower(): value.strip() for name, value in pairs}
