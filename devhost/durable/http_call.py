"""`call_http`: the request that an orchestrator asks for, sent by the host as an activity of its own.

The answer goes to the orchestrator as it is, 202 too: only the SDKs for other languages poll the Location of one.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy

from devhost.durable.store import compact

TIMEOUT_SECONDS = 100.0
"""As .NET's HttpClient."""
CONTENT_HEADERS = frozenset(
    {
        "allow",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-length",
        "content-location",
        "content-md5",
        "content-range",
        "content-type",
        "expires",
        "last-modified",
    }
)
"""Headers of a response that .NET counts to its content, and that therefore do not reach the orchestrator."""

type Tokens = Callable[[str], Awaitable[str]]
"""The access token for a resource, such as https://management.core.windows.net."""


class HttpCalls:
    """Sends requests. It belongs to one event loop and has to be closed."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self._tokens = tokens or _managed_identity
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, request: Mapping[str, Any]) -> str:
        """The response as JSON text. Raises aiohttp.ClientError, TimeoutError, ValueError, and what a token costs."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        headers, body = _content(request)
        source = request.get("tokenSource")
        if source:
            headers["Authorization"] = f"Bearer {await self._tokens(source['resource'])}"
        url = request["uri"]
        try:
            async with self._session.request(request["method"], url, headers=headers, data=body) as response:
                text = await response.text(errors="replace")
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise ValueError(
                f"An invalid request URI was provided: {url!r} is no absolute http or https URL."
            ) from error
        answer = {"statusCode": response.status, "headers": _shown(response.headers), "content": text}
        return compact(answer)


def _content(request: Mapping[str, Any]) -> tuple[dict[str, str], bytes | None]:
    """Headers and body as .NET sends them: text/plain where the orchestrator names no type. Raises ValueError."""
    headers = {name: value if isinstance(value, str) else ", ".join(value) for name, value in _headers(request)}
    given = next((name for name in headers if name.lower() == "content-type"), None)
    content_type = headers.pop(given) if given else "text/plain"
    if "multipart" in content_type:
        raise ValueError("Multipart content is not supported with CallHttpAsync.")
    content = request.get("content")
    if content is None:
        return headers, None
    headers["Content-Type"] = content_type
    return headers, (content if isinstance(content, str) else json.dumps(content)).encode()


def _headers(request: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list((request.get("headers") or {}).items())


def _shown(headers: CIMultiDictProxy[str]) -> dict[str, Any]:
    """A header that comes once is a string, one that comes more often a list."""
    shown: dict[str, Any] = {}
    for name in dict.fromkeys(headers):
        if name.lower() not in CONTENT_HEADERS:
            values = headers.getall(name)
            shown[name] = values[0] if len(values) == 1 else values
    return shown


async def _managed_identity(resource: str) -> str:
    """From whatever identity azure-identity finds: on a developer's machine, for example, that of `az login`."""
    try:
        from azure.identity.aio import DefaultAzureCredential
    except ImportError as error:
        raise ValueError("A token source needs the package azure-identity, which is not installed.") from error
    async with DefaultAzureCredential() as credential:
        token = await credential.get_token(f"{resource.rstrip('/')}/.default")
    return token.token
