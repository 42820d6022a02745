"""Promotion modes: what a pipeline's file may say, and when a window is open."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.promotion import DAYS, Promotion

MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (hypothesis adds the zone)
CLOCK = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda clock: f"{clock[0]:02}:{clock[1]:02}")
WINDOWS = st.builds(
    lambda days, start, end: Promotion(mode="window", days=tuple(days), start=start, end=end),
    st.lists(st.sampled_from(DAYS), min_size=1, unique=True),
    CLOCK,
    CLOCK,
)


def test_the_short_form() -> None:
    assert Promotion.model_validate("approval") == Promotion(mode="approval")


@pytest.mark.parametrize(
    ("given_", "problem"),
    [
        ({"mode": "automatic", "on_timeout": "reject"}, "on_timeout is for mode approval"),
        ({"mode": "window", "timeout_hours": 1.0}, "timeout_hours is for mode approval"),
        ({"mode": "approval", "start": "02:00"}, "start is for mode window"),
        ({"mode": "window", "days": []}, "the window would never open"),
        ({"mode": "window", "start": "24:00"}, "String should match pattern"),
    ],
)
def test_what_does_not_fit_its_mode_is_named(given_: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Promotion.model_validate(given_)


@pytest.mark.parametrize(
    ("moment", "open_"),
    [
        ("2026-11-27T21:59", False),  # a Friday
        ("2026-11-27T22:00", True),
        ("2026-11-28T03:59", True),
        ("2026-11-28T04:00", False),
        ("2026-11-28T23:00", False),
    ],
)
def test_a_window_that_crosses_midnight(moment: str, open_: bool) -> None:
    window = Promotion(mode="window", days=("fri",), start="22:00", end="04:00")
    assert window.is_open(datetime.fromisoformat(moment).replace(tzinfo=UTC)) is open_


@given(window=WINDOWS, now=MOMENTS)
def test_a_window_is_open_from_its_next_opening_on_and_not_just_before_it(window: Promotion, now: datetime) -> None:
    opening = window.next_opening(now)
    assert now < opening <= now + timedelta(days=7)
    assert window.is_open(opening)
    if not window.is_open(now):
        assert not window.is_open(opening - timedelta(microseconds=1)) or window.is_open(now)
