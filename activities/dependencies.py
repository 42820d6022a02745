"""What activities work with. Resolved once per process in triggers/services.py; tests pass fakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from activities.workspace import Workspace
from adapters.blobs import BlobStore
from adapters.events import EventPublisher, Notice
from adapters.ledger import Ledger
from adapters.registry import Registry
from adapters.settings import Pricing
from adapters.specs import SpecFiles

NO_PRICES = Pricing()


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Ports and settings of the activities. `threads` is how many an activity may train and score with.

    `url` is where the app answers (https://app.azurewebsites.net), or '' where that is not known.
    """

    blobs: BlobStore
    ledger: Ledger
    registry: Callable[[], Registry]
    """A factory, because the registry's client is heavy and most activities do without."""
    events: EventPublisher
    specs: SpecFiles
    threads: int
    cache_days: float = 7.0
    """How long caches that are out of reach are kept."""
    pricing: Pricing = NO_PRICES
    url: str = ""
    clock: Callable[[], datetime] = utc_now

    def workspace(self, pipeline: str, run: str) -> Workspace:
        return Workspace(self.blobs, pipeline, run)

    def tell(self, notice: Notice) -> None:
        """Publishes an event. What it tells has happened: a topic that is away or slow holds nobody up, the event waits
        in the outbox then. Raises what storage raises."""
        self.events.publish(notice)

    def now(self) -> str:
        """ISO 8601 UTC with microseconds."""
        return self.clock().astimezone(UTC).isoformat(timespec="microseconds")
