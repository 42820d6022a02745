"""Dependencies, resolved at the first invocation that needs them and kept for the life of the process.

Nothing here runs at import, so that `import function_app` works with an empty environment and starts fast.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from adapters.background import Background
from adapters.blobs import BlobStore
from adapters.events import EventPublisher, NoListeners, TopicPublisher
from adapters.ledger import Ledger
from adapters.outbox import Outbox
from adapters.registry import Registry
from adapters.settings import APP_DIRECTORY, Settings, read_settings, role
from adapters.specs import SpecFiles
from adapters.threads import Threads, limit_polars, threads_of

if TYPE_CHECKING:
    from activities.dependencies import Dependencies
    from serving.service import InferenceService

FOR_A_MOVE = ("models.spec", "models.expressions", "models.golden", "requests")
"""What is imported late, because most functions do without, and what a version is checked with before it goes live."""

SWITCH_SECONDS = 0.0002
"""How long a thread may keep the interpreter from another that wants it. The pointer is looked at, and a new model
fetched and proved, on a thread beside the requests, each of which wants the interpreter several times: with Python's
five milliseconds, the slowest while a model comes take half as long again. As long as a request of one row takes."""

EVENTS_WAITING = 1000
"""More are left to the next look at the outbox."""


@cache
def settings() -> Settings:
    """The settings, read once. Raises SettingsError; nothing is cached then, so a mended setting is seen.

    All work of a process begins here, before it imports Polars.
    """
    limit_polars(os.environ, threads())
    return read_settings(os.environ)


@cache
def threads() -> Threads:
    """How many threads this process may start."""
    return threads_of(os.environ, APP_DIRECTORY / "host.json")


@cache
def blobs() -> BlobStore:
    from adapters.azure_blobs import AzureBlobStore

    return AzureBlobStore.from_settings(settings())


@cache
def ledger() -> Ledger:
    from adapters.table_ledger import TableLedger

    return TableLedger.from_settings(settings())


@cache
def registry() -> Registry:
    from adapters.mlflow_registry import MlflowRegistry

    return MlflowRegistry(settings().require_mlflow())


@cache
def events() -> EventPublisher:
    """What the app tells. Without a topic nobody listens, and nothing has to wait for anybody."""
    return outbox() or NoListeners()


@cache
def outbox() -> Outbox | None:
    chosen = settings()
    if chosen.events_topic_endpoint is None:
        return None
    topic = TopicPublisher(chosen.events_topic_endpoint, chosen.events_topic_key, chosen.client_id)
    return Outbox(blobs(), topic, Background("ratchet-events", most=EVENTS_WAITING))


@cache
def specs() -> SpecFiles:
    return SpecFiles(settings().pipelines_dir)


@cache
def dependencies() -> Dependencies:
    """What the activities work with."""
    from activities.dependencies import Dependencies

    return Dependencies(
        blobs=blobs(),
        ledger=ledger(),
        registry=registry,
        events=events(),
        specs=specs(),
        threads=settings().training_threads or threads().training,
        cache_days=settings().cache_days,
        pricing=settings().pricing,
        url=settings().url,
    )


@cache
def inference() -> InferenceService:
    """The first call begins to load the champions of all pipelines, whatever it is for.

    A process that was replaced gets no warmup call; so the first request, be it a health probe, does for that.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.disable()  # until the start is over: it makes a hundred thousand objects, and all of them stay
    try:
        service = _service()
        threading.Thread(target=_start, args=(service,), name="ratchet-start", daemon=True).start()
    except BaseException:
        gc.enable()
        raise
    return service


def _service() -> InferenceService:
    from serving.cache import CacheLimits
    from serving.limits import Limits
    from serving.service import InferenceService

    chosen = settings()
    return InferenceService(
        blobs(),
        chosen.cache_dir,
        chosen.pointer_ttl_seconds,
        specs().names,
        limits=Limits(chosen.max_body_bytes, chosen.max_rows, chosen.request_seconds),
        cache_limits=CacheLimits(chosen.pointer_max_age_seconds, chosen.cache_megabytes * 2**20, chosen.versions_kept),
    )


def _start(service: InferenceService) -> None:
    """Loads the champions, and then what a process that also manages them needs for its first move of one: a second of
    imports, which whoever moves an alias or rolls back would wait for."""
    try:
        service.warm(specs().names())
        if role(os.environ) != "serve":
            for module in FOR_A_MOVE:
                import_module(module)
    finally:
        # A full collection looks through all that there is, with every request waiting for tens of milliseconds. What
        # is there now stays, and need not be looked through.
        gc.freeze()
        gc.enable()


def inference_if_there() -> InferenceService | None:
    """The service, when a call for it was made already. The first one imports much, and the event loop cannot wait."""
    return inference() if inference.cache_info().currsize else None
