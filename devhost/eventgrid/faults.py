"""Faults on request: which deliveries come twice, late, out of order or not at all.

Event Grid promises to deliver at least once, in no order. A consumer that has only seen it behave well is not tested;
these faults are how it misbehaves within its promise (`duplicate`, `delay`, `reorder`) and beyond it (`drop`).

Every decision is a hash of the seed, the kind of fault, the subscription and a key of the event. It depends neither on
the time nor on what else is delivered, so a run can be repeated, and raising a share only adds to the events it hits.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from devhost.eventgrid.errors import BadFault

DUPLICATE, DELAY, REORDER, DROP = "duplicate", "delay", "reorder", "drop"
KINDS = (DUPLICATE, DELAY, REORDER, DROP)
DUPLICATE_WITHIN_SECONDS = 2.0
"""The second copy comes up to so much after the first: from both at once to after the first is dealt with."""
REORDER_WITHIN_SECONDS = 5.0
"""How long a reordered delivery waits for a later one to overtake it. With none by then, it goes anyway."""
MAX_DELAY_SECONDS = 3600.0

_FAULT = re.compile(r"([a-z]+)=([0-9.]+)(?::([0-9.]+)(ms|s|m))?")
_UNITS: Mapping[str, float] = {"ms": 0.001, "s": 1.0, "m": 60.0}
_DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one delivery: an entry in `waits` for every copy, the seconds that it is held back.

    `overtaken`: each copy lets a later delivery go first.
    """

    waits: tuple[float, ...] = (0.0,)
    overtaken: bool = False

    @property
    def dropped(self) -> bool:
        """Whether it is never delivered."""
        return not self.waits


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares of deliveries, 0 to 1, that each fault hits independently of the others. Raises BadFault beyond that.

    A delayed delivery comes `delay_seconds` late. What is dropped suffers nothing else.
    """

    seed: int = 0
    duplicate: float = 0.0
    delay: float = 0.0
    delay_seconds: float = 0.0
    reorder: float = 0.0
    drop: float = 0.0

    def __post_init__(self) -> None:
        """Checks what a user can get wrong."""
        for kind in KINDS:
            if not 0.0 <= self._share(kind) <= 1.0:
                raise BadFault(f"{kind}={self._share(kind):g}", "the share has to be between 0 and 1")
        if not 0.0 <= self.delay_seconds <= MAX_DELAY_SECONDS:
            raise BadFault(f"delay of {self.delay_seconds:g} s", f"it has to be at most {MAX_DELAY_SECONDS:g} s")

    def fate(self, subscription: str, key: str) -> Fate:
        """What happens to the delivery to `subscription` of the event that `key` identifies."""
        if self._hits(DROP, subscription, key):
            return Fate(waits=())
        wait = self.delay_seconds if self._hits(DELAY, subscription, key) else 0.0
        waits: tuple[float, ...] = (wait,)
        if self._hits(DUPLICATE, subscription, key):
            waits += (wait + DUPLICATE_WITHIN_SECONDS * self._fraction("gap", subscription, key),)
        return Fate(waits=waits, overtaken=self._hits(REORDER, subscription, key))

    def __str__(self) -> str:
        """For people: which faults are on; empty when none is."""
        shares = [f"{kind} {self._share(kind):g}" for kind in KINDS if self._share(kind)]
        return ", ".join(
            f"{share} by {self.delay_seconds:g} s" if share.startswith(DELAY) else share for share in shares
        )

    def _share(self, kind: str) -> float:
        return {DUPLICATE: self.duplicate, DELAY: self.delay, REORDER: self.reorder, DROP: self.drop}[kind]

    def _hits(self, kind: str, subscription: str, key: str) -> bool:
        return self._fraction(kind, subscription, key) < self._share(kind)

    def _fraction(self, what: str, subscription: str, key: str) -> float:
        """Evenly distributed in [0, 1), and always the same for the same arguments."""
        text = "\0".join((str(self.seed), what, subscription, key))
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
        return (int.from_bytes(digest) >> 11) / 2.0**53  # 53 bits: what a float holds exactly


def parse_faults(texts: Iterable[str], *, seed: int) -> Faults:
    """The faults that the command line asks for, as `duplicate=0.2` or `delay=0.5:3s`. Raises BadFault."""
    shares: dict[str, float] = {}
    delay_seconds = 0.0
    for text in texts:
        match = _FAULT.fullmatch(text.strip())
        if match is None or match[1] not in KINDS:
            raise BadFault(text, f"write KIND=SHARE, KIND one of {', '.join(KINDS)}, such as duplicate=0.2")
        kind, share, time, unit = match.groups()
        if kind in shares:
            raise BadFault(text, f"there are two of {kind}")
        if (kind == DELAY) != (time is not None):
            raise BadFault(text, "a delay, and nothing else, has a time: delay=0.5:3s (ms, s or m)")
        shares[kind] = _number(share, text)
        if time is not None:
            delay_seconds = _number(time, text) * _UNITS[unit]
    return Faults(seed=seed, delay_seconds=delay_seconds, **shares)


def _number(digits: str, text: str) -> float:
    try:
        number = float(digits)
    except ValueError as error:
        raise BadFault(text, f"{digits!r} is not a number") from error
    if not math.isfinite(number):
        raise BadFault(text, f"{digits!r} is too large")
    return number
