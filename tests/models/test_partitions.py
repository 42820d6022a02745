from __future__ import annotations

import gzip
import io
import json
import random
import time
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from models import reading, text_files
from models.expressions import check_expressions
from models.partitions import (
    GROUP,
    LABEL,
    TIME,
    WEIGHT,
    CleanPartition,
    clean_partition,
)
from models.reading import REASON, ROW
from models.rejection import PartitionRejected
from models.spec import PipelineSpec, SpecError, parse_spec
from models.texts import MISSING_TEXTS
from tests.models.flights import GOOD, HEADER, PIPELINE, csv, files, flight_delays, rows, small

APRIL_1 = datetime(2013, 4, 1, 5, tzinfo=UTC).timestamp()


def clean(
    data: bytes, name: str = "a.csv", spec: PipelineSpec | None = None, latest: datetime | None = None
) -> CleanPartition:
    return clean_partition(data, name=name, spec=spec or small(), latest=latest)


def parquet(**columns: Any) -> bytes:
    """One row: the good one, with columns replaced."""
    good: dict[str, Any] = {
        "when": [datetime(2013, 4, 1, 5)],  # noqa: DTZ001 the zoneless form is a case of its own
        "delay": [20.0],
        "carrier": ["UA"],
        "origin": ["JFK"],
        "distance": [100.5],
        "hour": [5],
        "weekend": [True],
    }
    buffer = io.BytesIO()
    pl.DataFrame({**good, **columns}).write_parquet(buffer)
    return buffer.getvalue()


def test_a_clean_row_has_features_in_order_then_label_and_time() -> None:
    partition = clean(csv(GOOD))

    assert partition.frame.schema == {
        "carrier": pl.String,
        "origin": pl.String,
        "distance": pl.Float64,
        "hour": pl.Float64,
        "weekend": pl.Float64,
        LABEL: pl.UInt8,
        TIME: pl.Float64,
    }
    assert partition.frame.rows() == [("UA", "JFK", 100.5, 5.0, 1.0, 1, APRIL_1)]
    assert (partition.rows_read, partition.rejected.height, dict(partition.reasons)) == (1, 0, {})


@pytest.mark.parametrize("missing", MISSING_TEXTS)
def test_missing_is_null_for_numbers_and_empty_for_categories(missing: str) -> None:
    line = f"2013-04-01T05:00:00Z,10,{missing},{missing},{missing},5,{missing}"

    assert clean(csv(line)).frame.rows() == [("", "", None, 5.0, None, 0, APRIL_1)]


def test_blanks_are_nothing_around_a_number_and_part_of_a_category() -> None:
    frame = clean(csv("2013-04-01T05:00:00Z,10, NA ,JFK, NA ,5, NA ")).frame

    assert frame.rows() == [(" NA ", "JFK", None, 5.0, None, 0, APRIL_1)]


def test_a_row_in_the_future_is_rejected_when_it_is_known_what_that_is() -> None:
    data = csv(GOOD, GOOD.replace("2013", "2031"))
    assert clean(data).frame.height == 2
    partition = clean(data, latest=datetime(2013, 4, 1, 5, tzinfo=UTC))
    assert partition.frame.height == 1
    assert dict(partition.reasons) == {"when: in the future": 1}
    assert partition.rejected[REASON].to_list() == ["when: 2031-04-01T05:00:00Z is in the future"]


BAD_ROWS = [
    ("2013-04-01,20,UA,JFK,abc,5,true", 'distance: "abc" is not a number'),
    ("2013-04-01,20,UA,JFK,inf,5,true", 'distance: "inf" is not a number'),
    ("2013-04-01,20,UA,JFK,-1,5,true", "distance: -1 is below the minimum 0"),
    ("2013-04-01,3001,UA,JFK,1,5,true", "delay: 3001 is above the maximum 3000"),
    ("2013-04-01,20,UA,JFK,1,5.5,true", 'hour: "5.5" is not a whole number'),
    ("2013-04-01,20,UA,JFK,1,,true", "hour: missing, but required"),
    ("2013-04-01,20,UA,JFK,1,5,maybe", 'weekend: "maybe" is not true or false'),
    ("2013-04-01,20,UA,BOS,1,5,true", 'origin: "BOS" is not one of EWR, JFK, LGA'),
    ("2013-04-01,NA,UA,JFK,1,5,true", "delay: missing, so there is no label"),
    (",20,UA,JFK,1,5,true", "when: missing, so the row has no time"),
    ("2013-04-31,20,UA,JFK,1,5,true", 'when: "2013-04-31" is not an ISO 8601 timestamp (2013-01-31T05:00:00Z)'),
    ("1364792400,20,UA,JFK,1,5,true", 'when: "1364792400" is not an ISO 8601 timestamp (2013-01-31T05:00:00Z)'),
    ("2013-04-01,x,UA,JFK,1,5,true", 'delay: "x" is not a number'),
    ("2013-04-01,20,UA", "line: 3 fields, but the header has 7"),
    ("2013-04-01,20,UA,JFK,1,5,true,more", "line: 8 fields, but the header has 7"),
    (
        "2013-04-01,20,UA,BOS,-1,5,true",
        'origin: "BOS" is not one of EWR, JFK, LGA; distance: -1 is below the minimum 0',
    ),
    (f"2013-04-01,20,UA,JFK,{'9x' * 500},5,true", f'distance: "{"9x" * 29}9…" is not a number'),
]


