"""Event Grid trigger: an event is a hint. Record it in the ledger, ask for a run, and be gone."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import azure.durable_functions as df
import azure.functions as func

from activities.dependencies import utc_now
from activities.uploads import TRAINING, is_allowed, is_upload
from adapters.ledger import Sighting
from adapters.telemetry import count_dropped_event
from models.errors import bounded
from triggers import services
from triggers.runs import ensure_run

blueprint = df.Blueprint()
log = logging.getLogger("ratchet.uploads")

SUBJECT = re.compile(rf"/blobServices/default/containers/{TRAINING}/blobs/(?P<path>(?P<pipeline>[^/]+)/.+)", re.DOTALL)
CREATED, DELETED = "Microsoft.Storage.BlobCreated", "Microsoft.Storage.BlobDeleted"
RENAMED = "Microsoft.Storage.BlobRenamed"
"""On hierarchical accounts: the subject is the new name, and the old one is in `sourceUrl`."""


Reason = Literal["type", "container", "account", "name", "placeholder", "no content", "pipeline", "malformed"]
"""Why an event is dropped: about another kind of thing, another container or account, a name that no upload has, a
folder, a file that is only just made, a prefix that no pipeline has, fields that are not what they should be."""
MADE_EMPTY = frozenset({"CreateFile", "SftpCreate"})
"""On hierarchical accounts a file is made empty first, and flushed or committed later; only that is data."""


@dataclass(frozen=True, slots=True)
class BlobNews:
    """What an event says about a blob of a pipeline. Its name comes from the subject; an event's URL is not used.

    `former` is the name that it had before, or ''; of that URL, too, only the checked name is taken.
    """

    kind: Literal["created", "deleted"]
    pipeline: str
    path: str
    etag: str
    size: int
    sequencer: str
    former: str = ""


def read_event(event_type: str, subject: str, data: Any, *, source: str = "", account: str = "") -> BlobNews | Reason:
    """The news in an event, or why it is dropped.

    `source` is the resource that the event names (an event's topic, a CloudEvent's source); it is compared with
    `account` where both are known.
    """
    if event_type not in {CREATED, DELETED, RENAMED}:
        return "type"
    if not isinstance(data, Mapping):
        return "malformed"
    match = SUBJECT.fullmatch(_decoded(subject, str(data.get("url") or "")))
    if match is None:
        return "container"
    if account and "/storageaccounts/" in source.lower() and source.lower().rpartition("/")[2] != account.lower():
        return "account"
    if not is_upload(match["path"]):
        return "placeholder"
    if not is_allowed(match["path"]):
        return "name"
    try:
        size = int(data.get("contentLength") or 0)
    except (TypeError, ValueError):
        return "malformed"
    if event_type == CREATED and data.get("api") in MADE_EMPTY and size == 0:
        return "no content"
    return BlobNews(
        kind="deleted" if event_type == DELETED else "created",
        pipeline=match["pipeline"],
        path=match["path"],
        etag=str(data.get("eTag") or "").strip('"'),
        size=size,
        sequencer=str(data.get("sequencer") or ""),
        former=_former(str(data.get("sourceUrl") or ""), match["pipeline"]) if event_type == RENAMED else "",
    )


def _decoded(subject: str, url: str) -> str:
    """The subject as the blob is called. Storage writes it as it is, others percent-encoded, and a name may hold per
    cents of its own: an URL is always encoded, so it shows which it is."""
    return subject if "%" in subject and _place(url).endswith(subject.partition("/blobs/")[2]) else unquote(subject)


def _place(url: str) -> str:
    """Where in its account, whichever that be, an URL points: the decoded path."""
    try:
        return unquote(urlsplit(url).path)
    except ValueError:
        return ""


def _former(url: str, pipeline: str) -> str:
    """The name that a renamed blob had, if it was one of this pipeline's, or ''. The sweep finds the others."""
    path = _place(url).partition(f"/{TRAINING}/")[2]
    return path if path.startswith(f"{pipeline}/") and is_upload(path) and is_allowed(path) else ""


@blueprint.function_name("on_training_blob")
@blueprint.event_grid_trigger(arg_name="event")
@blueprint.durable_client_input(client_name="client")
async def on_training_blob(event: func.EventGridEvent, client: df.DurableOrchestrationClient) -> None:
    """BlobCreated and BlobDeleted in the training container. Duplicates, disorder and loss are expected.

    Storage calls block, so they run beside the event loop, which also answers predictions.
    """
    await handle(event, client)


async def handle(event: func.EventGridEvent, client: df.DurableOrchestrationClient) -> None:
    """Records the event, or drops it for a counted reason."""
    # azure-functions hands over an EventGridEvent or a CloudEvent, by the delivery's schema.
    event_type = getattr(event, "event_type", None) or getattr(event, "type", "")
    source = getattr(event, "topic", None) or getattr(event, "source", "")
    account = services.settings().account
    news = read_event(str(event_type), str(event.subject or ""), _data(event), source=str(source), account=account)
    if isinstance(news, BlobNews) and news.pipeline not in services.specs().names():
        news = "pipeline"
    if not isinstance(news, BlobNews):
        count_dropped_event(news)
        log.info("dropped an event (%s): %s", news, bounded(event.subject, 200))
        return
    await asyncio.to_thread(record, news)
    if news.kind == "created":
        # Also when the ledger had it: the first delivery may have come no further than that.
        await ensure_run(client, news.pipeline)


def _data(event: func.EventGridEvent) -> Any:
    """What the event carries, or None when that is not JSON: a second delivery of it would not be either."""
    try:
        return event.get_json()
    except ValueError:
        return None


def record(news: BlobNews) -> None:
    """Writes the ledger row."""
    ledger, now = services.ledger(), utc_now().isoformat(timespec="microseconds")
    # A rename that is told late may be about a name that another blob has by now.
    if news.former and not services.blobs().exists(f"{TRAINING}/{news.former}"):
        ledger.forget(news.pipeline, news.former, sequencer="", now=now)
    if news.kind == "deleted":
        ledger.forget(news.pipeline, news.path, sequencer=news.sequencer, now=now)
    else:
        ledger.see(news.pipeline, Sighting(news.path, news.etag, news.size, news.sequencer), now=now)
