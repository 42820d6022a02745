from __future__ import annotations

import json
from typing import get_args

import pytest

from models.partitions import Tally, clean_partition
from models.quality import ADVICE, file_report, quality_report, rows_report
from models.rejection import PartitionRejected, RejectionCode
from tests.models.flights import GOOD, csv, small

BAD = "2013-04-01,NA,UA,BOS,1,5,true"


def test_the_report_counts_and_shows_the_first_rows() -> None:
    tally = Tally().plus(clean_partition(csv(GOOD, *[BAD] * 7), name="a.csv", spec=small()))

    document = quality_report(tally)

    assert json.loads(json.dumps(document)) == document
    assert (document["rows_read"], document["clean"], document["rejected"]) == (8, 1, 7)
    assert document["reasons"] == {"delay: missing": 7, "origin: not allowed": 7}
    assert [sample["row"] for sample in document["samples"]] == [2, 3, 4, 5, 6]
    assert document["samples"][0]["cells"]["origin"] == "BOS"
    assert "delay: missing, so there is no label" in document["samples"][0]["reason"]


def test_rows_report_in_words() -> None:
    tally = Tally().plus(clean_partition(csv(GOOD, *[BAD] * 7), name="a.csv", spec=small()))

    report = rows_report(tally, name="flights/a.csv")

    assert report.markdown.startswith("# flights/a.csv\n\n7 of 8 rows cannot be used")
    assert "| delay: missing | 7 |" in report.markdown
    assert "and 2 more" in report.markdown
    assert report.document["file"] == "flights/a.csv"


def test_foreign_text_cannot_break_out_of_the_table() -> None:
    line = '2013-04-01,"a|b <script>\nc",UA,JFK,1,5,true'
    tally = Tally().plus(clean_partition(csv(GOOD, line), name="a.csv", spec=small()))

    markdown = rows_report(tally, name="a|b.csv").markdown

    assert '"a\\|b &lt;script> c"' in markdown
    assert "<script>" not in markdown


def test_file_report_says_what_to_do() -> None:
    with pytest.raises(PartitionRejected) as caught:
        clean_partition(b"when,delay\n1,2", name="a.csv", spec=small())

    report = file_report(caught.value, name="flights/a.csv")

    assert report.document["code"] == "missing_columns"
    assert report.document["columns"] == ["carrier", "origin", "distance", "hour", "weekend"]
    assert "no columns `carrier`" in report.markdown
    assert ADVICE["missing_columns"] in report.markdown


def test_file_report_of_too_many_bad_rows_shows_them() -> None:
    spec = small(quality="quality: {maximum_bad_rows: 0.1}")
    with pytest.raises(PartitionRejected) as caught:
        clean_partition(csv(GOOD, BAD), name="a.csv", spec=spec)

    report = file_report(caught.value, name="a.csv")

    assert report.document["rejected"] == 1
    assert "| delay: missing | 1 |" in report.markdown
    assert json.loads(json.dumps(report.document)) == report.document


def test_every_code_has_advice() -> None:
    assert set(ADVICE) == set(get_args(RejectionCode))
