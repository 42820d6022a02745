"""How much one request may ask for: bytes, rows and time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adapters.settings import BODY_BYTES, REQUEST_SECONDS, ROWS
from serving.errors import BadRequest, OutOfTime, TooManyRows


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take. The body counts as it was sent and as it is without its compression."""

    body_bytes: int = BODY_BYTES
    """Ten megabytes hold a hundred thousand rows of a dozen columns."""
    rows: int = ROWS
    """Beyond this, a request should be several."""
    seconds: float = REQUEST_SECONDS
    """What takes longer holds up the requests behind it."""

    def check_rows(self, rows: int) -> None:
        """Raises BadRequest when there is no row, TooManyRows when there are more than allowed."""
        if rows < 1:
            raise BadRequest("the request has no rows; it takes at least one")
        if rows > self.rows:
            raise TooManyRows(f"the request has {rows:,} rows; at most {self.rows:,} are taken at once: send several")


class Deadline:
    """The time that one request has. It is looked at between the parts of the work: none of them takes long."""

    __slots__ = ("_clock", "_end", "_seconds")

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self._clock, self._seconds, self._end = clock, seconds, clock() + seconds

    def at_most(self, seconds: float) -> float:
        """So many seconds, or what is left of the time where that is less."""
        return max(0.0, min(seconds, self._end - self._clock()))

    def check(self) -> None:
        """Raises OutOfTime once the time is over."""
        if self._clock() > self._end:
            message = (
                f"the answer was not ready within {self._seconds:g} s; send fewer rows at once, or try again later"
            )
            raise OutOfTime(message)
