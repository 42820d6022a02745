"""How a challenger that the gate lets through becomes the champion: at once, after approval, or in set hours."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from models.spec_parts import Part

type Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _days(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Promotion(Part):
    """When a challenger goes live. `promotion: approval` is short for `promotion: {mode: approval}`."""

    mode: Literal["automatic", "approval", "window"] = "automatic"
    """automatic: at once; approval: when a person says so; window: at once within set hours, else when they begin."""
    timeout_hours: float = Field(default=72, gt=0, le=8760)
    """With approval: how long a challenger waits for a decision."""
    on_timeout: Literal["reject", "approve"] = "reject"
    """With approval: what becomes of a challenger that nobody decided on."""
    days: Annotated[tuple[Day, ...], BeforeValidator(_days)] = DAYS
    """With window: the days on which it opens (mon, tue, ...), in UTC."""
    start: str = Field(default="00:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    """With window: when it opens, as "HH:MM" in UTC."""
    end: str = Field(default="00:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    """With window: when it closes, as "HH:MM" in UTC; on the next day when that is not after `start`."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_its_mode(self) -> Self:
        for field, mode in {"timeout_hours": "approval", "on_timeout": "approval"}.items():
            if field in self.model_fields_set and self.mode != mode:
                raise ValueError(f"{field} is for mode {mode}, not for {self.mode}")
        for field in ("days", "start", "end"):
            if field in self.model_fields_set and self.mode != "window":
                raise ValueError(f"{field} is for mode window, not for {self.mode}")
        if not self.days:
            raise ValueError("days is empty: the window would never open")
        return self

    def is_open(self, now: datetime) -> bool:
        """Whether a window is open at `now`."""
        today = now.astimezone(UTC).date()
        # One that crosses midnight may have opened yesterday.
        spans = (self._span(today - timedelta(days=1)), self._span(today))
        return any(span is not None and span[0] <= now < span[1] for span in spans)

    def next_opening(self, now: datetime) -> datetime:
        """When the window opens next, after `now`."""
        today = now.astimezone(UTC).date()
        spans = (self._span(today + timedelta(days=ahead)) for ahead in range(len(DAYS) + 1))
        return next(span[0] for span in spans if span is not None and span[0] > now)

    def _span(self, day: Any) -> tuple[datetime, datetime] | None:
        if DAYS[day.weekday()] not in self.days:
            return None
        start = datetime.combine(day, time.fromisoformat(self.start), UTC)
        end = datetime.combine(day, time.fromisoformat(self.end), UTC)
        return start, end if end > start else end + timedelta(days=1)
