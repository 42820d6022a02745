"""What a run cost, by hand."""

from __future__ import annotations

import pytest

from activities.contracts import Finish
from activities.costs import cost_of, figures_of, steps_of
from adapters.settings import Pricing

FINISH = Finish("shops", "r", "t", "promoted", "", seconds=(2.0, 4.0), busy=(1.0, 7.0, 0.5), executions=30)


def test_gb_seconds_by_step() -> None:
    steps = steps_of(FINISH, Pricing(instance_memory_mb=4096))
    assert [(step["name"], step["seconds"], step["busy_seconds"], step["gb_seconds"]) for step in steps] == [
        ("quiet", 2.0, 1.0, 4.0),
        ("claim", 4.0, 7.0, 28.0),
    ]


def test_without_prices_there_is_no_price() -> None:
    cost = cost_of(FINISH, Pricing())
    assert (cost["gb_seconds"], cost["executions"], cost["price"]) == (17.0, 30, None)


def test_a_price_has_its_day() -> None:
    price = cost_of(FINISH, Pricing(2048, 0.00002, 0.5, "EUR", "2026-11-01"))["price"]
    assert price["amount"] == pytest.approx(17.0 * 0.00002 + 30 * 0.5e-6)
    assert (price["currency"], price["as_of"]) == ("EUR", "2026-11-01")


def test_figures_are_those_of_the_record() -> None:
    found = figures_of(FINISH, Pricing(4096, 0.00002, 0.5, "EUR", "2026-11-01"))
    assert found == {
        "step_seconds/quiet": 2.0,
        "step_seconds/claim": 4.0,
        "step_gb_seconds/quiet": 4.0,
        "step_gb_seconds/claim": 28.0,
        "cost/gb_seconds": 34.0,
        "cost/executions": 30.0,
        "cost/EUR": pytest.approx(34.0 * 0.00002 + 30 * 0.5e-6),
    }
    assert "cost/USD" not in figures_of(FINISH, Pricing())
