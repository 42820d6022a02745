"""Access keys, as in the cloud: who may call HTTP functions, the extensions' webhooks, and the host's own addresses.

A key comes in the header x-functions-key or in the query as `code`. What opens what:

    authLevel anonymous         no key
    authLevel function          a key of that function, a host key, the master key
    authLevel admin, /admin/    the master key
    /runtime/webhooks/          the system key of the extension, the master key

The keys are in a JSON file, which is made with random ones where there is none:

    {"master": "...", "host": {"default": "..."}, "functions": {"NAME": {"default": "..."}},
     "system": {"eventgrid_extension": "...", "durabletask_extension": "...", "blobs_extension": "..."}}
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from devhost.errors import KeysInvalid
from devhost.protocol import FunctionInfo

KEY_HEADER = "x-functions-key"
KEY_PARAMETER = "code"
EVENT_GRID_KEY = "eventgrid_extension"
DURABLE_KEY = "durabletask_extension"
BLOBS_KEY = "blobs_extension"
SYSTEM_KEYS = (EVENT_GRID_KEY, DURABLE_KEY, BLOBS_KEY)
PLACES = frozenset({"master", "host", "functions", "system"})
KEY_BYTES = 40
OWNER_ONLY = 0o600


class Asking(Protocol):
    """What is looked at of a request."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Found by names in lower case."""
        ...

    @property
    def query(self) -> Mapping[str, str]:
        """Without percent signs."""
        ...


class Gate(Protocol):
    """Decides who may come in."""

    def allows_function(self, request: Asking, function: FunctionInfo) -> bool:
        """Whether the request may call this HTTP function."""
        ...

    def allows_admin(self, request: Asking) -> bool:
        """Whether the request may use the host's own addresses."""
        ...

    def allows_system(self, request: Asking, key: str) -> bool:
        """Whether the request may use the webhook of the extension whose system key has this name."""
        ...


class Open:
    """Lets everybody in. Fit for loopback."""

    def allows_function(self, request: Asking, function: FunctionInfo) -> bool:
        """Always."""
        return True

    def allows_admin(self, request: Asking) -> bool:
        """Always."""
        return True

    def allows_system(self, request: Asking, key: str) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one host. Function names are in lower case; what is secret stays out of repr."""

    master: str = field(repr=False)
    host: tuple[str, ...] = field(default=(), repr=False)
    functions: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    system: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The keys in a file, which is made with random ones when there is none. Raises KeysInvalid."""
        try:
            if not path.exists():
                _write(path, _random())
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise KeysInvalid(path, f"it cannot be read or made ({error})") from error
        if not isinstance(content, dict) or not PLACES.issuperset(content):
            raise KeysInvalid(path, f"it is not an object with {', '.join(sorted(PLACES))} and nothing else")
        functions = content.get("functions", {})
        if not isinstance(functions, dict):
            raise KeysInvalid(path, "functions is not an object")
        return cls(
            master=_named(path, "master", {"master": content.get("master")})["master"],
            host=tuple(_named(path, "host", content.get("host", {})).values()),
            functions={
                name.lower(): tuple(_named(path, f"functions.{name}", keys).values())
                for name, keys in functions.items()
            },
            system=_named(path, "system", content.get("system", {})),
        )

    def allows_function(self, request: Asking, function: FunctionInfo) -> bool:
        """Whether the request may call this HTTP function."""
        level = str(function.trigger.get("authLevel") or "function").lower()
        if level == "anonymous":
            return True
        if level == "admin":
            return self.allows_admin(request)
        return _fits(request, (self.master, *self.host, *self.functions.get(function.name.lower(), ())))

    def allows_admin(self, request: Asking) -> bool:
        """Whether the request has the master key."""
        return _fits(request, (self.master,))

    def allows_system(self, request: Asking, key: str) -> bool:
        """Whether the request has the system key of this name, or the master key."""
        return _fits(request, (self.master, *((self.system[key],) if key in self.system else ())))


def _fits(request: Asking, keys: Iterable[str]) -> bool:
    given = request.headers.get(KEY_HEADER) or request.query.get(KEY_PARAMETER) or ""
    found = [hmac.compare_digest(given.encode(errors="replace"), key.encode()) for key in keys]
    return any(found)


def _named(path: Path, place: str, keys: Any) -> dict[str, str]:
    if not isinstance(keys, dict) or not all(isinstance(key, str) and key for key in keys.values()):
        raise KeysInvalid(path, f"{place} has a key that is missing, empty or no string")
    return dict(keys)


def _random() -> dict[str, Any]:
    def key() -> str:
        return secrets.token_urlsafe(KEY_BYTES)

    return {
        "master": key(),
        "host": {"default": key()},
        "functions": {},
        "system": {name: key() for name in SYSTEM_KEYS},
    }


def _write(path: Path, content: Mapping[str, Any]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
