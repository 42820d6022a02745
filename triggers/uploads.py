"""Event Grid trigger: an event is a hint. Record it in the ledger, ask for a run, and be gone."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote

import azure.durable_functions as df
import azure.functions as func

from activities.dependencies import utc_now
from activities.uploads import TRAINING, is_upload
from adapters.ledger import Sighting
from triggers import services
from triggers.runs import ensure_run

blueprint = df.Blueprint()
log = logging.getLogger("ratchet.uploads")

SUBJECT = re.compile(rf"^/blobServices/default/containers/{TRAINING}/blobs/(?P<path>(?P<pipeline>[^/]+)/.+)$")
CREATED, DELETED = "Microsoft.Storage.BlobCreated", "Microsoft.Storage.BlobDeleted"


@dataclass(frozen=True, slots=True)
class BlobNews:
    """What an event says about a blob of a pipeline. Its name comes from the subject; an event's URL is not used."""

    kind: Literal["created", "deleted"]
    pipeline: str
    path: str
    etag: str
    size: int
    sequencer: str


def read_event(event_type: str, subject: str, data: Mapping[str, Any]) -> BlobNews | None:
    """The news in an event, or None when it is about something else (another container, a placeholder, a directory)."""
    match = SUBJECT.match(unquote(subject))
    if match is None or event_type not in {CREATED, DELETED} or not is_upload(match["path"]):
        return None
    size = int(data.get("contentLength") or 0)
    if event_type == CREATED and data.get("api") == "CreateFile" and size == 0:
        # On hierarchical accounts a file is made empty first and flushed later; only the flush is data.
        return None
    return BlobNews(
        kind="created" if event_type == CREATED else "deleted",
        pipeline=match["pipeline"],
        path=match["path"],
        etag=str(data.get("eTag") or "").strip('"'),
        size=size,
        sequencer=str(data.get("sequencer") or ""),
    )


@blueprint.function_name("on_training_blob")
@blueprint.event_grid_trigger(arg_name="event")
@blueprint.durable_client_input(client_name="client")
async def on_training_blob(event: func.EventGridEvent, client: df.DurableOrchestrationClient) -> None:
    """BlobCreated and BlobDeleted in the training container. Duplicates, disorder and loss are expected.

    Storage calls block, so they run beside the event loop, which also answers predictions.
    """
    # azure-functions hands over an EventGridEvent or a CloudEvent, by the delivery's schema.
    event_type = getattr(event, "event_type", None) or getattr(event, "type", "")
    news = read_event(str(event_type), str(event.subject or ""), event.get_json() or {})
    if news is None or news.pipeline not in services.specs().names():
        log.info("dropped an event that concerns no pipeline: %s", event.subject)
        return
    await asyncio.to_thread(record, news)
    if news.kind == "created":
        # Also when the ledger had it: the first delivery may have come no further than that.
        await ensure_run(client, news.pipeline)


def record(news: BlobNews) -> None:
    """Writes the ledger row."""
    ledger, now = services.ledger(), utc_now().isoformat(timespec="microseconds")
    if news.kind == "deleted":
        ledger.forget(news.pipeline, news.path, sequencer=news.sequencer, now=now)
    else:
        ledger.see(news.pipeline, Sighting(news.path, news.etag, news.size, news.sequencer), now=now)