@pytest.mark.parametrize(("line", "reason"), BAD_ROWS, ids=[row[1][:40] for row in BAD_ROWS])
def test_a_bad_row_is_rejected_alone_and_with_its_reason(line: str, reason: str) -> None:
    partition = clean(csv(GOOD, line, GOOD))

    assert partition.frame.height == 2
    assert partition.rejected.columns == [ROW, REASON, *HEADER.split(",")]
    if line.count(",") >= 6:
        assert partition.rejected[REASON].to_list() == [reason]
    else:
        assert reason in partition.rejected[REASON].item()
    assert partition.rejected[ROW].to_list() == [2]


def test_the_rejected_row_is_the_row_as_it_was_read_and_reasons_are_counted() -> None:
    partition = clean(csv("2013-04-01, x,UA,BOS,1,5,true", "2013-04-01,y,UA,JFK,1,5,true", GOOD))

    assert partition.rejected.row(0)[2:] == ("2013-04-01", " x", "UA", "BOS", "1", "5", "true")
    assert partition.reasons == {"delay: not a number": 2, "origin: not allowed": 1}
    assert list(partition.reasons) == ["delay: not a number", "origin: not allowed"]


def test_a_quarantine_file_that_was_mended_can_be_uploaded() -> None:
    rejected = clean(csv(GOOD, "2013-04-01,20,UA,JFK,abc,5,true")).rejected
    mended = rejected.with_columns(distance=pl.lit("100.5"), hour=pl.lit("x"))

    again = clean(mended.write_csv().encode())

    assert again.rejected.columns == rejected.columns
    assert again.rejected[REASON].to_list() == ['hour: "x" is not a whole number']


TIMES = [
    ("2013-04-01T05:00:00Z", 0.0),
    ("2013-04-01 05:00:00", 0.0),
    ("2013-04-01T05:00", 0.0),
    ("2013-04-01T01:00:00-04:00", 0.0),
    ("2013-04-01T10:30:00+0530", 0.0),
    ("2013-04-01 05:00:00+00", 0.0),
    ("2013-04-01T05:00:00.25Z", 0.25),
    ("2013-04-01T05:00:00.123456789", 0.123456),
    ("2013-04-01", -5 * 3600.0),
    ("1969-12-31T23:59:59Z", -APRIL_1 - 1),
]


@pytest.mark.parametrize(("text", "after"), TIMES)
def test_times_are_iso_8601_and_utc_without_a_zone(text: str, after: float) -> None:
    assert clean(csv(GOOD.replace("2013-04-01T05:00:00Z", text))).frame[TIME].item() == APRIL_1 + after


@pytest.mark.parametrize(
    "when",
    [
        pl.Series([datetime(2013, 4, 1, 1, tzinfo=timezone(timedelta(hours=-4)))]).dt.convert_time_zone("UTC"),
        pl.Series([datetime(2013, 4, 1, 5)]).cast(pl.Datetime("ns")),  # noqa: DTZ001
        pl.Series([datetime(2013, 4, 1, 5)]).cast(pl.Datetime("ms")),  # noqa: DTZ001
        pl.Series(["2013-04-01T05:00:00Z"]),
    ],
    ids=["zone", "ns", "ms", "text"],
)
def test_parquet_times_of_every_kind(when: pl.Series) -> None:
    assert clean(parquet(when=when), "a.parquet").frame[TIME].item() == APRIL_1


