"""One raw column to typed values: which cells are missing, which are wrong, and in what words.

Text (CSV, JSON Lines) and typed columns (Parquet) that say the same come out the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from models.spec import Column, ColumnType
from models.texts import ISO_8601, MISSING_TEXTS

TRUE_TEXTS = ("true", "t", "yes", "y", "1", "1.0")
FALSE_TEXTS = ("false", "f", "no", "n", "0", "0.0")
MAX_SAMPLE_CHARACTERS = 60
"""How much of a cell a reason repeats."""
MAX_ALLOWED_CHARACTERS = 120
"""How much of a list of allowed categories a reason repeats."""
MICROSECONDS = 1_000_000
AS_WRITTEN = frozenset({"category", "text"})
"""A category is its text to the letter, blanks included: the feature graph compares it so in requests too."""
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


def read_columns(raw: pl.DataFrame, columns: Mapping[str, Column]) -> dict[str, TypedColumn]:
    """The typed values of a file's `columns`, with everything that the spec finds wrong with them.

    All columns go through a few operations of Polars together: each for itself would cost more than the work.
    """
    # By number, because Polars reads some names as patterns.
    cells = pl.DataFrame({str(at): raw[name] for at, name in enumerate(columns)})
    kinds: dict[str, ColumnType] = {str(at): column.type for at, column in enumerate(columns.values())}
    values = _values(cells, kinds)
    # A text that is no value as it stands may be one without its outer blanks, or say that there is none.
    again = [
        at
        for at, kind in kinds.items()
        if kind not in AS_WRITTEN and _is_written(cells.schema[at]) and values[at].null_count() > cells[at].null_count()
    ]
    if again:
        stripped = cells.select(pl.col(again).cast(pl.String).str.strip_chars())
        cells = cells.with_columns(stripped)
        values = values.with_columns(_values(stripped, {at: kinds[at] for at in again}))
    lacking = values.select(pl.all().is_null())
    # Of texts that were read once, those without a value are missing.
    asked = [at for at in kinds if at in again or not _is_written(cells.schema[at])]
    missing = lacking.with_columns(cells.select(_missing(pl.col(at), cells.schema[at]) for at in asked))
    typed = {}
    for at, (name, column) in zip(kinds, columns.items(), strict=True):
        wrong = lacking[at] & ~missing[at]
        problems = tuple(_problems(name, column, raw[name], values[at], missing[at], wrong))
        typed[name] = TypedColumn(values[at].alias(name), missing[at], wrong, problems)
    return typed


def _problems(
    name: str, column: Column, raw: pl.Series, values: pl.Series, missing: pl.Series, wrong: pl.Series
) -> Iterator[Problem]:
    if wrong.any():
        words = WORDS[column.type]
        yield Problem(f"{name}: not {words}", wrong, f'{name}: "', as_text(raw), f'" is not {words}')
    yield from _contract(name, column, values, raw)
    if column.required and missing.any():
        yield Problem(f"{name}: missing", missing, f"{name}: missing, but required")


def as_text(raw: pl.Series) -> pl.Series:
    """String [N]: the cells as they would stand in a CSV; a cell that has no text form shows its type."""
    if raw.dtype == pl.String:
        return raw
    if _has_no_text(raw.dtype):
        shown = pl.when(pl.col("cell").is_not_null()).then(pl.lit(f"<{raw.dtype}>"))
        return raw.alias("cell").to_frame().select(shown.alias("cell")).to_series()
    return raw.cast(pl.String)


def _has_no_text(dtype: pl.DataType) -> bool:
    return dtype.is_nested() or dtype.base_type() in {pl.Binary, pl.Duration, pl.Time, pl.Object}


def _is_written(dtype: pl.DataType) -> bool:
    return dtype.base_type() in {pl.String, pl.Categorical, pl.Enum}


def _missing(cell: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_float():
        return cell.is_null() | cell.is_nan()
    if _is_written(dtype):
        return cell.is_null() | cell.cast(pl.String).is_in(MISSING_TEXTS)
    return cell.is_null()


def _values(cells: pl.DataFrame, kinds: Mapping[str, ColumnType]) -> pl.DataFrame:
    """The cells as values of these kinds: null where there is none. Outer blanks count."""
    times = {at: _timestamps(cells[at]) for at, kind in kinds.items() if kind == "timestamp"}
    others = cells.select(
        _value(pl.col(at), cells.schema[at], kind).alias(at) for at, kind in kinds.items() if kind != "timestamp"
    )
    return pl.DataFrame({at: times[at] if at in times else others[at] for at in kinds})


def _value(cell: pl.Expr, dtype: pl.DataType, kind: ColumnType) -> pl.Expr:
    if kind in {"number", "integer"} and dtype.is_numeric():
        numbers = cell.cast(pl.Float64, strict=False)
    elif _has_no_text(dtype):
        nothing = pl.Boolean if kind == "boolean" else pl.String if kind in AS_WRITTEN else pl.Float64
        return pl.repeat(None, pl.len(), dtype=nothing)
    else:
        text = cell.cast(pl.String)
        if kind in AS_WRITTEN:
            return pl.when(~text.is_in(MISSING_TEXTS)).then(text)
        if kind == "boolean":
            lower = text.str.to_lowercase()
            return (
                pl.when(lower.is_in(TRUE_TEXTS)).then(pl.lit(True)).when(lower.is_in(FALSE_TEXTS)).then(pl.lit(False))
            )
        numbers = text.cast(pl.Float64, strict=False)
    usable = numbers.is_finite()
    return pl.when(usable & (numbers == numbers.floor()) if kind == "integer" else usable).then(numbers)


def _timestamps(cells: pl.Series) -> pl.Series:
    """Datetime[us] without a zone, in UTC; null where the cell is no ISO 8601 timestamp."""
    if cells.dtype == pl.Date:
        return cells.cast(pl.Datetime("us"))
    if isinstance(cells.dtype, pl.Datetime):
        utc = cells.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if cells.dtype.time_zone else cells
        return utc.cast(pl.Datetime("us"))
    text = as_text(cells)
    distinct = text.drop_nulls().unique()
    if not 0 < distinct.len() <= text.len() // 2:
        return _instants(text)
    # Times of events repeat less often than those of hours or days; reading one takes longer than finding it again.
    return text.replace_strict(distinct, _instants(distinct), default=None, return_dtype=pl.Datetime("us"))


def _instants(text: pl.Series) -> pl.Series:
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
    return parts.select(instant.cast(pl.Datetime("us"))).to_series()


def _contract(name: str, column: Column, values: pl.Series, raw: pl.Series) -> Iterator[Problem]:
    least, greatest = (values.min(), values.max()) if values.dtype == pl.Float64 else (None, None)
    if column.minimum is not None and isinstance(least, float) and least < column.minimum:
        words = f"below the minimum {column.minimum:g}"
        yield Problem(f"{name}: {words}", _true(values < column.minimum), f"{name}: ", as_text(raw), f" is {words}")
    if column.maximum is not None and isinstance(greatest, float) and greatest > column.maximum:
        words = f"above the maximum {column.maximum:g}"
        yield Problem(f"{name}: {words}", _true(values > column.maximum), f"{name}: ", as_text(raw), f" is {words}")
    if column.allowed is not None and (outside := ~values.is_in(column.allowed)).any():
        listed = ", ".join(column.allowed)
        if len(listed) > MAX_ALLOWED_CHARACTERS:
            listed = listed[: MAX_ALLOWED_CHARACTERS - 1] + "…"
        yield Problem(f"{name}: not allowed", outside, f'{name}: "', as_text(raw), f'" is not one of {listed}')


def _true(condition: pl.Series) -> pl.Series:
    return condition.fill_null(value=False)
