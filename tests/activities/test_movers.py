"""Two who move the champion at the same time: one comes between any two steps of the other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from activities.contracts import RunRef
from activities.pointing import PointerMoved
from activities.promote import promote
from activities.reconcile import reconcile
from activities.rollback import NothingToRollBack, rollback
from tests.activities.test_reconcile import just_before, live, trained
from tests.activities.world import PIPELINE, SPEC, World, rows

__all__ = ["trained"]
ALWAYS = SPEC.replace("minimum_rows: 50,", "minimum_rows: 50, improvement: -1,")


class _Enough(Exception):
    pass


@dataclass
class Scene:
    """Version 3 is live, after 1 and 2. A run is about to promote version 4, the alias is at 1, a person goes to 2."""

    world: World
    run: RunRef
    said: list[str] = field(default_factory=list)

    def promotes(self) -> None:
        """As the orchestration does, which tries again what may pass."""
        for _ in range(5):
            try:
                done = promote(self.run, self.world.to)
            except PointerMoved:
                continue
            self.said.append("kept" if done.ended else "moved to 4")
            return

    def rolls_back(self) -> None:
        try:
            pointer = rollback(PIPELINE, 2, who="ann", why="odd scores", to=self.world.to)
        except (PointerMoved, NothingToRollBack):
            self.said.append("too late")
        else:
            self.said.append(f"moved to {pointer.champion.version}")

    def follows(self) -> None:
        done = reconcile(PIPELINE, self.world.to)
        self.said.append(f"moved to {done.version}" if done.outcome == "pointer moved" else done.outcome)


MOVERS: dict[str, Callable[[Scene], None]] = {
    "promotion": Scene.promotes,
    "rollback": Scene.rolls_back,
    "reconciler": Scene.follows,
}


@pytest.fixture(scope="module")
def scenes(trained: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Scene]:
    world = trained.copy(tmp_path_factory.mktemp("about"))
    world.write_spec(ALWAYS)
    world.upload("next.csv", rows(30, noise=0.1))
    run = world.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.activities.world.promote", lambda *_: (_ for _ in ()).throw(_Enough))
        with pytest.raises(_Enough):
            world.steps(run)
    world.mlflow.alias["champion"] = 1
    return lambda: Scene(world.copy(tmp_path_factory.mktemp("scene")), run)


def interleaved(
    scenes: Callable[[], Scene], first: Callable[[Scene], None], second: Callable[[Scene], None]
) -> Iterator[Scene]:
    """Scenes in which the second does all its work before the first call of storage of the first, its second call, and
    so on; at last, after all of it."""
    for name in ("get", "put"):
        for call in itertools.count():
            scene, came = scenes(), list[bool]()

            def between(scene: Scene = scene, came: list[bool] = came) -> None:
                came.append(True)
                second(scene)

            with just_before(scene.world, scene.world.blobs, name, between, call=call):
                first(scene)
            if not came:
                second(scene)
            yield scene
            if not came:
                break


@pytest.mark.parametrize("second", MOVERS.values(), ids=MOVERS)
@pytest.mark.parametrize("first", MOVERS.values(), ids=MOVERS)
def test_each_move_is_one_generation_and_who_comes_too_late_says_so(
    scenes: Callable[[], Scene], first: Callable[[Scene], None], second: Callable[[Scene], None]
) -> None:
    count = 0
    for count, scene in enumerate(interleaved(scenes, first, second), start=1):  # noqa: B007 (counted)
        assert len(scene.said) == 2
        pointer = live(scene.world)
        moves = [(move.generation, move.former, move.version) for move in reversed(pointer.moves)]
        generations = [generation for generation, _, _ in moves]
        assert generations == list(range(1, pointer.generation + 1))
        assert all(after[1] == before[2] for before, after in itertools.pairwise(moves)), "a move was lost"
        made = [f"moved to {version}" for _, _, version in moves[3:]]
        claimed = [word for word in scene.said if word.startswith("moved")]
        # A promotion that finds its version live says so, which is no second move; a reconciler that another one
        # overtook after its move finds all in line.
        assert set(claimed) <= set(made)
        assert set(claimed) == set(made) or "in line" in scene.said
        assert made
        for _ in range(2):
            reconcile(PIPELINE, scene.world.to)
        assert scene.world.mlflow.alias["champion"] == live(scene.world).champion.version
        assert reconcile(PIPELINE, scene.world.to).outcome == "in line"
    assert count > 5
