"""The ledger's rules, without storage: what a row becomes after an upload, a deletion, a claim, a failure."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.ledger import (
    MAX_ATTEMPTS,
    TRANSITIONS,
    Claim,
    IllegalTransition,
    Partition,
    PartitionState,
    Sighting,
    claimed,
    moved,
    released,
    sighted,
    superseded,
    vanished,
)

STATES: tuple[PartitionState, ...] = get_args(PartitionState)
ROW = Partition("flights", "flights/a.csv", "etag-1", 10, "pending", "2026-01-01T00:00:00+00:00", sequencer="5")


def test_the_table_knows_every_state_and_only_states() -> None:
    assert set(TRANSITIONS) == set(STATES)
    assert set().union(*TRANSITIONS.values()) <= set(STATES)


@pytest.mark.parametrize(("state", "to"), list(itertools.product(STATES, STATES)))
def test_a_row_moves_along_the_table_and_nowhere_else(state: PartitionState, to: PartitionState) -> None:
    row = replace(ROW, state=state)
    if to in TRANSITIONS[state]:
        assert moved(row, to, now="later").state == to
    else:
        with pytest.raises(IllegalTransition, match=f"is {state}; it cannot become {to}"):
            moved(row, to, now="later")


def test_a_new_blob_is_pending() -> None:
    row = sighted("flights", None, Sighting("flights/a.csv", "etag-1", 10, "5"), now=ROW.changed)
    assert row == ROW


LIVING = [state for state in STATES if state not in {"removed", "superseded"}]


def test_what_is_superseded_stays_so() -> None:
    assert TRANSITIONS["superseded"] == frozenset()
    assert all("superseded" in TRANSITIONS[state] for state in LIVING)


@pytest.mark.parametrize("state", LIVING)
def test_a_content_that_another_one_replaces_is_superseded(state: PartitionState) -> None:
    former = replace(ROW, state=state, run="r1")
    kept = superseded(former, replace(ROW, etag="etag-2"), now="later")
    assert kept == replace(former, state="superseded", changed="later", reason=f"overwritten while {state}")
    assert superseded(former, replace(ROW, state="included"), now="later") is None


@pytest.mark.parametrize("row", [None, replace(ROW, state="removed"), replace(ROW, etag="")])
def test_what_had_no_content_leaves_nothing(row: Partition | None) -> None:
    assert superseded(row, replace(ROW, etag="etag-2"), now="later") is None


@pytest.mark.parametrize("state", LIVING)
def test_a_second_event_about_the_same_content_is_no_news(state: PartitionState) -> None:
    assert sighted("flights", replace(ROW, state=state), Sighting(ROW.path, "etag-1", 10, "5"), now="later") is None


@pytest.mark.parametrize("state", [*LIVING, "removed"])
def test_an_overwritten_blob_is_pending_again_with_a_clean_slate(state: PartitionState) -> None:
    old = replace(ROW, state=state, attempts=2, run="r1", reason="bad")
    row = sighted("flights", old, Sighting(ROW.path, "etag-2", 11, "6"), now="later")
    assert row == replace(ROW, etag="etag-2", size=11, sequencer="6", changed="later")


def test_a_late_event_about_older_content_is_ignored() -> None:
    assert sighted("flights", ROW, Sighting(ROW.path, "etag-0", 9, "4"), now="later") is None
    assert vanished("flights", ROW.path, ROW, sequencer="4", now="later") is None


def test_the_event_that_a_row_has_is_no_news_whatever_the_run_found_since() -> None:
    """A renamed blob's event has no eTag: the claim's look at the blob has put it in."""
    renamed = sighted("flights", None, Sighting(ROW.path, "", 0, "5"), now="t")
    assert renamed is not None
    claimed_row = claimed(renamed, renamed, CLAIM, now="t")
    assert claimed_row is not None
    assert claimed_row.etag == CLAIM.etag
    assert sighted("flights", claimed_row, Sighting(ROW.path, "", 0, "5"), now="later") is None


def test_an_event_about_a_content_that_the_sweep_had_seen_makes_older_ones_old() -> None:
    seen = sighted("flights", replace(ROW, state="included"), Sighting(ROW.path, "etag-3", 10), now="t")
    assert seen is not None
    told = sighted("flights", seen, Sighting(ROW.path, "etag-3", 10, "7"), now="later")
    assert told == replace(seen, sequencer="7")
    assert vanished("flights", ROW.path, told, sequencer="6", now="later") is None
    assert sighted("flights", told, Sighting(ROW.path, "etag-2", 10, "6"), now="later") is None


def test_sequencers_compare_as_left_padded_strings() -> None:
    assert sighted("flights", replace(ROW, sequencer="9"), Sighting(ROW.path, "etag-2", 1, "10"), now="later")
    assert sighted("flights", replace(ROW, sequencer="10"), Sighting(ROW.path, "etag-2", 1, "9"), now="later") is None


def test_the_sweep_knows_no_sequencer_and_keeps_the_rows() -> None:
    row = sighted("flights", ROW, Sighting(ROW.path, "etag-2", 11), now="later")
    assert row is not None
    assert row.sequencer == "5"


def test_a_deleted_blob_is_removed_and_comes_back_when_uploaded_again() -> None:
    gone = vanished("flights", ROW.path, replace(ROW, state="included"), sequencer="6", now="later")
    assert gone is not None
    assert gone.state == "removed"
    again = sighted("flights", gone, Sighting(ROW.path, "etag-1", 10, "7"), now="later")
    assert again is not None
    assert again.state == "pending"


def test_what_befell_the_whole_run_is_no_attempt() -> None:
    row = replace(ROW, state="claimed", run="r", attempts=MAX_ATTEMPTS - 1)
    given_back = released(row, run="r", now="t", reason="the registry is away", blamed=False)
    assert given_back is not None
    assert (given_back.state, given_back.attempts) == ("pending", MAX_ATTEMPTS - 1)


CLAIM = Claim("r", "etag-1", 12, "contract")


@pytest.mark.parametrize("state", [state for state in LIVING if state != "claimed"])
def test_a_row_that_nobody_changed_is_claimed(state: PartitionState) -> None:
    row = replace(ROW, state=state)
    taken = claimed(row, row, CLAIM, now="t")
    assert taken is not None
    assert (taken.state, taken.run, taken.size, taken.contract) == ("claimed", "r", 12, "contract")
    assert claimed(taken, row, CLAIM, now="t") == taken


@pytest.mark.parametrize(
    "row",
    [
        None,
        replace(ROW, state="removed"),
        replace(ROW, state="claimed", run="another"),
        replace(ROW, etag="etag-2"),
        replace(ROW, state="claimed", run="r", etag="etag-2"),
    ],
)
def test_a_row_that_somebody_changed_is_not_claimed(row: Partition | None) -> None:
    assert claimed(row, ROW, CLAIM, now="t") is None


def test_a_partition_that_fails_run_after_run_is_set_aside() -> None:
    row = ROW
    for attempt in range(1, MAX_ATTEMPTS + 1):
        given_back = released(moved(row, "claimed", now="t", run="r"), run="r", now="t", reason="boom", blamed=True)
        assert given_back is not None
        row = given_back
        assert row.attempts == attempt
    assert row.state == "failed"
    assert row.reason == "boom"


@given(st.permutations(range(6)), st.data())
def test_whatever_the_order_of_events_the_newest_content_wins(order: list[int], data: st.DataObject) -> None:
    repeated = [index for index in order for _ in range(data.draw(st.integers(1, 2)))]
    row: Partition | None = None
    for index in repeated:
        sighting = Sighting("flights/a.csv", f"etag-{index}", 10, f"{index:016x}")
        row = sighted("flights", row, sighting, now="t") or row
    assert row is not None
    assert (row.etag, row.state) == ("etag-5", "pending")


@given(st.permutations(range(6)), st.sets(st.integers(0, 5)), st.data())
def test_whatever_the_order_of_events_a_deleted_blob_is_gone_when_that_came_last(
    order: list[int], deletions: set[int], data: st.DataObject
) -> None:
    """Each event is told once or twice. What holds in the end is what the event with the last sequencer says."""
    row: Partition | None = None
    for index in [index for index in order for _ in range(data.draw(st.integers(1, 2)))]:
        sequencer = f"{index:x}".rjust(data.draw(st.integers(1, 12)), "0")
        if index in deletions:
            row = vanished("flights", ROW.path, row, sequencer=sequencer, now="t") or row
        else:
            row = sighted("flights", row, Sighting(ROW.path, f"etag-{index}", 10, sequencer), now="t") or row
    assert row is not None
    assert row.state == ("removed" if 5 in deletions else "pending")
    assert 5 in deletions or row.etag == "etag-5"


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.data())
def test_whatever_sweeps_see_between_late_events_the_row_is_right_once_all_are_told(
    deletions: list[bool], data: st.DataObject
) -> None:
    """What happens to one blob, told once or twice at any time afterwards, with a sweep's look at any time."""
    row: Partition | None = None
    untold: list[int] = []
    truth = ""
    happening = list(enumerate(deletions))
    while happening or untold:
        what = data.draw(st.sampled_from(["happens"] * bool(happening) + ["told"] * bool(untold) + ["sweep"]))
        if what == "happens":
            index, deleted = happening.pop(0)
            truth = "" if deleted else f"etag-{index}"
            untold += [index] * data.draw(st.integers(1, 2))
        elif what == "told":
            index = untold.pop(data.draw(st.integers(0, len(untold) - 1)))
            if deletions[index]:
                row = vanished("flights", ROW.path, row, sequencer=f"{index + 1:x}", now="t") or row
            else:
                row = sighted("flights", row, Sighting(ROW.path, f"etag-{index}", 10, f"{index + 1:x}"), now="t") or row
        elif truth:
            row = sighted("flights", row, Sighting(ROW.path, truth, 10), now="t") or row
        else:
            row = vanished("flights", ROW.path, row, sequencer="", now="t") or row
    assert row is not None
    assert (row.state, row.etag) == ("pending", truth) if truth else row.state == "removed"
