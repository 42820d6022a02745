"""A decision and a newer challenger at the same time, and processes that die between any two steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from activities.admission import Candidate
from activities.contracts import RunRef
from activities.decisions import DECISION, WHY
from activities.pointing import PointerMoved
from activities.promote import promote
from activities.reconcile import reconcile
from activities.waiting import AlreadyDecided, Challenger, decide, finish_decided, hold_back, tend
from models.spec import parse_spec
from tests.activities.test_reconcile import just_before
from tests.activities.test_waiting import APPROVAL, Dies, asked, first, second, version, waiting
from tests.activities.world import PIPELINE, World, rows

__all__ = ["first", "second"]


@dataclass
class Race:
    """Version 1 is live, version 2 waits as run-2, and run-3 is about to promote version 3, which beat version 1."""

    world: World
    run: RunRef
    answer: str = ""
    ended: str = ""

    def approve(self) -> None:
        try:
            done = decide(PIPELINE, "run-2", "approve", who="ann", why="good", to=self.world.to)
        except AlreadyDecided:
            self.answer = "already decided"
        else:
            self.answer = done.outcome

    def promote(self) -> None:
        """As the orchestration does, which tries again what may pass."""
        for _ in range(3):
            try:
                self.ended = promote(self.run, self.world.to).ended
            except (AlreadyDecided, PointerMoved):
                continue
            return

    def approved_first(self) -> bool:
        """Exactly one of the two came first, and both were told so."""
        found = (version(self.world), self.answer, self.ended, waiting(self.world).id)
        assert found in {(2, "promoted", "kept", "run-2"), (1, "already decided", "waiting", "run-3")}
        return self.answer == "promoted"


@pytest.fixture(scope="module")
def races(second: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Race]:
    world = second.copy(tmp_path_factory.mktemp("races"))
    world.upload("c.csv", rows(20))
    run = world.start()

    def stops(*_: object) -> None:
        raise Dies

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.activities.world.promote", stops)
        with pytest.raises(Dies):
            world.steps(run)
    return lambda: Race(world.copy(tmp_path_factory.mktemp("race")), run)


def interleaved(
    races: Callable[[], Race], work: Callable[[Race], None], interlude: Callable[[Race], None]
) -> Iterator[Race]:
    """Races in which the interlude comes before the first call of storage of the work, the second, and so on."""
    for name in ("get", "put"):
        for call in itertools.count():
            race, came = races(), list[bool]()

            def late(race: Race = race, came: list[bool] = came) -> None:
                came.append(True)
                interlude(race)

            with just_before(race.world, race.world.blobs, name, late, call=call):
                work(race)
            if not came:
                break
            yield race


def test_a_newer_challenger_comes_while_one_is_approved(races: Callable[[], Race]) -> None:
    ends = [race.approved_first() for race in interleaved(races, Race.approve, Race.promote)]
    assert len(ends) > 5
    assert set(ends) == {True, False}


def test_an_approval_comes_while_a_newer_challenger_takes_the_place(races: Callable[[], Race]) -> None:
    ends = [race.approved_first() for race in interleaved(races, Race.promote, Race.approve)]
    assert len(ends) > 5
    assert set(ends) == {True, False}


def killed(races: Callable[[], Race], work: Callable[[Race], Any]) -> Iterator[Race]:
    """Races in which the process dies before the first write of the work, the second, and so on."""
    for write in itertools.count():
        race = races()

        def dies() -> None:
            raise Dies

        with just_before(race.world, race.world.blobs, "put", dies, call=write):
            try:
                work(race)
            except Dies:
                yield race
            else:
                break


def test_an_approval_whose_process_died_is_carried_out_before_a_newer_challenger(races: Callable[[], Race]) -> None:
    deaths = 0
    for race in killed(races, Race.approve):
        decided = waiting(race.world).verdict is not None
        race.promote()
        assert (version(race.world), race.ended) == ((2, "kept") if decided else (1, "waiting"))
        deaths += 1
    assert deaths == 3


def test_an_approval_whose_process_died_is_carried_out_by_the_next_look(races: Callable[[], Race]) -> None:
    for race in killed(races, Race.approve):
        decided = waiting(race.world).verdict is not None
        tend(PIPELINE, race.world.to)
        assert (version(race.world), waiting(race.world).outcome) == ((2, "promoted") if decided else (1, ""))
        race.approve()
        assert (version(race.world), race.answer) == (2, "promoted")


def test_one_that_comes_to_wait_is_asked_about_whenever_its_process_died(races: Callable[[], Race]) -> None:
    deaths = 0
    for race in killed(races, Race.promote):
        race.promote()
        race.world.outbox.flush()
        assert (race.ended, version(race.world), waiting(race.world).id) == ("waiting", 1, "run-3")
        assert asked(race.world)[-1]["id"] == "run-3"
        deaths += 1
    assert deaths == 2


def test_the_registry_hears_of_each_that_waited_while_it_was_away(first: World, tmp_path: Path) -> None:
    world = first.copy(tmp_path)
    decide(PIPELINE, "run-1", "reject", who="bob", why="too odd", to=world.to)
    for number in (2, 3, 4):
        challenger = Challenger(f"run-{number}", Candidate(PIPELINE, number, None), "Better.")
        promotion = parse_spec(APPROVAL, source="shops.yaml").promotion
        assert hold_back(challenger, promotion, finish_decided(PIPELINE, world.to), None, world.to)
        world.mlflow.versions.append(world.mlflow.versions[0])
    reconcile(PIPELINE, world.to)
    said = {number: world.mlflow.tags[number, DECISION] for number in (1, 2, 3, 4)}
    assert said == {1: "rejected", 2: "superseded", 3: "superseded", 4: "waiting"}
    assert world.mlflow.tags[1, WHY] == "bob: too odd"
    assert world.mlflow.tags[2, WHY].endswith("version 3 took its place")
    world.mlflow.tags.clear()
    decide(PIPELINE, "run-4", "reject", who="bob", why="odd, too", to=world.to)
    reconcile(PIPELINE, world.to)
    said = {number: tag for (number, name), tag in world.mlflow.tags.items() if name == DECISION}
    assert said == {4: "rejected"}, "what was told is not told again"
