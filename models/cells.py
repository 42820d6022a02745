"""One raw column to typed values: which cells are missing, which are wrong, and in what words.

Text (CSV, JSON Lines) and typed columns (Parquet) that say the same come out the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from models.spec import Column
from models.texts import ISO_8601, MISSING_TEXTS

TRUE_TEXTS = ("true", "t", "yes", "y", "1", "1.0")
FALSE_TEXTS = ("false", "f", "no", "n", "0", "0.0")
MAX_SAMPLE_CHARACTERS = 60
"""How much of a cell a reason repeats."""
MAX_ALLOWED_CHARACTERS = 120
"""How much of a list of allowed categories a reason repeats."""
MICROSECONDS = 1_000_000
WORDS = {
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "timestamp": "an ISO 8601 timestamp (2013-01-31T05:00:00Z)",
    "category": "a text",
    "text": "a text",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A reason to reject rows: `rows` (Boolean [N]), its name in counts, and the words around the cell's sample."""

    key: str
    rows: pl.Series
    before: str
    cells: pl.Series | None = None
    after: str = ""

    def texts(self, chosen: pl.Series) -> pl.Series:
        """String, for the `chosen` rows only: the reason, or null where this problem is not theirs."""
        rows = self.rows.filter(chosen)
        text = (
            pl.lit(self.before)
            if self.cells is None
            else pl.concat_str(pl.lit(self.before), "cell", pl.lit(self.after))
        )
        cells = pl.Series("cell", [None] * rows.len(), pl.String) if self.cells is None else self.cells.filter(chosen)
        sample = pl.col("cell").fill_null("").str.replace_all(r"\s+", " ")
        short = sample.str.len_chars() > MAX_SAMPLE_CHARACTERS
        cut = pl.when(short).then(sample.str.head(MAX_SAMPLE_CHARACTERS - 1) + "…").otherwise(sample)
        frame = pl.DataFrame({"rows": rows, "cell": cells}).with_columns(cut.alias("cell"))
        return frame.select(pl.when("rows").then(text).alias(self.key)).to_series()


@dataclass(frozen=True, slots=True)
class TypedColumn:
    """A column after reading. `values` is null where `missing` or `wrong` (both Boolean [N]) hold.

    Float64 for number and integer, Boolean for boolean, String for category and text, Datetime (microseconds, UTC
    without saying so) for timestamp.
    """

    values: pl.Series
    missing: pl.Series
    wrong: pl.Series
    problems: tuple[Problem, ...]


def read_column(raw: pl.Series, name: str, column: Column) -> TypedColumn:
    """The typed values of a raw column, with everything that the spec finds wrong with them."""
    text = as_text(raw)
    missing = _missing(raw, text, column)
    values = _values(raw, text, column).set(missing, None)
    wrong = values.is_null() & ~missing
    problems = [
        Problem(f"{name}: not {WORDS[column.type]}", wrong, f'{name}: "', text, f'" is not {WORDS[column.type]}'),
        *_contract(name, column, values, text),
    ]
    if column.required:
        problems.append(Problem(f"{name}: missing", missing, f"{name}: missing, but required"))
    return TypedColumn(values, missing, wrong, tuple(problem for problem in problems if problem.rows.any()))


def as_text(raw: pl.Series) -> pl.Series:
    """String [N]: the cells as they would stand in a CSV; a cell that has no text form shows its type."""
    if raw.dtype == pl.String:
        return raw
    if raw.dtype.is_nested() or raw.dtype in {pl.Binary, pl.Duration, pl.Time, pl.Object}:
        shown = pl.when(pl.col("cell").is_not_null()).then(pl.lit(f"<{raw.dtype}>"))
        return raw.alias("cell").to_frame().select(shown.alias("cell")).to_series()
    return raw.cast(pl.String)


