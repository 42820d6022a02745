"""What goes live without anybody's word: when a window opens, or when nobody decided in time. And what does not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from activities.live import read_champion
from activities.reconcile import reconcile
from activities.rollback import rollback
from activities.sweep import look_over
from activities.waiting import decide, tend
from adapters.pointer import Move
from tests.activities.test_waiting import APPROVAL, Dies, asked, version, waiting
from tests.activities.world import PIPELINE, World, rows

ALWAYS = APPROVAL.rpartition("promotion:")[0]
WINDOW = ALWAYS + "promotion: {mode: window, days: [sat], start: '02:00', end: '05:00'}\n"
LENIENT = APPROVAL.replace("timeout_hours: 2", "timeout_hours: 2, on_timeout: approve")
TO_SATURDAY, OPEN_FOR = timedelta(hours=26), timedelta(hours=3)
"""The runs are on the first of January 2027, a Friday."""


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Versions 1 and 2 were promoted."""
    world = World(tmp_path_factory.mktemp("past"), ALWAYS)
    for number in range(2):
        world.upload(f"{number}.csv", rows(10 * number))
        assert world.run()["outcome"] == "promoted"
    reconcile(PIPELINE, world.to)
    return world


def held(past: World, directory: Path, spec: str) -> World:
    """Version 3 waits, compared with version 2."""
    world = past.copy(directory)
    world.write_spec(spec)
    world.upload("2.csv", rows(20))
    assert (world.run()["outcome"], version(world)) == ("waiting", 2)
    return world


@pytest.fixture(scope="module")
def windowed(past: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    return held(past, tmp_path_factory.mktemp("windowed"), WINDOW)


@pytest.fixture(scope="module")
def lenient(past: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    return held(past, tmp_path_factory.mktemp("lenient"), LENIENT)


@pytest.fixture
def world(windowed: World, tmp_path: Path) -> World:
    """Version 3 waits for Saturday."""
    return windowed.copy(tmp_path)


@pytest.fixture
def timed(lenient: World, tmp_path: Path) -> World:
    """Version 3 waits for approval, which its time-out gives."""
    return lenient.copy(tmp_path)


def moves(world: World) -> tuple[Move, ...]:
    champion = read_champion(world.blobs, PIPELINE)
    assert champion is not None
    return champion.pointer.moves


def choose(world: World, number: int) -> None:
    """A person moves the alias."""
    world.mlflow.alias["champion"] = number
    assert reconcile(PIPELINE, world.to).outcome == "pointer moved"


def test_a_window_that_nobody_saw_open_is_waited_for_again(world: World) -> None:
    world.now += TO_SATURDAY + timedelta(days=3)
    tend(PIPELINE, world.to)
    assert (version(world), waiting(world).open, waiting(world).verdict) == (2, True, None)
    assert waiting(world).until == "2027-01-09T02:00:00+00:00"
    world.now += timedelta(days=4)
    tend(PIPELINE, world.to)
    assert (version(world), waiting(world).outcome, moves(world)[0].who) == (3, "promoted", "the time-out")


def test_a_process_that_dies_in_the_window_promotes_nothing_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_: object) -> None:
        raise Dies

    world.now += TO_SATURDAY
    with monkeypatch.context() as patch:
        patch.setattr("activities.waiting._carry_out", dying)
        with pytest.raises(Dies):
            tend(PIPELINE, world.to)
    world.now += OPEN_FOR
    tend(PIPELINE, world.to)
    assert (version(world), waiting(world).open, waiting(world).until) == (2, True, "2027-01-09T02:00:00+00:00")


@pytest.mark.parametrize("write", range(3))
def test_a_window_in_which_a_process_dies_between_any_two_steps(world: World, write: int) -> None:
    """It dies before the verdict is written, before the pointer moves, and before it is noted that it did."""
    left, put = [write], world.blobs.put

    def dying(*given: object, **named: object) -> str:
        left[0] -= 1
        if left[0] < 0:
            raise Dies
        return put(*given, **named)  # type: ignore[arg-type]

    world.now += TO_SATURDAY
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.blobs, "put", dying)
        with pytest.raises(Dies):
            tend(PIPELINE, world.to)
    tend(PIPELINE, world.to)
    assert (version(world), waiting(world).outcome) == (3, "promoted")
    assert [move.version for move in moves(world)] == [3, 2, 1]


