"""What the swap benchmark makes of recorded answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.recording import Answer, _answer
from bench.swap import Course, Swap, beside_a_control, in_windows, over_time, percentile, under_load

SWAPS = [Swap(written=10.0, served=10.5), Swap(written=20.0, served=20.5)]


def _asked(at: float, milliseconds: float = 5.0, *, right: bool = True) -> Answer:
    return Answer(at, milliseconds, version=1, worker=7, right=right)


def test_a_line_of_wrk_is_an_answer() -> None:
    assert _answer(b"1764000000250000 1500 2 4711 1") == Answer(1764000000.25, 1.5, 2, 4711, right=True)
    assert _answer(b"1764000000250000 1500 - - 0").right is False, "an error names neither version nor worker"


@pytest.mark.parametrize(
    ("at", "milliseconds", "inside"),
    [
        (9.9, 50.0, False),
        (9.9, 200.0, True),
        (10.2, 5.0, True),
        (10.4, 9000.0, True),
        (10.6, 5.0, False),
        (15.0, 5.0, False),
        (20.1, 5.0, True),
        (30.0, 5.0, False),
    ],
)
def test_an_answer_counts_that_was_under_way_in_a_window(at: float, milliseconds: float, inside: bool) -> None:
    assert in_windows([_asked(at, milliseconds)], SWAPS) == ([milliseconds] if inside else [])


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1000, 0, -1)]
    assert (percentile(values, 0.999), percentile(values, 0.5), percentile([4.0], 0.999)) == (1000.0, 501.0, 4.0)


def test_each_bar_is_missed_when_it_is_not_reached() -> None:
    calm = [_asked(at / 100) for at in range(500)]
    good = Course([*calm, _asked(10.2), _asked(20.2)], 0, (0.0, 5.0), SWAPS)
    assert [row.held for row in under_load(good)] == [True] * 5
    bad = Course([*calm, _asked(10.2, 50.0, right=False)], 1, (0.0, 5.0), [Swap(10.0, 11.5), Swap(20.0, 22.5)])
    assert [row.held for row in under_load(bad)] == [False] * 5


@pytest.mark.parametrize(("growth", "tail", "held"), [(1.0, 5.0, [True] * 3), (1.1, 9.0, [True, False, False])])
def test_growth_is_seen(growth: float, tail: float, held: list[bool]) -> None:
    swaps = [Swap(n, n + 0.5, {7: int(1e8 * (growth if n >= 90 else 1))}) for n in range(100)]
    answers = [_asked(n + 0.1, tail if n >= 90 else 5.0) for n in range(100)]
    assert [row.held for row in over_time(Course(answers, 0, (0.0, 0.0), swaps))] == held


@pytest.mark.parametrize(("old", "errors", "held"), [(6.0, 0, True), (6.0, 1, False), (9.0, 0, False)])
def test_a_machine_that_became_slower_is_no_growth(old: float, errors: int, held: bool) -> None:
    """Each turn has the machine of its minute: in the last ones everything takes ten times as long."""
    turns = []
    for slow in (1, 1, 10, 10):
        courses = [Course([_asked(10.2, slow * taken)], errors, (0.0, 0.0), SWAPS) for taken in (old, 5.0)]
        turns.append((courses[0], courses[1]))
    assert [row.held for row in beside_a_control(turns)] == [held]


def test_the_peers_have_pinned_requirements() -> None:
    from bench.peers import FLOOR, PEERS

    for peer in (FLOOR, *PEERS):
        lines = [line for line in peer.packages.read_text().splitlines() if line[:1].isalnum()]
        assert lines
        assert all("==" in line for line in lines)
        assert peer.version()


def test_a_python_that_is_not_there_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bench.peers import PeerUnavailable, interpreter

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(PeerUnavailable, match=r"BENCH_PYTHON_312=/path/to/python2\.6 make bench-serving"):
        interpreter("2.6")
