from __future__ import annotations

import json
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import profiles
from models.partitions import clean_partition
from models.profiles import NumberProfile, Profile, ProfileError, check_categories, merge, profile
from tests.models.flights import csv, files, rows, small

COUNTS = st.integers(0, 10**9)
NUMBERS = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0))
HISTOGRAMS = st.dictionaries(st.integers(0, 2**15).map(str), st.integers(1, 10**9), max_size=4)
NUMBER_PROFILES = st.builds(
    NumberProfile, count=COUNTS, missing=COUNTS, minimum=NUMBERS, maximum=NUMBERS, histogram=HISTOGRAMS
)
PROFILES = st.builds(
    Profile,
    rows=COUNTS,
    classes=st.fixed_dictionaries({"no": COUNTS, "yes": COUNTS}),
    time_min=NUMBERS,
    time_max=NUMBERS,
    numbers=st.fixed_dictionaries({"distance": NUMBER_PROFILES}),
    categories=st.fixed_dictionaries({"carrier": st.dictionaries(st.text(max_size=3), st.integers(1, 10**9))}),
)


def frame(count: int = 400, seed: int = 7) -> pl.DataFrame:
    return clean_partition(files(rows(count, seed=seed))["a.csv"], name="a.csv", spec=small()).frame


def test_a_profile_counts_what_is_there() -> None:
    lines = [
        "2013-04-01T00:00:01Z,20,UA,JFK,100.5,5,true",
        "2013-04-01T00:00:03Z,10,UA,,-0.0,6,NA",
        "2013-04-01T00:00:02Z,10,,JFK,NA,7,false",
    ]
    start = 1364774400.0

    found = profile(clean_partition(csv(*lines), name="a.csv", spec=small()).frame, small())

    assert found == Profile(
        rows=3,
        classes={"no": 2, "yes": 1},
        time_min=start + 1,
        time_max=start + 3,
        numbers={
            "distance": NumberProfile(2, 1, 0.0, 100.5, {"0": 1, "8236": 1}),
            "hour": NumberProfile(3, 0, 5.0, 7.0, {"8202": 1, "8204": 1, "8206": 1}),
            "weekend": NumberProfile(2, 1, 0.0, 1.0, {"0": 1, "8184": 1}),
        },
        categories={"carrier": {"": 1, "UA": 2}, "origin": {"": 1, "JFK": 2}},
    )
    assert b"-0.0" not in found.to_bytes()


def test_no_rows_have_no_extremes() -> None:
    empty = profile(frame().clear(), small())

    assert (empty.rows, empty.time_min, empty.time_max) == (0, None, None)
    assert empty.numbers["distance"] == NumberProfile(0, 0, None, None)
    assert empty.categories["carrier"] == {}
    whole = profile(frame(), small())
    assert merge([empty, whole]) == whole


@given(st.lists(PROFILES, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_merging_does_not_care_about_order(parts: list[Profile], dice: object) -> None:
    shuffled = list(parts)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]

    assert merge(parts).to_bytes() == merge(shuffled).to_bytes()


@given(PROFILES, PROFILES, PROFILES)
def test_merging_is_associative(a: Profile, b: Profile, c: Profile) -> None:
    assert merge([merge([a, b]), c]).to_bytes() == merge([a, merge([b, c])]).to_bytes() == merge([a, b, c]).to_bytes()


@given(st.lists(st.integers(0, 400), max_size=4))
def test_merged_profiles_of_slices_are_the_profile_of_the_whole(cuts: list[int]) -> None:
    whole = WHOLE
    edges = [0, *sorted(cut for cut in cuts if cut <= whole.height), whole.height]
    slices = [whole[start:stop] for start, stop in pairwise(edges)]

    assert merge(profile(part, small()) for part in slices) == profile(whole, small())


WHOLE = frame()


@given(PROFILES)
def test_bytes_round_trip_and_are_canonical(one: Profile) -> None:
    again = Profile.from_bytes(one.to_bytes())

    assert again == one
    assert again.to_bytes() == one.to_bytes()
    assert Profile.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_a_profile_does_not_depend_on_the_order_of_rows() -> None:
    shuffled = WHOLE.sample(fraction=1, shuffle=True, seed=3)

    assert profile(shuffled, small()).to_bytes() == profile(WHOLE, small()).to_bytes()


def test_nothing_to_merge_and_strangers_are_refused() -> None:
    one = profile(WHOLE, small())
    other = profile(WHOLE, small(categories="features: [hour, carrier]"))

    with pytest.raises(ValueError, match="no profile"):
        merge([])
    with pytest.raises(ValueError, match="different columns"):
        merge([one, other])


def test_an_identifier_is_no_category(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "MAX_DISTINCT_CATEGORIES", 3)

    with pytest.raises(ProfileError, match="leave it out") as caught:
        check_categories(profile(WHOLE, small()))

    assert (caught.value.column, caught.value.limit) in {("carrier", 3), ("origin", 3)}