def _missing(raw: pl.Series, text: pl.Series, column: Column) -> pl.Series:
    if raw.dtype.is_float():
        return raw.is_null() | raw.is_nan().fill_null(value=True)
    if raw.dtype == pl.String or raw.dtype in {pl.Categorical, pl.Enum}:
        # A category is its text to the letter, blanks included: the feature graph compares it so in requests too.
        written = text if column.type in {"category", "text"} else text.str.strip_chars()
        return text.is_null() | written.is_in(MISSING_TEXTS).fill_null(value=True)
    return raw.is_null()


def _values(raw: pl.Series, text: pl.Series, column: Column) -> pl.Series:
    stripped = text.str.strip_chars()
    match column.type:
        case "number" | "integer":
            numbers = (raw if raw.dtype.is_numeric() else stripped).cast(pl.Float64, strict=False)
            usable = numbers.is_finite().fill_null(value=False)
            if column.type == "integer":
                usable &= (numbers == numbers.floor()).fill_null(value=False)
            return numbers.set(~usable, None)
        case "boolean":
            lower = stripped.str.to_lowercase()
            booleans = lower.is_in(TRUE_TEXTS)
            return booleans.set(~(booleans | lower.is_in(FALSE_TEXTS)).fill_null(value=False), None)
        case "timestamp":
            return _timestamps(raw, stripped)
        case "category" | "text":
            if raw.dtype.is_nested() or raw.dtype in {pl.Binary, pl.Duration, pl.Time, pl.Object}:
                return pl.Series(raw.name, [None] * raw.len(), pl.String)
            return text


def _timestamps(raw: pl.Series, text: pl.Series) -> pl.Series:
    """Datetime[us] without a zone, in UTC; null where the cell is no ISO 8601 timestamp."""
    if raw.dtype == pl.Date:
        return raw.cast(pl.Datetime("us"))
    if isinstance(raw.dtype, pl.Datetime):
        utc = raw.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if raw.dtype.time_zone else raw
        return utc.cast(pl.Datetime("us"))
    parts = text.alias("cell").to_frame().select(pl.col("cell").str.extract_groups(ISO_8601)).unnest("cell")

    def part(name: str) -> pl.Expr:
        return pl.col(name).cast(pl.Int64).fill_null(0)

    zone = (part("zone_hour") * 3600 + part("zone_minute") * 60) * pl.when(pl.col("sign") == "-").then(-1).otherwise(1)
    seconds = part("hour") * 3600 + part("minute") * 60 + part("second") - zone
    # Digits beyond microseconds are cut.
    fraction = pl.col("fraction").fill_null("0").str.pad_end(6, "0").str.head(6).cast(pl.Int64)
    days = pl.col("date").str.to_date("%Y-%m-%d", strict=False).cast(pl.Int64)
    # A text that does not match has no date, so the sum is null.
    instant = (days * 86_400 + seconds) * MICROSECONDS + fraction
    return parts.select(instant.cast(pl.Datetime("us")).alias(raw.name)).to_series()


def _contract(name: str, column: Column, values: pl.Series, text: pl.Series) -> Iterator[Problem]:
    if column.minimum is not None:
        words = f"below the minimum {column.minimum:g}"
        yield Problem(f"{name}: {words}", _true(values < column.minimum), f"{name}: ", text, f" is {words}")
    if column.maximum is not None:
        words = f"above the maximum {column.maximum:g}"
        yield Problem(f"{name}: {words}", _true(values > column.maximum), f"{name}: ", text, f" is {words}")
    if column.allowed is not None:
        listed = ", ".join(column.allowed)
        if len(listed) > MAX_ALLOWED_CHARACTERS:
            listed = listed[: MAX_ALLOWED_CHARACTERS - 1] + "…"
        outside = ~values.is_in(column.allowed)
        yield Problem(f"{name}: not allowed", _true(outside), f'{name}: "', text, f'" is not one of {listed}')


def _true(condition: pl.Series) -> pl.Series:
    return condition.fill_null(value=False)
