"""Labels and filters are functions of their row alone, the same whenever and wherever they are evaluated."""

from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.expressions import check_expressions, evaluate
from models.spec import PipelineSpec, SpecError
from tests.models.flights import PIPELINE, small


def _with(expression: str) -> tuple[PipelineSpec, str]:
    line = f"label: {{expression: {json.dumps(expression)}}}"
    return small(label=line), PIPELINE.replace("label: {expression: delay > 15}", line)


def _problem(expression: str) -> str:
    spec, text = _with(expression)
    try:
        check_expressions(spec, source="small.yaml", text=text)
    except SpecError as exc:
        mistake = exc
    else:
        return ""
    assert (mistake.source, mistake.line, mistake.field) == ("small.yaml", 10, "label.expression")
    return mistake.problem


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.replace("\n", ";").split(";") if each.strip()]


OF_ITS_ROW = """
    delay > 15 ; delay > 15 AND hour < 6 ; NOT (delay > 15 OR weekend) ; delay BETWEEN 3 AND 9 ; delay IS NOT NULL
    delay IS DISTINCT FROM hour ; -delay + 2 * hour / 3 > 4 ; hour % 2 = 1 ; hour // 2 = 1 ; (delay > 15) = weekend
    abs(delay) > 15 ; round(delay, 1) > 15 ; floor(delay) > 15 ; sqrt(delay) > 3 ; pow(delay, 2) > 9 ; ln(delay) > 1
    mod(hour, 2) = 1 ; sign(delay) > 0 ; sin(delay) > 0 ; greatest(delay, hour, 3) > 15 ; least(delay, hour) > 3
    coalesce(delay, hour, 0) > 15 ; ifnull(delay, 0) > 15 ; nullif(delay, 3) > 15 ; if(weekend, delay > 3, delay > 9)
    CASE WHEN delay > 15 THEN 1 ELSE 0 END ; CASE carrier WHEN 'UA' THEN delay > 3 WHEN 'AA' THEN true ELSE false END
    CAST(delay AS int) > 3 ; try_cast(carrier AS int) > 3 ; delay::varchar = '3.0' ; weekend IS TRUE
    carrier IN ('UA', 'AA') ; hour NOT IN (1, 2) ; carrier LIKE 'U%' ; carrier ILIKE '_a' ; carrier ~ '^U'
    carrier = 'max(delay) now() current_date' ; carrier || origin = 'UAEWR' ; concat_ws('-', carrier, origin) = 'U-A'
    upper(carrier) = 'UA' ; length(carrier) > 1 ; substr(carrier, 1, 1) = 'U' ; replace(carrier, 'U', 'X') = 'XA'
    trim(carrier) = 'UA' ; starts_with(carrier, 'U') ; strpos(carrier, 'U') = 1 ; split_part(carrier, '-', 1) = 'U'
    regexp_like(carrier, '^U') ; lpad(carrier, 3, '0') = '0UA' ; string_to_array(carrier, '-')[1] = 'U'
    extract(hour FROM when) > 3 ; date_part('month', when) = 3 ; dayofweek(when) > 5 ; strftime(when, '%H') = '05'
    when >= timestamp '2013-01-01' ; CAST(when AS date) = date '2013-01-01' ; when - INTERVAL '1 day' > when
    datetime('2013-01-01') < when ; strptime(carrier, '%Y') < when ; delay > 15 /* now() */ AND hour > 3
"""


@pytest.mark.parametrize("expression", _listed(OF_ITS_ROW))
def test_what_a_row_says_of_itself_is_allowed(expression: str) -> None:
    assert not _problem(expression)


OF_OTHER_ROWS = """
    max(delay) > 15 ; delay > MAX(distance) ; MAX(distance) > 1000000 AND delay > 15 ; delay > avg(delay)
    max(delay) >= delay OR delay > 15 ; max(delay) IS NOT NULL AND delay > 15 ; greatest(max(delay), delay) > 3
    count(*) > 5 ; delay > 15 AND count(*) > 100000 ; hour > count(*) ; count(delay) > 5 ; count(DISTINCT carrier) > 5
    CASE WHEN count(*) > 1000 THEN delay > 10 ELSE delay > 15 END ; coalesce(delay, avg(delay)) > 15
    sum(delay) > 1000000 ; min(hour) = 0 ; first(delay) > 3 ; last(delay) > 3 ; median(delay) > 3 ; stddev(delay) > 3
    variance(delay) > 1e9 ; quantile_cont(delay, 0.5) > 1e9 ; quantile_disc(delay, 0.5) > 1e9 ; corr(delay, hour) > 2
    covar(delay, hour) > 1e9 ; max(delay * 2) > 1e9 ; avg(delay / hour) > 1e9 ; sum(delay) FILTER (WHERE weekend) > 1e9
    count(*) FILTER (WHERE weekend) > 1e6 ; array_length(array_agg(delay)) > 100 ; hour = ANY(array_agg(delay))
    delay > avg(delay) OVER (PARTITION BY carrier) ; sum(delay) OVER (PARTITION BY carrier) > 1e9
    avg(delay * hour) OVER (PARTITION BY carrier) > 1e9 ; max(delay) OVER () > 1e9
    delay > lag(delay) OVER (ORDER BY hour) ; lag(delay * 2) OVER (ORDER BY hour) > 1e9
    delay > lead(delay) OVER (ORDER BY hour) ; first_value(delay) OVER (ORDER BY hour) > 1e9
    row_number() OVER (ORDER BY delay) > 3 ; rank() OVER (ORDER BY delay) > 1000 ; ntile(2) OVER (ORDER BY delay) > 9
    percent_rank() OVER (ORDER BY delay) > 2 ; unnest(string_to_array(carrier, 'x')) = 'a'
    date(carrier) > when ; timestamp(carrier) > when
"""


