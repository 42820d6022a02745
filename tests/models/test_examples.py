"""Rows that nobody sent."""

from __future__ import annotations

import numpy as np
import polars as pl

from models.examples import SHARES, example_rows
from models.histograms import histogram
from models.manifest import InputKind
from models.profiles import NumberProfile, Profile

DAY = 86_400.0
KINDS: dict[str, InputKind] = {
    "price": "number",
    "visits": "integer",
    "member": "boolean",
    "seen": "timestamp",
    "town": "category",
}


def numbers(values: list[float]) -> NumberProfile:
    known = np.array(values, dtype=np.float64)
    low, high = (float(known.min()), float(known.max())) if values else (None, None)
    return NumberProfile(len(values), 1, low, high, histogram(known))


def example(towns: dict[str, int], **columns: list[float]) -> dict[str, list[float | str | None]]:
    given = {name: numbers(columns.get(name, [])) for name, kind in KINDS.items() if kind != "category"}
    return example_rows(Profile(1, {}, None, None, given, {"town": towns}), KINDS)


def test_numbers_are_near_the_median_and_the_quartiles_and_none_of_the_data() -> None:
    prices = np.random.default_rng(7).uniform(1, 100, 1_000)
    found = pl.Series(example({}, price=prices.tolist())["price"]).to_numpy()
    expected = np.quantile(prices, SHARES)
    # A bucket is an eighth of its lower end wide.
    assert np.all((found <= expected) & (expected <= found * 1.125))
    assert not set(found) & set(prices)


def test_whole_numbers_and_truths_are_such() -> None:
    found = example({}, visits=[float(n) for n in range(100)], member=[0.0, 1.0, 1.0])
    assert all(float(value or 0).is_integer() for value in found["visits"])
    assert set(found["member"]) <= {0.0, 1.0}


def test_times_are_midnights_within_the_data() -> None:
    found = example({}, seen=[100 * DAY + 5.5, 140 * DAY])["seen"]
    assert found == [120 * DAY, 110 * DAY, 130 * DAY]


def test_categories_are_the_most_frequent_ones() -> None:
    assert example({"": 90, "Ghent": 5, "Lille": 9, "Oslo": 5, "Turin": 1})["town"] == ["Lille", "Ghent", "Oslo"]
    assert example({"Ghent": 5})["town"] == ["Ghent"] * 3


def test_a_column_without_values_is_missing() -> None:
    assert {value for values in example({"": 3}).values() for value in values} == {None}
