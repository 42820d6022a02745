from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost.eventgrid.errors import BadFault
from devhost.eventgrid.faults import DUPLICATE_WITHIN_SECONDS, KINDS, Fate, Faults, parse_faults

shares = st.floats(0.0, 1.0)
faults = st.builds(
    Faults,
    seed=st.integers(),
    duplicate=shares,
    delay=shares,
    delay_seconds=st.floats(0.0, 60.0),
    reorder=shares,
    drop=shares,
)
keys = st.text(max_size=40)
MANY = [str(number) for number in range(4_000)]


def only(kind: str, share: float, *, seed: int) -> Faults:
    shares = dict.fromkeys(KINDS, 0.0) | {kind: share}
    return Faults(
        seed=seed,
        duplicate=shares["duplicate"],
        delay=shares["delay"],
        delay_seconds=1.0,
        reorder=shares["reorder"],
        drop=shares["drop"],
    )


@given(faults, keys, keys, st.lists(st.tuples(keys, keys), max_size=5))
def test_a_fate_depends_on_nothing_but_seed_subscription_and_key(
    asked: Faults, subscription: str, key: str, others: list[tuple[str, str]]
) -> None:
    before = asked.fate(subscription, key)
    for other in others:
        asked.fate(*other)
    assert replace(asked).fate(subscription, key) == before


@given(faults, keys, keys)
def test_only_drop_breaks_the_promise(asked: Faults, subscription: str, key: str) -> None:
    fate = replace(asked, drop=0.0).fate(subscription, key)
    assert not fate.dropped
    assert 1 <= len(fate.waits) <= 2
    assert fate.waits[0] in (0.0, asked.delay_seconds)
    assert fate.waits[0] <= fate.waits[-1] < fate.waits[0] + DUPLICATE_WITHIN_SECONDS + 1e-6
    dropping = asked.fate(subscription, key)
    assert dropping == fate or dropping == Fate(waits=())


@given(faults, keys, keys, st.sampled_from(KINDS), shares)
def test_raising_a_share_only_adds(asked: Faults, subscription: str, key: str, kind: str, share: float) -> None:
    low, high = sorted((share, getattr(asked, kind)))
    hit_low = only(kind, low, seed=asked.seed).fate(subscription, key) != Fate()
    hit_high = only(kind, high, seed=asked.seed).fate(subscription, key) != Fate()
    assert hit_high or not hit_low


@given(st.integers(), keys, keys)
def test_nothing_is_hit_by_0_and_everything_by_1(seed: int, subscription: str, key: str) -> None:
    assert Faults(seed=seed).fate(subscription, key) == Fate()
    assert Faults(seed=seed, drop=1.0).fate(subscription, key).dropped
    every = Faults(seed=seed, duplicate=1.0, delay=1.0, delay_seconds=3.0, reorder=1.0).fate(subscription, key)
    assert every.overtaken
    assert len(every.waits) == 2
    assert every.waits[0] == 3.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_share_is_the_share_that_is_hit(kind: str, share: float) -> None:
    asked = only(kind, share, seed=7)
    hit = sum(asked.fate("sub", key) != Fate() for key in MANY) / len(MANY)
    assert abs(hit - share) < 4 * (share * (1 - share) / len(MANY)) ** 0.5


def test_seeds_subscriptions_and_kinds_are_hit_independently() -> None:
    def hit(seed: int, subscription: str, kind: str) -> set[str]:
        asked = only(kind, 0.5, seed=seed)
        return {key for key in MANY if asked.fate(subscription, key) != Fate()}

    first = hit(7, "a", "drop")
    for other in (hit(8, "a", "drop"), hit(7, "b", "drop"), hit(7, "a", "duplicate")):
        assert 0.2 < len(first & other) / len(MANY) < 0.3


def test_the_decisions_of_a_seed_never_change() -> None:
    """Written down: a change here would make every recorded run unrepeatable."""
    asked = Faults(seed=7, duplicate=0.3, delay=0.3, delay_seconds=3.0, reorder=0.3, drop=0.3)
    dropped = [number for number in range(20) if asked.fate("sub", str(number)).dropped]
    assert dropped == [0, 1, 2, 7, 8, 9, 10, 13, 14, 15, 18]


def test_the_command_line_says_it() -> None:
    texts = ["duplicate=0.2", "delay=0.5:3s", "reorder=.1", "drop=0.05"]
    asked = parse_faults(texts, seed=7)
    assert asked == Faults(seed=7, duplicate=0.2, delay=0.5, delay_seconds=3.0, reorder=0.1, drop=0.05)
    assert str(asked) == "duplicate 0.2, delay 0.5 by 3 s, reorder 0.1, drop 0.05"
    assert parse_faults(["delay=1:250ms"], seed=0).delay_seconds == 0.25
    assert parse_faults(["delay=1:2m"], seed=0).delay_seconds == 120.0
    assert str(parse_faults([], seed=3)) == ""


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["loss=0.5"], "KIND one of duplicate, delay, reorder, drop"),
        (["duplicate"], "write KIND=SHARE"),
        (["duplicate=x"], "write KIND=SHARE"),
        (["duplicate=-0.1"], "write KIND=SHARE"),
        (["duplicate=1.2.3"], "not a number"),
        (["duplicate=1.5"], "between 0 and 1"),
        (["duplicate=0.5:3s"], "nothing else, has a time"),
        (["delay=0.5"], "has a time: delay=0.5:3s"),
        (["delay=0.5:3h"], "write KIND=SHARE"),
        (["delay=0.5:61m"], "at most 3600 s"),
        (["delay=0.5:" + "9" * 400 + "s"], "too large"),
        (["drop=0.1", "drop=0.2"], "there are two of drop"),
    ],
)
def test_a_mistake_is_named(texts: list[str], problem: str) -> None:
    with pytest.raises(BadFault, match=problem):
        parse_faults(texts, seed=0)