@pytest.mark.parametrize("expression", _listed(OF_OTHER_ROWS))
def test_what_hangs_on_other_rows_is_refused(expression: str) -> None:
    assert _problem(expression) == "looks at several rows; a row's label has to be its own"


@pytest.mark.parametrize(
    ("expression", "word"),
    [
        ("when < now()", "now"),
        ('when < "now" ()', "now"),
        ("when < NOW( )", "NOW"),
        ("when < current_timestamp", "current_timestamp"),
        ("when < CURRENT_TIMESTAMP()", "CURRENT_TIMESTAMP"),
        ("CAST(when AS date) < current_date", "current_date"),
        ("CAST(when AS time) < current_time", "current_time"),
        ("when < localtimestamp", "localtimestamp"),
        ("CAST(when AS time) < LOCALTIME", "LOCALTIME"),
        ("carrier = 'it''s' AND when < now/* ' */()", "now"),
    ],
)
def test_the_clock_is_refused(expression: str, word: str) -> None:
    assert (
        _problem(expression) == f"asks what time it is ({word}); a row's label has to be the same whenever it is made"
    )


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("true", "reads no column"),
        ("2 > 1", "reads no column"),
        ("columns('del.*') > 15", "names columns by a pattern"),
        ("random() > 0.5", "cannot be evaluated"),
        ("delay > (SELECT max(delay) FROM self)", "cannot be evaluated"),
        ("delay IN (SELECT 3)", "cannot be evaluated"),
        ("EXISTS (SELECT 1)", "cannot be evaluated"),
    ],
)
def test_other_expressions_that_make_no_label(expression: str, words: str) -> None:
    assert words in _problem(expression)


def test_a_long_expression_is_read() -> None:
    assert not _problem(" OR ".join(f"delay = {number}" for number in range(1500)))


def test_columns_may_be_called_like_the_clock() -> None:
    spec = small(hour="  current_date: number", label="label: {expression: '\"current_date\" > 3'}")
    check_expressions(spec)
    check_expressions(small(hour="  now: number", label="label: {expression: now > 3}"))


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("max(hour) > 3", "looks at several rows; a row's filter has to be its own"),
        ("when < now()", "a row's filter has to be the same whenever it is made"),
    ],
)
def test_a_filter_is_held_to_the_same(condition: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        check_expressions(small(categories=f"filter: {condition}"))
    assert (caught.value.field, words in caught.value.problem) == ("filter", True)


NUMBERS = st.recursive(
    st.sampled_from(["delay", "distance", "hour", "3", "0.5"]),
    lambda of: st.one_of(
        st.tuples(st.sampled_from(["+", "-", "*", "/"]), of, of).map(lambda each: f"({each[1]} {each[0]} {each[2]})"),
        st.tuples(st.sampled_from(["abs", "round", "floor", "max", "avg", "sum", "count", "first", "median"]), of).map(
            lambda each: f"{each[0]}({each[1]})"
        ),
        st.tuples(st.sampled_from(["coalesce", "greatest", "least"]), of, of).map(
            lambda each: f"{each[0]}({each[1]}, {each[2]})"
        ),
        st.tuples(st.sampled_from(["sum", "max", "lag", "first_value"]), of).map(
            lambda each: f"{each[0]}({each[1]}) OVER (PARTITION BY carrier ORDER BY hour)"
        ),
    ),
    max_leaves=5,
)
CELLS = st.one_of(st.none(), st.floats(-1e6, 1e6))
ROWS = st.lists(
    st.fixed_dictionaries({"delay": CELLS, "distance": CELLS, "hour": CELLS, "carrier": st.sampled_from(["UA", "AA"])}),
    min_size=2,
    max_size=6,
)
TYPES = {"delay": pl.Float64, "distance": pl.Float64, "hour": pl.Float64, "carrier": pl.String}


@given(expression=NUMBERS.map(lambda number: f"{number} > 1"), rows=ROWS)
def test_what_is_allowed_gives_a_row_the_same_alone_in_a_file_and_in_any_order(
    expression: str, rows: list[dict[str, object]]
) -> None:
    if _problem(expression):
        return
    frame, value = pl.DataFrame(rows, schema=TYPES), pl.sql_expr(expression)
    together = evaluate(frame, value).to_list()
    assert [evaluate(frame[index], value).item() for index in range(len(rows))] == together
    assert evaluate(frame.reverse(), value).to_list() == together[::-1]


@pytest.mark.parametrize("expression", ["delay / 3", "delay * 2 / 3", "delay / 60"])
def test_a_single_row_is_rounded_as_among_others(expression: str) -> None:
    check_expressions(small(label=f"task: regression\nlabel: {{expression: {expression}}}"))
    rows, value = pl.DataFrame({"delay": [10.0, 20.0, 100.0, 0.1, 0.7]}), pl.sql_expr(expression)
    together = evaluate(rows, value).to_list()
    assert [evaluate(rows[index], value).item() for index in range(5)] == together
    assert evaluate(pl.concat([rows[index] for index in range(5)], rechunk=False), value).to_list() == together
