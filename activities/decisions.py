"""What was decided about each version, written on it in the registry, where people look, as `ratchet.decision`:

    passed          the gate let it through, and nothing more has happened yet
    rejected        the gate or a person said no
    waiting         for approval, or for the hours in which the pipeline may change
    superseded      a newer challenger took its place while it waited
    refused         its time came, but it does not serve, or may not go live by itself
    promoted        it is or was the champion
    rolled back     it was the champion, and a person went back to another one

The gate's are written when a version is registered; the others follow from what storage says, so that a registry that
was away learns them later, with `ratchet.why`: when, who and why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Literal

from activities.held import Waiting
from adapters.pointer import Move
from adapters.registry import NoSuchVersion, Registry
from models.errors import bounded

DECISION, WHY = "ratchet.decision", "ratchet.why"
MAX_TAG_CHARACTERS = 500

type Word = Literal["passed", "rejected", "waiting", "superseded", "refused", "promoted", "rolled back"]
type Decisions = dict[int, tuple[Word, str]]
"""By version: what was decided, and when, by whom and why."""


def write_decisions(registry: Registry, pipeline: str, decisions: Decisions) -> None:
    """Raises RegistryError. A version that was deleted in the registry has nobody to tell."""
    for version, (word, why) in sorted(decisions.items()):
        with contextlib.suppress(NoSuchVersion):
            registry.tag(pipeline, version, DECISION, word)
            registry.tag(pipeline, version, WHY, bounded(why, MAX_TAG_CHARACTERS))


def of_moves(moves: Iterable[Move]) -> Decisions:
    """What moves of the pointer decided, the latest of each version."""
    found: Decisions = {}
    for move in sorted(moves, key=lambda each: each.generation):
        said = f"{move.since} {move.who}: {move.why}"
        found[move.version] = "promoted", said
        if move.kind == "rolled back" and move.former is not None:
            found[move.former] = "rolled back", said
    return found


def of_waiting(waiting: Waiting) -> Decisions:
    """What became of a challenger that waits or waited, and of those whose fate was not told before it came."""
    fates = (*waiting.untold, waiting.fate) if waiting.fate is not None else waiting.untold
    found: Decisions = {fate.version: (fate.word, fate.why) for fate in fates}
    if waiting.open:
        found[waiting.version] = "waiting", f"{waiting.since} until {waiting.until}, then {waiting.on_timeout}"
    return found
