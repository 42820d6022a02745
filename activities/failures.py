"""What kind of failure an error is: worth trying again for long, not at all, or a few times.

The kind travels in the failure's text, because a text is all that an orchestration sees of an activity's error.
"""

from __future__ import annotations

from activities.contracts import LASTING, PASSING, sentence
from activities.pointing import PointerMoved
from activities.waiting import AlreadyDecided
from adapters.blobs import BlobConflict, BlobNotFound, StorageUnavailable
from adapters.events import EventsUnavailable
from adapters.ledger import IllegalTransition, LedgerError
from adapters.registry import RegistryError, VersionTaken
from models.errors import RatchetError

ALWAYS_LASTING = (IllegalTransition, VersionTaken)
SOMETIMES_PASSING = (
    StorageUnavailable,
    LedgerError,
    RegistryError,
    EventsUnavailable,
    BlobConflict,
    PointerMoved,
    AlreadyDecided,
)
"""The last three say that somebody else wrote first, which a step that is run again sees and takes into account. That
somebody may have been itself: the SDK repeats a write whose answer was lost."""
UNCLEAR = (BlobNotFound,)
"""A work file that is missing: a bug, or an account whose containers are just being restored."""


class StepFailed(RatchetError):
    """An activity failed. The text begins with the kind of failure, when it is known."""


def step_failed(exc: RatchetError) -> StepFailed:
    """The failure as an orchestration is to see it."""
    return StepFailed(sentence(f"{_mark(exc)}{type(exc).__name__}: {exc}"))


def _mark(exc: RatchetError) -> str:
    if isinstance(exc, ALWAYS_LASTING):
        return f"{LASTING} "
    if isinstance(exc, SOMETIMES_PASSING):
        return f"{PASSING} "
    return "" if isinstance(exc, UNCLEAR) else f"{LASTING} "