PARQUET_COLUMNS = [
    ({"distance": pl.Series([100], dtype=pl.Int16)}, "distance", 100.0),
    ({"distance": pl.Series([100.5], dtype=pl.Decimal(10, 2))}, "distance", 100.5),
    ({"distance": [float("nan")]}, "distance", None),
    ({"distance": ["100.5"]}, "distance", 100.5),
    ({"carrier": pl.Series(["UA"], dtype=pl.Categorical)}, "carrier", "UA"),
    ({"carrier": pl.Series(["NA"], dtype=pl.Categorical)}, "carrier", ""),
    ({"carrier": [7]}, "carrier", "7"),
    ({"weekend": [0]}, "weekend", 0.0),
    ({"weekend": pl.Series([None], dtype=pl.Null)}, "weekend", None),
    ({"when": [date(2013, 4, 1)]}, TIME, APRIL_1 - 5 * 3600),
]


@pytest.mark.parametrize(
    ("columns", "name", "value"), PARQUET_COLUMNS, ids=[str(row[0])[:50] for row in PARQUET_COLUMNS]
)
def test_parquet_types_mean_what_the_same_text_means(columns: dict[str, Any], name: str, value: object) -> None:
    assert clean(parquet(**columns), "a.parquet").frame[name].item() == value


BAD_PARQUET = [
    ({"distance": [True]}, 'distance: "true" is not a number'),
    ({"distance": [float("inf")]}, 'distance: "inf" is not a number'),
    ({"distance": [[1.0, 2.0]]}, 'distance: "<List(Float64)>" is not a number'),
    ({"carrier": [b"\xff\xfe"]}, 'carrier: "<Binary>" is not a text'),
    ({"carrier": [timedelta(hours=1)]}, "carrier: \"<Duration(time_unit='us')>\" is not a text"),
    ({"when": [1364792400]}, 'when: "1364792400" is not an ISO 8601 timestamp (2013-01-31T05:00:00Z)'),
    ({"delay": pl.Series([None], dtype=pl.Float32)}, "delay: missing, so there is no label"),
]


@pytest.mark.parametrize(("columns", "reason"), BAD_PARQUET, ids=[row[1] for row in BAD_PARQUET])
def test_a_wrong_parquet_cell_rejects_its_row(columns: dict[str, Any], reason: str) -> None:
    partition = clean(parquet(**columns), "a.parquet")

    assert partition.rejected[REASON].to_list() == [reason]


def test_the_same_rows_clean_to_the_same_frame_from_every_type_of_file() -> None:
    cleaned = {name: clean(data, name) for name, data in files(rows(500)).items()}

    first = cleaned["a.csv"]
    assert 300 < first.frame.height < 500
    for partition in cleaned.values():
        assert_frame_equal(partition.frame, first.frame, check_exact=True)
        assert partition.rejected.select(ROW, REASON).equals(first.rejected.select(ROW, REASON))


PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
WHOLE = csv(GOOD)
JSON_ROW = b'{"when":"2013-04-01","delay":20,"carrier":"UA","origin":"JFK","distance":1,"hour":5,"weekend":true}'
BAD_FILES = [
    ("a.xlsx", WHOLE, "unknown_type", ".csv, .csv.gz, .parquet, .jsonl"),
    ("csv", WHOLE, "unknown_type", "unknown type"),
    ("a.csv", b"", "empty", "0 bytes"),
    ("a.csv", b"\n \r\n", "empty", "blank lines"),
    ("a.csv.gz", gzip.compress(b""), "empty", "blank lines"),
    ("a.csv", PNG, "not_text", "not UTF-8"),
    ("a.jsonl", PNG, "not_text", "not UTF-8"),
    ("a.csv", gzip.compress(WHOLE), "not_text", "name it .csv.gz"),
    ("a.csv", WHOLE.decode().encode("utf-16"), "not_text", "UTF-16"),
    ("a.csv", csv(GOOD, GOOD.replace("UA", "é")).decode().encode("latin-1"), "not_text", "line 3"),
    ("a.csv", WHOLE.replace(b"UA", b"U\0"), "not_text", "NUL"),
    ("a.csv", csv(), "no_rows", "no rows"),
    ("a.csv", csv() + b"\n", "no_rows", "no rows"),
    ("a.csv", WHOLE.replace(b"distance", b"dist"), "missing_columns", "no column `distance`; the pipeline needs: when"),
    ("a.csv", WHOLE.replace(b",", b";"), "missing_columns", "separated by semicolons"),
    ("a.csv", WHOLE.replace(b"hour,", b"distance,"), "not_readable", "more than one column `distance`"),
    ("a.csv", csv(GOOD, GOOD.replace("UA", '"UA'), GOOD), "not_readable", "quotation mark"),
    ("a.csv", csv(GOOD, GOOD.replace("UA", 'U"A'), GOOD), "not_readable", "quotation mark"),
    ("a.csv", WHOLE.replace(b"when", b'"when'), "not_readable", "header"),
    ("a.csv.gz", gzip.compress(WHOLE)[:-10], "not_readable", "cut off"),
    ("a.csv.gz", WHOLE, "not_readable", "gzip"),
    ("a.csv.gz", gzip.compress(WHOLE) + b"junk", "not_readable", "gzip"),
    ("a.parquet", b"PAR1 and so on", "not_readable", "Parquet"),
    ("a.parquet", WHOLE, "not_readable", "Parquet"),
    ("a.parquet", parquet()[:-20], "not_readable", "Parquet"),
    ("a.jsonl", JSON_ROW + b'\n{"when": ', "not_readable", "line 2"),
    ("a.jsonl", JSON_ROW + b"\n" + JSON_ROW.replace(b"20", b"NaN"), "not_readable", "line 2: NaN is not JSON"),
    ("a.jsonl", b"[" + JSON_ROW + b"]", "not_readable", "no JSON object on line 1"),
    ("a.jsonl", JSON_ROW + b" " + JSON_ROW, "not_readable", "line 1"),
    ("a.jsonl", JSON_ROW.replace(b"distance", b"dist"), "missing_columns", "`distance`"),
]


@pytest.mark.parametrize(("name", "data", "code", "words"), BAD_FILES, ids=[f"{row[0]} {row[3]}" for row in BAD_FILES])
def test_a_file_that_cannot_be_used_says_why(name: str, data: bytes, code: str, words: str) -> None:
    with pytest.raises(PartitionRejected) as caught:
        clean(data, name)

    assert caught.value.code == code
    assert words in str(caught.value)
    assert str(caught.value).startswith(name)
    assert len(str(caught.value)) < 600


def test_missing_columns_are_named_with_what_is_needed_and_what_was_found() -> None:
    with pytest.raises(PartitionRejected) as caught:
        clean(b"when,delay\n2013-04-01,20", "flights-2013-04.csv")

    assert caught.value.columns == ("carrier", "origin", "distance", "hour", "weekend")
    assert str(caught.value) == (
        "flights-2013-04.csv has no columns `carrier`, `origin`, `distance`, `hour`, `weekend`; the pipeline needs: "
        "when, delay, carrier, origin, distance, hour, weekend; columns found: when, delay"
    )


def test_parquet_without_rows() -> None:
    buffer = io.BytesIO()
    rows(3).clear().write_parquet(buffer)

    with pytest.raises(PartitionRejected, match="no rows"):
        clean(buffer.getvalue(), "a.parquet")


def test_a_key_that_is_null_throughout_is_a_missing_value_and_no_missing_column() -> None:
    line = JSON_ROW.replace(b'"distance":1', b'"distance":null')

    assert clean(line, "a.jsonl").frame["distance"].to_list() == [None]
    assert clean(JSON_ROW.replace(b'"distance":1,', b"") + b"\n" + line, "a.jsonl").frame["distance"].to_list() == [
        None,
        None,
    ]


def test_an_expansion_bomb_is_stopped_in_bounded_memory() -> None:
    bomb, seen = gzip.compress(b"0" * 50_000_000), Seen()

    with pytest.raises(PartitionRejected, match="more than 3,000,000 bytes") as caught:
        text_files.gunzip(io.BytesIO(bomb), seen, name="a.csv.gz", limit=3_000_000)

    assert caught.value.code == "too_large"
    assert sum(seen.sizes) < 3_000_000 + 2 * text_files.STEP_BYTES
    assert max(seen.sizes) <= text_files.STEP_BYTES


