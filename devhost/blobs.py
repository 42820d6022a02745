"""Blob triggers with source=EventGrid: POST /runtime/webhooks/blobs?functionName=Host.Functions.F calls F.

The blob's content and properties are read from the storage account of the trigger's connection.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from devhost.caller import Caller
from devhost.catalog import BLOB_TRIGGER, Catalog
from devhost.errors import BindingInvalid
from devhost.eventgrid_webhook import EventGridWebhook
from devhost.protocol import Datum, FunctionInfo, Outcome
from devhost.settings import Settings
from devhost.storage import Account, Answer, Storage, StorageRefused

FUNCTION_PREFIX = "host.functions."
BLOB_CREATED = "Microsoft.Storage.BlobCreated"
METADATA_PREFIX = "x-ms-meta-"

_SUBJECT = re.compile(r"/blobServices/default/containers/(?P<container>[^/]+)/blobs/(?P<blob>.+)", re.DOTALL)
_PARAMETER = re.compile(r"\{(\w+)\}")
_log = logging.getLogger("devhost.blobs")


@dataclass(frozen=True, slots=True)
class _Trigger:
    account: Account
    pattern: re.Pattern[str]


class BlobWebhook(EventGridWebhook):
    """Answers Event Grid for the app's blob functions. Events other than new blobs, and other paths, pass by."""

    def __init__(self, catalog: Catalog, caller: Caller, settings: Settings, storage: Storage) -> None:
        """Raises BindingInvalid, ConnectionInvalid and SettingMissing."""
        super().__init__(catalog, caller, trigger=BLOB_TRIGGER)
        self._storage = storage
        self._triggers = {f.id: _trigger(f, settings, storage) for f in catalog.triggered_by(BLOB_TRIGGER)}

    def _function(self, name: str) -> FunctionInfo | None:
        return super()._function(name[len(FUNCTION_PREFIX) :] if name.lower().startswith(FUNCTION_PREFIX) else name)

    async def _call(self, function: FunctionInfo, event: Mapping[str, Any]) -> Outcome:
        subject = _SUBJECT.fullmatch(str(event.get("subject")))
        if event.get("eventType", event.get("type")) != BLOB_CREATED or subject is None:
            return Outcome(ok=True)
        return await self.run(function, f"{subject['container']}/{subject['blob']}")

    async def run(self, function: FunctionInfo, path: str) -> Outcome:
        """Runs it for the blob at `container/name`, unless its trigger's path is another."""
        passed_over = Outcome(ok=True)
        trigger = self._triggers[function.id]
        found = trigger.pattern.fullmatch(path)
        if found is None:
            return passed_over
        url = URL(f"{trigger.account.endpoints['blob']}/{quote(path)}", encoded=True)
        try:
            answer = await self._storage.request(trigger.account, "GET", url)
        except StorageRefused as refusal:
            if refusal.status == HTTPStatus.NOT_FOUND:
                _log.info("the blob %s is gone; %s is not run for it", path, function.name)
                return passed_over
            return Outcome(ok=False, error=f"the blob {path} cannot be read: {refusal}")
        except (aiohttp.ClientError, TimeoutError) as error:
            return Outcome(ok=False, error=f"the blob {path} cannot be read: {type(error).__name__} {error}")
        metadata = blob_metadata(path, str(url), answer, found.groupdict())
        return await self._caller.call(function, ("bytes", answer.body), metadata=metadata)


def blob_metadata(path: str, url: str, answer: Answer, parameters: Mapping[str, str]) -> dict[str, Datum]:
    """What storage knows of the blob, and the parts of its path that the trigger's pattern names."""
    headers = {name.lower(): value for name, value in answer.headers.items()}
    properties = {
        "ContentLength": len(answer.body),
        "ContentType": headers.get("content-type"),
        "ETag": headers.get("etag"),
        "LastModified": headers.get("last-modified"),
        "BlobType": headers.get("x-ms-blob-type"),
    }
    own = {k[len(METADATA_PREFIX) :]: v for k, v in headers.items() if k.startswith(METADATA_PREFIX)}
    return {
        **{name: ("string", value) for name, value in parameters.items()},
        "BlobTrigger": ("string", path),
        "Uri": ("string", url),
        "Properties": ("json", json.dumps(properties)),
        "Metadata": ("json", json.dumps(own)),
    }


def path_pattern(path: str) -> re.Pattern[str]:
    """What a trigger's path stands for: `container/in/{name}.csv`, or a container for all of its blobs.

    Raises ValueError when a parameter has no fitting name or comes twice.
    """
    text = path.strip("/")
    if "/" not in text:
        return re.compile(re.escape(text) + "/.+", re.DOTALL)
    pieces = _PARAMETER.split(text)
    literals = [re.escape(piece) for piece in pieces[::2]]
    if any(set("{}") & set(piece) for piece in pieces[::2]):
        raise ValueError(f"its path {path!r} has a brace that belongs to no parameter")
    try:
        captures = [f"(?P<{name}>.*)" for name in pieces[1::2]]
        return re.compile("".join(a + b for a, b in zip(literals, [*captures, ""], strict=True)), re.DOTALL)
    except re.error as error:
        raise ValueError(f"its path {path!r} does not work: {error}") from error


def _trigger(function: FunctionInfo, settings: Settings, storage: Storage) -> _Trigger:
    wanted_by = f"The blob trigger of function {function.name}"
    if str(function.trigger.get("source") or "").lower() != "eventgrid":
        raise BindingInvalid(wanted_by, "devhost does it with source=EventGrid only")
    account = storage.account(str(function.trigger.get("connection") or ""), wanted_by=wanted_by)
    path = settings.resolve(str(function.trigger["path"]), wanted_by=wanted_by)
    try:
        return _Trigger(account, path_pattern(path))
    except ValueError as error:
        raise BindingInvalid(wanted_by, str(error)) from error
