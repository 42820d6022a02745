"""The ledger in real tables: what the rules say, under concurrent writers."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from azure.core.exceptions import ServiceRequestError
from azure.data.tables import TableClient, TableTransactionError

from adapters.ledger import Claim, Ledger, LedgerError, Settlement, Sighting
from adapters.settings import read_settings
from adapters.table_ledger import TableLedger
from devhost.ports import free_port
from tests.fakes.ledger import MemoryLedger

NOW = "2026-01-01T00:00:00+00:00"


@pytest.fixture(params=[pytest.param("table", marks=pytest.mark.integration), "memory"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    if request.param == "memory":
        return MemoryLedger()
    connection = request.getfixturevalue("storage")
    return TableLedger.from_settings(read_settings({"AzureWebJobsStorage": connection}))


@pytest.fixture
def pipeline() -> str:
    return f"p-{uuid.uuid4().hex[:12]}"


def test_a_partition_goes_from_upload_to_included(ledger: Ledger, pipeline: str) -> None:
    path = f"{pipeline}/it's a/b#é?.csv"
    assert list(ledger.rows(pipeline)) == []
    assert ledger.see(pipeline, Sighting(path, "e1", 3_000_000_000, "5"), now=NOW)
    assert not ledger.see(pipeline, Sighting(path, "e1", 3_000_000_000, "5"), now=NOW)
    (row,) = ledger.rows(pipeline, ("pending",))
    assert (row.path, row.size, row.state, row.changed) == (path, 3_000_000_000, "pending", NOW)
    claimed = ledger.claim(row, Claim("r1", "e2", 4, "contract"), now=NOW)
    assert claimed is not None
    assert (claimed.etag, claimed.run, claimed.state) == ("e2", "r1", "claimed")
    assert ledger.claim(row, Claim("r2", "e2", 4, "contract"), now=NOW) is None
    assert ledger.claim(row, Claim("r1", "e2", 4, "contract"), now=NOW) == claimed
    assert not ledger.settle(pipeline, Settlement(path, "e1", "included"), run="r1", now=NOW)
    assert ledger.settle(pipeline, Settlement(path, "e2", "included"), run="r1", now=NOW)
    (row,) = ledger.rows(pipeline)
    assert (row.state, row.contract) == ("included", "contract")
    assert ledger.forget(pipeline, path, sequencer="", now=NOW)
    assert [row.state for row in ledger.rows(pipeline)] == ["removed"]


def test_many_sightings_are_recorded_together_and_what_is_known_is_no_news(ledger: Ledger, pipeline: str) -> None:
    sightings = [Sighting(f"{pipeline}/{number:03}.csv", "e1", 1) for number in range(230)]
    assert ledger.see_all(pipeline, [], now=NOW) == 0
    assert ledger.see(pipeline, sightings[150], now=NOW)
    assert ledger.see_all(pipeline, sightings, now=NOW) == 229
    assert ledger.see_all(pipeline, sightings, now=NOW) == 0
    assert {row.path for row in ledger.rows(pipeline, ("pending",))} == {sighting.path for sighting in sightings}


class NoTableYet:
    """A table client that says what the real one says before there is a table."""

    def __init__(self) -> None:
        self.made, self.rows = False, 0

    def submit_transaction(self, changes: list[Any]) -> None:
        if not self.made:
            error = TableTransactionError(message="TableNotFound")
            error.status_code = 404
            raise error
        self.rows += len(changes)

    def create_table(self) -> None:
        self.made = True


def test_the_first_of_many_sightings_make_the_table(pipeline: str) -> None:
    table = NoTableYet()
    sightings = [Sighting(f"{pipeline}/{number:03}.csv", "e1", 1) for number in range(230)]
    assert TableLedger(cast(TableClient, table)).see_all(pipeline, sightings, now=NOW) == 230
    assert table.rows == 230


def test_an_overwritten_content_is_kept_beside_the_new_one(ledger: Ledger, pipeline: str) -> None:
    path = f"{pipeline}/a.csv"
    for number in range(3):
        assert ledger.see(pipeline, Sighting(path, f"e{number}", 1, f"{number}"), now=NOW)
    assert [(row.etag, row.state) for row in ledger.rows(pipeline)] == [("e2", "pending")]
    former = list(ledger.rows(pipeline, ("superseded",)))
    assert sorted((row.etag, row.reason) for row in former) == [
        ("e0", "overwritten while pending"),
        ("e1", "overwritten while pending"),
    ]
    assert ledger.forget(pipeline, path, sequencer="", now=NOW)
    assert ledger.see(pipeline, Sighting(path, "e3", 1, "9"), now=NOW)
    assert len(list(ledger.rows(pipeline, ("superseded",)))) == 2


def test_a_claim_is_given_back(ledger: Ledger, pipeline: str) -> None:
    path = f"{pipeline}/a.csv"
    ledger.see(pipeline, Sighting(path, "e1", 1), now=NOW)
    (row,) = ledger.rows(pipeline)
    ledger.claim(row, Claim("r1", "e1", 1, "contract"), now=NOW)
    assert not ledger.release(pipeline, path, run="another", reason="boom", now=NOW)
    assert ledger.release(pipeline, path, run="r1", reason="boom", now=NOW, blamed=True)
    (row,) = ledger.rows(pipeline, ("pending", "failed"))
    assert (row.state, row.attempts, row.reason) == ("pending", 1, "boom")


def test_a_ledger_that_is_away_says_so(pipeline: str) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/devstoreaccount1"
    settings = read_settings({"AzureWebJobsStorage": f"AccountName=a;AccountKey=YQ==;TableEndpoint={nowhere};"})
    with pytest.raises(LedgerError, match="ledger"):
        list(TableLedger.from_settings(settings).rows(pipeline))


class Silent:
    """A table client whose errors say nothing."""

    def get_entity(self, *_: str) -> None:
        raise ServiceRequestError("")


def test_an_error_that_says_nothing_is_an_error_of_the_ledger(pipeline: str) -> None:
    with pytest.raises(LedgerError, match="ServiceRequestError"):
        TableLedger(cast(TableClient, Silent())).forget(pipeline, "a.csv", sequencer="", now=NOW)


@pytest.mark.integration
def test_of_many_who_claim_at_once_one_wins(storage: str, pipeline: str) -> None:
    ledger = TableLedger.from_settings(read_settings({"AzureWebJobsStorage": storage}))
    ledger.see(pipeline, Sighting(f"{pipeline}/a.csv", "e1", 1), now=NOW)
    (row,) = ledger.rows(pipeline)
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda n: ledger.claim(row, Claim(f"r{n}", "e1", 1, ""), now=NOW), range(8)))
    winners = [claim for claim in claims if claim is not None]
    assert len(winners) == 1
    (row,) = ledger.rows(pipeline)
    assert row.run == winners[0].run


@pytest.mark.integration
def test_of_many_who_overwrite_at_once_the_newest_stays_and_none_is_lost(storage: str, pipeline: str) -> None:
    ledger = TableLedger.from_settings(read_settings({"AzureWebJobsStorage": storage}))
    sightings = [Sighting(f"{pipeline}/a.csv", f"e{number}", 1, f"{number}") for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        news = list(pool.map(lambda sighting: ledger.see(pipeline, sighting, now=NOW), sightings))
    (row,) = ledger.rows(pipeline)
    assert (row.etag, row.state) == ("e7", "pending")
    assert len(list(ledger.rows(pipeline, ("superseded",)))) == sum(news) - 1