class Seen(io.BytesIO):
    """Remembers how much was written at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def write(self, data: Any) -> int:
        self.sizes.append(len(data))
        return len(data)


def test_a_parquet_bomb_is_stopped_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_EXPANDED_BYTES", 1_000_000)
    buffer = io.BytesIO()
    pl.select(pl.lit(1).repeat_by(200_000).explode().alias("hour")).with_columns(
        when=pl.lit("x"), delay=0, carrier=0, origin=0, distance=0, weekend=0
    ).write_parquet(buffer)

    with pytest.raises(PartitionRejected, match="expands to more than"):
        clean(buffer.getvalue(), "a.parquet")


def hiding(town: pa.Array, **options: Any) -> bytes:
    """A Parquet file with few rows, all good but for what is in one of the columns."""
    good = pl.concat([rows(1)] * len(town)).to_arrow()
    column = "carrier" if pa.types.is_dictionary(town.type) or pa.types.is_large_string(town.type) else "more"
    table = good.drop_columns([column]) if column in good.column_names else good
    buffer = io.BytesIO()
    pq.write_table(table.append_column(column, town), buffer, compression="zstd", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        # One long text, and many rows that have it.
        hiding(pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * 20_000]))),
        # As many texts, without a dictionary; what they compress to is nothing.
        hiding(pa.array(["x" * 20_000] * 1000, pa.large_string()), use_dictionary=False),
        # A list with a million numbers that are one run.
        hiding(pa.array([[1] * 1_000_000])),
    ],
    ids=["dictionary", "pages", "lists"],
)
def test_a_parquet_file_that_hides_what_it_holds_is_stopped(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(reading, "MAX_EXPANDED_BYTES", 5_000_000)
    assert len(data) < 20_000

    with pytest.raises(PartitionRejected, match="expands to more than 5,000,000 bytes, or out of proportion") as caught:
        clean(data, "a.parquet")

    assert caught.value.code == "too_large"


def test_a_parquet_file_that_expands_out_of_proportion_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MIN_BOMB_BYTES", 1_000_000)

    with pytest.raises(PartitionRejected, match="out of proportion"):
        clean(hiding(pa.array(["x" * 20_000] * 1000, pa.large_string()), use_dictionary=False), "a.parquet")


@pytest.mark.parametrize("sign", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0"])
def test_a_workbook_says_so(sign: bytes) -> None:
    with pytest.raises(PartitionRejected, match="is an Excel workbook"):
        clean(sign + b"\x14\x00" * 50, "a.csv")


def test_what_was_compressed_twice_says_so() -> None:
    with pytest.raises(PartitionRejected, match="is compressed twice"):
        clean(gzip.compress(gzip.compress(csv(GOOD))), "a.csv.gz")


def test_damaged_parquet_is_rejected_or_read_but_never_crashes() -> None:
    whole = files(rows(50))["d.parquet"]
    dice = random.Random(3)
    outcomes: set[str] = set()
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        try:
            clean(bytes(damaged), "d.parquet")
            outcomes.add("read")
        except PartitionRejected as exc:
            outcomes.add(exc.code)
    assert {"not_readable", "read"} <= outcomes


def test_too_many_bad_rows_reject_the_file_and_carry_the_rows() -> None:
    spec = small(quality="quality: {maximum_bad_rows: 0.5}")
    bad = "2013-04-01,NA,UA,JFK,1,5,true"

    assert clean(csv(GOOD, bad), spec=spec).rejected.height == 1
    with pytest.raises(PartitionRejected) as caught:
        clean(csv(GOOD, bad, bad), spec=spec)

    error = caught.value
    assert error.code == "too_many_bad_rows"
    assert error.columns == ("delay",)
    assert "2 bad rows of 3 (66.7%; the pipeline allows 50.0%): delay: missing (2 rows)" in str(error)
    assert error.tally is not None
    assert error.tally.rejected == 2


def test_a_file_of_bad_rows_alone_is_empty_when_that_is_allowed() -> None:
    partition = clean(csv("2013-04-01,NA,UA,JFK,1,5,true"))

    assert partition.frame.height == 0
    assert partition.frame.schema[LABEL] == pl.UInt8


LABELS = [
    ("label: {expression: delay > 15 OR origin = 'EWR'}", "2013-04-01,NA,UA,EWR,1,5,true", 1),
    ("label: {expression: 'coalesce(delay, 0) > 15'}", "2013-04-01,NA,UA,EWR,1,5,true", 0),
    ("label: {expression: weekend AND hour < 6}", "2013-04-01,1,UA,EWR,1,5,true", 1),
    ("label: {expression: CASE WHEN delay > 15 THEN 1 ELSE 0 END}", "2013-04-01,20,UA,EWR,1,5,true", 1),
    ("label: {column: weekend}", "2013-04-01,20,UA,EWR,1,5,false", 0),
    ("label: {column: delay}", "2013-04-01,1,UA,EWR,1,5,false", 1),
]


@pytest.mark.parametrize(("label", "line", "expected"), LABELS, ids=[row[0] for row in LABELS])
def test_labels(label: str, line: str, expected: int) -> None:
    assert clean(csv(line), spec=small(label=label)).frame[LABEL].to_list() == [expected]


NO_LABELS = [
    ("label: {column: weekend}", "2013-04-01,20,UA,EWR,1,5,NA", "weekend: missing, so there is no label"),
    ("label: {column: delay}", "2013-04-01,2,UA,EWR,1,5,NA", "label: 2.0 is neither 0 nor 1"),
    (
        "label: {expression: 'nullif(delay, 3) > 15'}",
        "2013-04-01,3,UA,EWR,1,5,1",
        "label: its expression gives no value",
    ),
]


@pytest.mark.parametrize(("label", "line", "reason"), NO_LABELS, ids=[row[0] for row in NO_LABELS])
def test_rows_without_a_label(label: str, line: str, reason: str) -> None:
    assert clean(csv(line), spec=small(label=label)).rejected[REASON].item().startswith(reason)


BAD_EXPRESSIONS = [
    ("delay > > 15", "cannot be evaluated"),
    ("dely > 15", "cannot be evaluated"),
    ("carrier > 15", "cannot be evaluated"),
    ("delay > (select 1)", ""),
    ("max(delay) > 15", "looks at several rows"),
    ("delay > avg(delay)", "looks at several rows"),
    ("delay > lag(delay) over (order by hour)", "looks at several rows"),
    ("row_number() over (order by delay) > 3", "looks at several rows"),
    ("carrier", "gives String"),
]


@pytest.mark.parametrize(("expression", "words"), BAD_EXPRESSIONS)
def test_a_bad_expression_is_a_mistake_in_the_spec(expression: str, words: str) -> None:
    line = f"label: {{expression: '{expression}'}}"
    spec, text = small(label=line), PIPELINE.replace("label: {expression: delay > 15}", line)

    with pytest.raises(SpecError) as caught:
        check_expressions(spec, source="small.yaml", text=text)
    assert (caught.value.source, caught.value.line, caught.value.field) == ("small.yaml", 10, "label.expression")
    assert words in caught.value.problem
    with pytest.raises(SpecError):
        clean(csv(GOOD), spec=spec)


def test_an_expression_that_fails_on_a_value_rejects_the_file() -> None:
    spec = small(label="label: {expression: cast(carrier as int) > 3}")

    check_expressions(spec)
    assert clean(csv(GOOD.replace("UA", "4")), spec=spec).frame[LABEL].to_list() == [1]
    with pytest.raises(PartitionRejected, match="has rows for which the label's expression cannot") as caught:
        clean(csv(GOOD), spec=spec)
    assert caught.value.code == "label_failed"


CELLS = st.one_of(
    st.sampled_from(
        ["", "NA", "1", "5", "20", "-7", "JFK", "UA", "true", "2013-04-01", "2013-04-01T05:00:00Z", "1e400"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters='\0\r\n",'), max_size=8),
    st.text('ab",\n', max_size=6).map(lambda text: '"' + text.replace('"', '""') + '"'),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.just(GOOD), st.lists(CELLS, min_size=1, max_size=9).map(",".join)), min_size=1, max_size=12)
)
def test_every_row_is_either_clean_or_rejected(lines: list[str]) -> None:
    # The last line keeps trailing blank lines from being the end of the file.
    partition = clean(csv(*lines, GOOD))

    assert partition.rows_read == len(lines) + 1
    assert partition.frame.height + partition.rejected.height == partition.rows_read
    assert partition.rejected[ROW].is_between(1, partition.rows_read).all()
    assert partition.rejected[ROW].n_unique() == partition.rejected.height
    assert partition.rejected[REASON].str.len_chars().min() != 0
    assert partition.rejected[REASON].null_count() == 0
    assert partition.frame[LABEL].null_count() == 0
    assert partition.frame[TIME].null_count() == 0
    kept = [number for number, line in enumerate(lines, 1) if line == GOOD]
    assert not set(kept) & set(partition.rejected[ROW].to_list())


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["JFK", "NA", "2013-04-01", "1.5"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(HEADER.split(",")), VALUES), max_size=8))
def test_every_json_object_is_either_clean_or_rejected(objects: list[dict[str, Any]]) -> None:
    lines = [JSON_ROW, *(json.dumps(value).encode() for value in objects)]

    partition = clean(b"\n".join(lines), "a.jsonl")

    assert partition.rows_read == len(lines)
    assert partition.frame.height + partition.rejected.height == len(lines)
    assert 1 not in partition.rejected[ROW]
    assert partition.rejected[REASON].null_count() == 0


def test_a_month_of_flights_takes_well_under_a_second() -> None:
    spec = flight_delays()
    month = rows(27_000).select(
        time_hour="when", arr_delay="delay", carrier="carrier", origin="origin", dest="carrier", month=4, day=1,
        hour="hour", minute=30, distance="distance",
        **{name: pl.col("distance") for name in spec.inputs[8:]},
    )  # fmt: skip
    data = month.write_csv(null_value="NA").encode()
    clean(data[:100_000], spec=spec.model_copy(update={"quality": small().quality}))

    started = time.perf_counter()
    partition = clean(data, spec=spec)

    assert partition.rows_read == 27_000
    assert time.perf_counter() - started < 2


# Filters, weights, groups, other labels.


def test_a_filter_leaves_rows_out_and_says_how_many() -> None:
    spec = small(categories="filter: distance > 100")
    lines = [GOOD, GOOD.replace("100.5", "50"), GOOD.replace("100.5", ""), GOOD.replace("100.5", "far")]
    partition = clean(csv(*lines), spec=spec)

    assert (partition.frame.height, partition.left_out, partition.rejected.height) == (1, 2, 1)
    # A cell that nobody can read is no reason to leave a row out in silence.
    assert partition.rejected[REASON].item().startswith("distance")


def test_a_row_that_is_left_out_is_not_rejected_for_anything_else() -> None:
    spec = small(categories="filter: hour > 3")
    partition = clean(csv(GOOD, GOOD.replace(",5,", ",2,").replace("100.5", "far")), spec=spec)

    assert (partition.left_out, partition.rejected.height, dict(partition.reasons)) == (1, 0, {})


@pytest.mark.parametrize(
    ("condition", "words"), [("hour >", "cannot be"), ("hour", "gives Float64"), ("max(hour) > 3", "several rows")]
)
def test_a_bad_filter_is_a_mistake_in_the_spec(condition: str, words: str) -> None:
    line = f"filter: {condition}"
    text = PIPELINE.replace("categories: {minimum_count: 2, maximum: 3}", line)
    with pytest.raises(SpecError, match=words) as caught:
        check_expressions(small(categories=line), source="small.yaml", text=text)
    assert (caught.value.line, caught.value.field) == (12, "filter")


def test_a_filter_that_fails_on_a_value_rejects_the_file() -> None:
    with pytest.raises(PartitionRejected, match="the filter cannot be evaluated") as caught:
        clean(csv(GOOD), spec=small(categories="filter: cast(carrier as int) > 3"))
    assert caught.value.code == "filter_failed"


def test_weights_are_kept_and_checked() -> None:
    spec = small(categories="weight: distance", distance="  distance: number")
    lines = [GOOD, GOOD.replace("100.5", "0"), GOOD.replace("100.5", "-1"), GOOD.replace("100.5", "NA")]
    partition = clean(csv(*lines), spec=spec)

    assert partition.frame[WEIGHT].to_list() == [100.5, 0.0]
    assert "distance" not in partition.frame.columns
    assert dict(partition.reasons) == {"distance: missing": 1, "distance: no weight": 1}


def test_rows_of_a_group_have_one_fold_whatever_the_file() -> None:
    spec = small(categories="holdout: {by: group, column: carrier}")
    first = clean(csv(GOOD, GOOD.replace("UA", "AA"), GOOD, GOOD.replace("UA", "")), spec=spec)
    second = clean(csv(GOOD.replace("100.5", "7")), spec=spec)

    folds = first.frame[GROUP].to_list()
    assert folds[0] == folds[2] == second.frame[GROUP].item() != folds[1]
    assert all(0 <= fold < 1 for fold in folds)
    assert first.rejected[REASON].to_list() == ["carrier: missing, so the row belongs to no group"]


def test_texts_and_slices_are_carried() -> None:
    spec = small(hour="  hour: text", categories="slices: [weekend]\nfeatures: [distance]")
    frame = clean(csv(GOOD), spec=spec).frame
    assert frame.columns[:3] == ["distance", "hour", "weekend"]
    assert frame.row(0)[:3] == (100.5, "5", 1.0)


CLASSES = "task: multiclass\nlabel: {column: origin, classes: [LGA, JFK]}"
OTHER_LABELS = [
    (CLASSES, GOOD, 1, ""),
    (CLASSES, GOOD.replace("JFK", "EWR"), None, 'label: "EWR" is none of the classes'),
    (CLASSES, GOOD.replace("JFK", ""), None, "origin: missing, so there is no label"),
    ("task: multiclass\nlabel: {column: hour, classes: [4, 5]}", GOOD, 1, ""),
    ("task: multiclass\nlabel: {column: weekend, classes: [true, false]}", GOOD, 0, ""),
    (
        "task: multiclass\nlabel: {expression: \"CASE WHEN delay > 9 THEN 'late' ELSE 'ok' END\", classes: [ok, late]}",
        GOOD,
        1,
        "",
    ),
    ("task: regression\nlabel: {column: delay}", GOOD, 20.0, ""),
    ("task: regression\nlabel: {expression: delay / 8}", GOOD, 2.5, ""),
    ("task: regression\nlabel: {column: distance}", GOOD.replace("100.5", "1e39"), None, "label: 1"),
    (
        "task: regression\nlabel: {column: distance}",
        GOOD.replace("100.5", ""),
        None,
        "distance: missing, so there is no",
    ),
]


@pytest.mark.parametrize(("label", "line", "expected", "reason"), OTHER_LABELS)
def test_labels_of_other_tasks(label: str, line: str, expected: float | None, reason: str) -> None:
    partition = clean(csv(line), spec=small(label=label))
    assert partition.frame[LABEL].to_list() == ([] if expected is None else [expected])
    assert [text.startswith(reason) for text in partition.rejected[REASON]] == [True] * bool(reason)


@pytest.mark.parametrize(("label", "words"), [
    ("task: regression\nlabel: {expression: carrier}", "has to give a number"),
    ("task: multiclass\nlabel: {expression: when, classes: [a, b]}", "has to give a class's name"),
    ("task: regression\nlabel: {expression: delay - avg(delay)}", "several rows"),
])  # fmt: skip
def test_expressions_have_to_give_what_the_task_is_about(label: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        check_expressions(small(label=label))


SHOP = """
name: shops
columns: {at: timestamp, price: number, sold: boolean}
label: {column: sold}
time: at
quality: {maximum_bad_rows: 0.5}
"""


@pytest.mark.parametrize(
    ("kind", "cells", "cut"),
    [
        ("boolean", ["false", "true", "false", "f"], True),
        ("boolean", ["false", "true", "false", "tru"], True),
        ("boolean", ["f", "t", "f", "f"], False),
        ("boolean", ["false", "true", "false", "true"], False),
        ("category", ["Ghent", "Lille", "Ghent", "Gh"], True),
        ("category", ["Ghent", "Lille", "Ghent", "Porto"], False),
        ("timestamp", ["2026-01-01T00:00:00Z"] * 3 + ["2026-01-01T0"], True),
        ("timestamp", ["2026-01-01T00:00:00Z"] * 4, False),
        ("number", ["12.5", "13.5", "14.5", "1"], False),  # it cannot be told
    ],
)
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_last_line_that_is_cut_off_is_set_aside_where_it_can_be_told(
    kind: str, cells: list[str], end: str, *, cut: bool
) -> None:
    text = SHOP.replace("sold: boolean}", f"sold: boolean, last: {kind}}}")
    spec = parse_spec(text, source="shops.yaml")
    lines = [f"2026-01-0{number}T00:00:00Z,1,true,{cell}" for number, cell in enumerate(cells, start=1)]
    data = ("at,price,sold,last\n" + "\n".join(lines) + end).encode()
    partition = clean_partition(data, name="a.csv", spec=spec)
    reasons = [reason for reason in partition.reasons if reason == "line: cut off"]
    assert bool(reasons) == (cut and not end)
    assert partition.frame.height + partition.rejected.height == 4


def test_a_gzip_file_that_expands_out_of_all_proportion_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "MIN_BOMB_BYTES", 2_000_000)
    bomb = gzip.compress(b"0" * 20_000_000)
    with pytest.raises(PartitionRejected, match="expands to more than") as caught:
        text_files.gunzip(io.BytesIO(bomb), io.BytesIO(), name="a.csv.gz")
    assert caught.value.code == "too_large"