def test_a_file_that_has_no_window_any_more_lets_it_go_live(world: World) -> None:
    world.write_spec(ALWAYS)
    world.now += TO_SATURDAY + OPEN_FOR
    tend(PIPELINE, world.to)
    assert version(world) == 3


def test_a_file_that_asks_for_approval_by_now_gets_it_asked(world: World) -> None:
    world.write_spec(APPROVAL)
    world.now += TO_SATURDAY
    tend(PIPELINE, world.to)
    assert (version(world), waiting(world).mode, waiting(world).on_timeout) == (2, "approval", "reject")
    assert [(request["id"], request["version"]) for request in asked(world)] == [("run-3", 3)]
    decide(PIPELINE, "run-3", "approve", who="ann", why="", to=world.to)
    assert version(world) == 3


def test_a_file_with_a_mistake_opens_no_window(world: World) -> None:
    world.write_spec("columns: no\n")
    world.now += TO_SATURDAY
    tend(PIPELINE, world.to)
    assert (version(world), waiting(world).open) == (2, True)
    world.write_spec(WINDOW)
    tend(PIPELINE, world.to)
    assert version(world) == 3


def test_the_dataset_of_a_version_that_was_rolled_back_stays_away(past: World, tmp_path: Path) -> None:
    world = past.copy(tmp_path)
    world.write_spec(WINDOW)
    assert world.run(world.start(force=True))["outcome"] == "waiting"
    rollback(PIPELINE, None, who="ann", why="odd scores", to=world.to)
    world.now += TO_SATURDAY
    done = tend(PIPELINE, world.to)
    assert done is not None
    assert (done.outcome, version(world)) == ("refused", 1)
    assert "version 3 comes from the same dataset as version 2, which was rolled back (odd scores)" in done.detail


def saturday(world: World) -> None:
    world.now += TO_SATURDAY


def time_out(world: World) -> None:
    world.now += timedelta(hours=3)


@pytest.mark.parametrize(
    ("held_back", "wait", "ends"),
    [("windowed", saturday, "promoted"), ("lenient", time_out, "waiting")],
    ids=["window", "time-out"],
)
def test_one_that_was_compared_with_another_champion_is_judged_anew(
    held_back: str,
    wait: Callable[[World], None],
    ends: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    found: World = request.getfixturevalue(held_back)
    world = found.copy(tmp_path)
    assert not look_over(PIPELINE, world.to).stale
    choose(world, 1)
    wait(world)
    done = tend(PIPELINE, world.to)
    assert done is not None
    assert (done.outcome, version(world)) == ("refused", 1)
    assert done.detail == "version 3 was compared with version 2, but version 1 is live by now"
    assert look_over(PIPELINE, world.to).stale
    record = world.run()
    assert (record["outcome"], record["challenger"]["version"]) == (ends, 3)
    assert record["champion"]["version"] == 1
    assert not look_over(PIPELINE, world.to).stale


def test_what_was_judged_since_is_not_judged_anew(world: World) -> None:
    world.write_spec(ALWAYS)
    world.upload("3.csv", rows(30))
    assert world.run()["outcome"] == "promoted"
    saturday(world)
    done = tend(PIPELINE, world.to)
    assert done is not None
    assert (done.outcome, version(world)) == ("refused", 4)
    assert not look_over(PIPELINE, world.to).stale


def test_one_that_is_live_already_needs_no_move(world: World) -> None:
    choose(world, 3)
    saturday(world)
    done = tend(PIPELINE, world.to)
    assert done is not None
    assert (done.outcome, [move.kind for move in moves(world)]) == ("promoted", ["followed", "promoted", "promoted"])


def test_a_person_outranks_it_and_the_pointer_says_so(timed: World) -> None:
    choose(timed, 1)
    done = decide(PIPELINE, "run-3", "approve", who="ann", why="I know", to=timed.to)
    assert (done.outcome, version(timed)) == ("promoted", 3)
    against = "Approved although version 3 was compared with version 2, but version 1 is live by now."
    assert done.detail == against
    assert moves(timed)[0].why.startswith("I know. ")
    assert moves(timed)[0].why.endswith(against)
