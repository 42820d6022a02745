"""Wish and fact with a real MLflow: every way to go live, wishes that are refused, and a death between any two steps.

Storage is in memory and copied for each test; the server is one for all, so each test begins by putting aliases and
tags back.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.tracking import MlflowClient

from activities.admission import Candidate
from activities.contracts import RunRef
from activities.decisions import DECISION, WHY
from activities.live import read_champion
from activities.promote import align, promote
from activities.reconcile import REFUSED_TAG, reconcile
from activities.register import register
from activities.rollback import NothingToRollBack, rollback
from activities.waiting import AlreadyDecided, Challenger, decide, hold_back, read_waiting, tend
from activities.workspace import Workspace
from adapters.mlflow_registry import MlflowRegistry
from adapters.outbox import FOLDER
from adapters.registry import RegistryError
from devhost.ports import free_port
from models.manifest import Manifest
from models.promotion import Promotion
from models.spec import parse_spec
from tests.activities.test_reconcile import SPOILED
from tests.activities.test_waiting import APPROVAL
from tests.activities.world import PIPELINE, SPEC, World, rows

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ALWAYS = SPEC.replace("minimum_rows: 50,", "minimum_rows: 50, improvement: -1,")
NEVER = SPEC.replace("minimum_rows: 50,", "minimum_rows: 50, improvement: 0.9,")
CHAMPION, REJECTED, PREVIOUS = 3, 2, 1
FIRST_WAITING, SECOND_WAITING = 4, 5
SEND = requests.Session.send


@dataclass(frozen=True, slots=True)
class Past:
    """Versions 1 and 3 were promoted, 2 was rejected by the gate. Then 4 waited for approval, then 5 in its place.

    `judged` is where the run of version 5 has yet to register; that version is in MLflow all the same.
    """

    first_waits: World
    second_waits: World
    judged: World
    run: RunRef


@pytest.fixture(scope="module")
def past(mlflow_url: str, tmp_path_factory: pytest.TempPathFactory) -> Past:
    world = World(tmp_path_factory.mktemp("past"), ALWAYS)
    world.to = replace(world.to, registry=lambda: MlflowRegistry(mlflow_url))
    course = [(ALWAYS, "promoted"), (NEVER, "kept"), (ALWAYS, "promoted"), (APPROVAL, "waiting")]
    with pytest.MonkeyPatch.context() as patch:
        # The pictures have tests of their own, and would take most of the time.
        patch.setattr("activities.illustrate._pictures", lambda *_, **__: {})
        for number, (spec, outcome) in enumerate(course):
            world.write_spec(spec)
            world.upload(f"{number}.csv", rows(10 * number))
            assert world.run()["outcome"] == outcome
        first_waits = world.copy(tmp_path_factory.mktemp("first"))
        world.upload("4.csv", rows(40))
        run = world.start()
        judged = _until_registered(world, run, tmp_path_factory.mktemp("judged"))
        assert world.call(promote, run).ended == "waiting"
    return Past(first_waits, world, judged, run)


def _until_registered(world: World, run: RunRef, directory: Path) -> World:
    """The world as it is when the run is about to register, which it then does."""
    taken: list[World] = []

    def taking(given: RunRef, to: Any) -> Any:
        taken.append(world.copy(directory))
        return register(given, to)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.activities.world.register", taking)
        patch.setattr("tests.activities.world.promote", lambda *_: (_ for _ in ()).throw(_Enough))
        with contextlib.suppress(_Enough):
            world.steps(run)
    return taken[0]


class _Enough(Exception):
    pass


class Scene:
    """A copy of the past, with MLflow as it was then."""

    def __init__(self, world: World, url: str) -> None:
        self.world, self.url = world, url
        self.client = MlflowClient(url, url)
        self.online()
        if self.aliases() != (CHAMPION, PREVIOUS):
            self.client.set_registered_model_alias(PIPELINE, "champion", str(CHAMPION))
            self.client.set_registered_model_alias(PIPELINE, "previous", str(PREVIOUS))
        for version in versions(url):
            for name in {DECISION, WHY, REFUSED_TAG} & version.tags.keys():
                self.client.delete_model_version_tag(PIPELINE, version.version, name)

    def online(self) -> None:
        self._reach(self.url)

    def offline(self) -> None:
        self._reach(f"http://127.0.0.1:{free_port()}")

    def _reach(self, url: str) -> None:
        registry = MlflowRegistry(url)
        self.world.to = replace(self.world.to, registry=lambda: registry)

    def reconcile(self) -> str:
        return reconcile(PIPELINE, self.world.to).outcome

    def wish(self, version: int | str) -> None:
        """What a click in the UI does."""
        self.client.set_registered_model_alias(PIPELINE, "champion", str(version))

    def tags(self, version: int) -> dict[str, str]:
        return dict(self.client.get_model_version(PIPELINE, str(version)).tags)

    def aliases(self) -> tuple[int, int]:
        """(champion, previous); 0 for none."""
        named = self.client.get_registered_model(PIPELINE).aliases
        return int(named.get("champion", 0)), int(named.get("previous", 0))

    def live(self) -> int:
        champion = read_champion(self.world.blobs, PIPELINE)
        assert champion is not None
        return champion.pointer.champion.version

    def told(self, kind: str) -> list[int]:
        """Versions of the events of a kind; one that is told twice has one id."""
        heard = {event.key: int(event.data["version"]) for event in self.world.events.heard if event.type == kind}
        return list(heard.values())

    def manifest(self, version: int) -> Manifest:
        return Manifest.from_dict(self.world.read(f"models/{PIPELINE}/versions/{version}/model.json"))


@pytest.fixture(autouse=True)
def no_second_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is away is not waited for."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def first_waits(past: Past, mlflow_url: str, tmp_path: Path) -> Scene:
    return Scene(past.first_waits.copy(tmp_path), mlflow_url)


@pytest.fixture
def second_waits(past: Past, mlflow_url: str, tmp_path: Path) -> Scene:
    return Scene(past.second_waits.copy(tmp_path), mlflow_url)


def waiting_id(scene: Scene) -> str:
    found = read_waiting(PIPELINE, scene.world.to)
    assert found is not None
    return found[0].id


@pytest.mark.parametrize("away", [False, True], ids=["online", "away meanwhile"])
def test_an_approval(first_waits: Scene, away: bool) -> None:
    scene = first_waits
    assert scene.reconcile() == "in line"
    assert (scene.tags(FIRST_WAITING)[DECISION], scene.aliases()) == ("waiting", (CHAMPION, PREVIOUS))
    if away:
        scene.offline()
    decide(PIPELINE, waiting_id(scene), "approve", who="ann", why="looks right", to=scene.world.to)
    assert scene.live() == FIRST_WAITING
    if away:
        with pytest.raises(RegistryError):
            scene.reconcile()
        scene.online()
    assert scene.reconcile() == "alias moved"
    assert scene.aliases() == (FIRST_WAITING, CHAMPION)
    assert scene.tags(FIRST_WAITING)[DECISION] == "promoted"
    assert "ann: looks right" in scene.tags(FIRST_WAITING)[WHY]
    assert scene.told("Ratchet.ModelPromoted") == [PREVIOUS, CHAMPION, FIRST_WAITING]


def test_a_rejection(first_waits: Scene) -> None:
    scene = first_waits
    decide(PIPELINE, waiting_id(scene), "reject", who="bob", why="too odd", to=scene.world.to)
    assert scene.reconcile() == "in line"
    assert (scene.tags(FIRST_WAITING)[DECISION], scene.tags(FIRST_WAITING)[WHY]) == ("rejected", "bob: too odd")
    assert (scene.aliases(), scene.live()) == ((CHAMPION, PREVIOUS), CHAMPION)


@pytest.mark.parametrize(("set_outcome", "live"), [("reject", CHAMPION), ("approve", FIRST_WAITING)])
def test_a_time_out(first_waits: Scene, set_outcome: Any, live: int) -> None:
    scene = first_waits
    hold(scene, Promotion(mode="approval", timeout_hours=2, on_timeout=set_outcome))
    assert (tend(PIPELINE, scene.world.to), scene.reconcile()) == (None, "in line")
    scene.world.now += timedelta(hours=3)
    tend(PIPELINE, scene.world.to)
    scene.reconcile()
    assert (scene.live(), scene.aliases()[0]) == (live, live)
    assert scene.tags(FIRST_WAITING)[DECISION] == {"reject": "rejected", "approve": "promoted"}[set_outcome]


def test_a_window(first_waits: Scene) -> None:
    scene = first_waits
    scene.world.write_spec(ALWAYS + "promotion: {mode: window, days: [sat], start: '02:00', end: '05:00'}\n")
    hold(scene, Promotion(mode="window", days=("sat",), start="02:00", end="05:00"))
    assert (tend(PIPELINE, scene.world.to), scene.reconcile()) == (None, "in line")
    assert (scene.tags(FIRST_WAITING)[DECISION], scene.aliases()[0]) == ("waiting", CHAMPION)
    scene.world.now += timedelta(hours=27)
    tend(PIPELINE, scene.world.to)
    assert scene.reconcile() == "alias moved"
    assert (scene.live(), scene.aliases()) == (FIRST_WAITING, (FIRST_WAITING, CHAMPION))


def hold(scene: Scene, promotion: Promotion) -> None:
    """Lets the version wait for something else than it did."""
    scene.world.blobs.delete(f"models/{PIPELINE}/waiting.json")
    challenger = Challenger("run-4", Candidate(PIPELINE, FIRST_WAITING, CHAMPION), "Better.")
    assert hold_back(challenger, promotion, None, read_champion(scene.world.blobs, PIPELINE), scene.world.to)


def test_a_newer_challenger_takes_the_place_of_one_that_waits(first_waits: Scene, second_waits: Scene) -> None:
    scene = second_waits
    assert scene.reconcile() == "in line"
    assert [scene.tags(number)[DECISION] for number in (FIRST_WAITING, SECOND_WAITING)] == ["superseded", "waiting"]
    with pytest.raises(AlreadyDecided):
        decide(PIPELINE, waiting_id(first_waits), "approve", who="ann", why="", to=scene.world.to)
    decide(PIPELINE, waiting_id(scene), "approve", who="ann", why="", to=scene.world.to)
    scene.reconcile()
    assert scene.aliases() == (SECOND_WAITING, CHAMPION)


def test_a_person_outranks_the_gate(first_waits: Scene) -> None:
    scene = first_waits
    assert scene.manifest(REJECTED).rejected
    scene.wish(REJECTED)
    assert scene.reconcile() == "pointer moved"
    assert (scene.live(), scene.aliases()) == (REJECTED, (REJECTED, CHAMPION))
    assert scene.reconcile() == "in line"


@pytest.mark.parametrize(("spoil", "reason"), [case[1:] for case in SPOILED], ids=[case[0] for case in SPOILED])
def test_a_wish_that_does_not_serve(first_waits: Scene, spoil: Callable[[World], None], reason: str) -> None:
    scene = first_waits
    spoil(scene.world)
    scene.wish(1)
    assert scene.reconcile() == "refused"
    assert reason in scene.tags(1)[REFUSED_TAG]
    assert (scene.live(), scene.aliases()) == (CHAMPION, (CHAMPION, PREVIOUS))
    assert scene.reconcile() == "in line"


def test_a_version_that_somebody_made_by_hand_and_deletes_again(first_waits: Scene) -> None:
    scene = first_waits
    first = scene.client.get_model_version(PIPELINE, "1")
    made = scene.client.create_model_version(PIPELINE, first.source, run_id=first.run_id, await_creation_for=0)
    scene.wish(made.version)
    assert scene.reconcile() == "refused"
    assert "storage has no such version" in scene.tags(int(made.version))[REFUSED_TAG]
    scene.wish(made.version)
    scene.client.delete_model_version(PIPELINE, made.version)
    assert scene.reconcile() == "alias moved"
    assert scene.aliases() == (CHAMPION, PREVIOUS)


def twin(scene: Scene) -> int:
    """Another version like the first, in MLflow and in storage, that can be deleted without harm to other tests."""
    first = scene.client.get_model_version(PIPELINE, "1")
    made = scene.client.create_model_version(PIPELINE, first.source, run_id=first.run_id, await_creation_for=0)
    folder, number = f"models/{PIPELINE}/versions", int(made.version)
    for name in ("model.json", "model.onnx"):
        data = scene.world.blobs.get(f"{folder}/1/{name}").data
        if name == "model.json":
            moved = {"version": number, "model_path": f"{folder}/{number}/model.onnx"}
            data = json.dumps({**json.loads(data), **moved}).encode()
        scene.world.blobs.put(f"{folder}/{number}/{name}", data)
    return number


def test_a_live_version_that_somebody_deletes_there(first_waits: Scene) -> None:
    """MLflow takes its aliases away with it."""
    scene = first_waits
    live = twin(scene)
    scene.wish(live)
    assert scene.reconcile() == "pointer moved"
    scene.client.delete_model_version(PIPELINE, str(live))
    assert [scene.reconcile() for _ in range(3)] == ["gone"] * 3
    assert scene.live() == live
    assert scene.client.get_registered_model(PIPELINE).aliases.keys() & {"champion", "previous"} == {"previous"}
    scene.wish(PREVIOUS)
    assert scene.reconcile() == "pointer moved"
    assert scene.live() == PREVIOUS
    assert "previous" not in scene.client.get_registered_model(PIPELINE).aliases, "it was deleted"
    assert scene.reconcile() == "in line"


def unborn(scene: Scene) -> Scene:
    """The same before the first promotion."""
    for name in ("live", "aligned", "waiting"):
        scene.world.blobs.delete(f"models/{PIPELINE}/{name}.json")
    scene.client.delete_registered_model_alias(PIPELINE, "champion")
    assert scene.reconcile() == "no champion"
    return scene


def test_a_first_wish_that_dies_between_any_two_steps(past: Past, mlflow_url: str, tmp_path: Path) -> None:
    def scene() -> Scene:
        found = unborn(Scene(past.first_waits.copy(tmp_path), mlflow_url))
        found.world.events.heard.clear()
        found.wish(REJECTED)
        return found

    def follow(scene: Scene) -> None:
        scene.reconcile()

    for found in killed_at_every_step(scene, follow):
        assert (found.live(), int(found.client.get_registered_model(PIPELINE).aliases["champion"])) == (REJECTED,) * 2
        assert found.tags(REJECTED)[DECISION] == "promoted"
        assert found.told("Ratchet.ModelPromoted") == [REJECTED]
        assert found.world.read(f"models/{PIPELINE}/live.json")["generation"] == 1


def test_a_first_wish_that_does_not_serve_and_dies_between_any_two_steps(
    past: Past, mlflow_url: str, tmp_path: Path
) -> None:
    def scene() -> Scene:
        found = unborn(Scene(past.first_waits.copy(tmp_path), mlflow_url))
        found.world.blobs.put(f"models/{PIPELINE}/versions/{REJECTED}/model.json", b"[]")
        found.wish(REJECTED)
        return found

    def refuse(scene: Scene) -> None:
        scene.reconcile()

    for found in killed_at_every_step(scene, refuse):
        assert "cannot be read" in found.tags(REJECTED)[REFUSED_TAG]
        assert "champion" not in found.client.get_registered_model(PIPELINE).aliases
        assert found.reconcile() == "no champion"


def test_a_rollback_while_mlflow_is_away(first_waits: Scene) -> None:
    scene = first_waits
    scene.offline()
    assert rollback(PIPELINE, None, who="ann", why="odd scores", to=scene.world.to).champion.version == PREVIOUS
    with pytest.raises(RegistryError):
        scene.reconcile()
    assert scene.told("Ratchet.ModelRolledBack") == [PREVIOUS], "who listens need not wait for MLflow"
    assert scene.aliases()[0] == CHAMPION
    scene.online()
    assert scene.reconcile() == "alias moved"
    assert scene.aliases() == (PREVIOUS, CHAMPION)
    assert scene.tags(CHAMPION)[DECISION] == "rolled back"
    assert "ann: odd scores" in scene.tags(CHAMPION)[WHY]


def test_a_wish_and_a_rollback_at_once(first_waits: Scene) -> None:
    scene = first_waits
    rollback(PIPELINE, None, who="ann", why="odd scores", to=scene.world.to)
    scene.wish(REJECTED)
    assert scene.reconcile() == "refused"
    assert "odd scores" in scene.tags(REJECTED)[REFUSED_TAG]
    assert (scene.live(), scene.aliases()[0]) == (PREVIOUS, PREVIOUS)


def test_a_topic_that_is_away(first_waits: Scene) -> None:
    scene = first_waits
    scene.world.events.away = True
    scene.wish(PREVIOUS)
    assert scene.reconcile() == "pointer moved"
    assert (scene.aliases()[0], scene.told("Ratchet.ModelPromoted")) == (PREVIOUS, [PREVIOUS, CHAMPION])
    scene.world.events.away = False
    assert scene.world.outbox.flush() == 1
    assert (scene.told("Ratchet.ModelPromoted")[-1], scene.world.blobs.paths(FOLDER)) == (PREVIOUS, [])


class Dies(BaseException):
    """The process ends here: nobody catches it."""


class Fuse:
    """Lets so many steps out of this process happen, and ends it before the next."""

    def __init__(self) -> None:
        self.left = -1
        self.taken = 0

    def guard(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **named: Any) -> Any:
            if self.left == 0:
                raise Dies
            self.left -= 1
            self.taken += 1
            return work(*given, **named)

        return step


@contextlib.contextmanager
def fused(scene: Scene) -> Iterator[Fuse]:
    """Every write to storage, every event and every request to MLflow is a step."""
    fuse = Fuse()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.world.blobs, "put", fuse.guard(scene.world.blobs.put))
        patch.setattr(scene.world.blobs, "delete", fuse.guard(scene.world.blobs.delete))
        patch.setattr(scene.world.events, "publish", fuse.guard(scene.world.events.publish))
        patch.setattr("requests.Session.send", fuse.guard(SEND))
        yield fuse


def killed_at_every_step(scenes: Callable[[], Scene], work: Callable[[Scene], None]) -> Iterator[Scene]:
    """Scenes in which the work was killed before its first step, its second and so on, and then done again."""
    whole = scenes()
    with fused(whole) as fuse:
        work(whole)
    yield whole
    for steps in range(fuse.taken):
        scene = scenes()
        with fused(scene) as fuse:
            fuse.left = steps
            with pytest.raises(Dies):
                work(scene)
        work(scene)
        scene.world.outbox.flush()
        yield scene


def test_a_run_that_dies_between_any_two_steps(
    past: Past, mlflow_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the registration to the record. That within the first registration is in test_mlflow_registry.py."""

    def finish(scene: Scene) -> None:
        world = scene.world
        world.call(register, past.run)
        assert world.call(promote, past.run).ended == ""
        world.call(align, past.run)
        world.settle(past.run, "promoted", "Better.")

    def scene() -> Scene:
        found = Scene(past.judged.copy(tmp_path), mlflow_url)
        # Nobody has to say yes here.
        monkeypatch.setattr(Workspace, "spec", lambda _: parse_spec(ALWAYS, source="shops.yaml"))
        return found

    registered = len(versions(mlflow_url))
    count = 0
    for count, found in enumerate(killed_at_every_step(scene, finish)):  # noqa: B007 (counted)
        assert (found.live(), found.aliases()) == (SECOND_WAITING, (SECOND_WAITING, CHAMPION))
        assert found.tags(SECOND_WAITING)[DECISION] == "promoted"
        assert found.world.read(f"runs/{PIPELINE}/{past.run.run}.json")["outcome"] == "promoted"
        pointer = found.world.read(f"models/{PIPELINE}/live.json")
        assert (pointer["generation"], len(pointer["moves"])) == (3, 3)
        assert {"Ratchet.RunFinished"} <= {e.type for e in found.world.events.heard if e.key == past.run.run}
        assert found.told("Ratchet.ModelPromoted") == [PREVIOUS, CHAMPION, SECOND_WAITING]
        assert found.told("Ratchet.ModelRegistered")[-1] == SECOND_WAITING
        assert found.world.blobs.paths(FOLDER) == []
    assert count > 30
    assert len(versions(mlflow_url)) == registered


def versions(url: str) -> list[Any]:
    return list(MlflowClient(url, url).search_model_versions(f"name = '{PIPELINE}'"))


def test_a_rollback_that_dies_between_any_two_steps(past: Past, mlflow_url: str, tmp_path: Path) -> None:
    def scene() -> Scene:
        return Scene(past.first_waits.copy(tmp_path), mlflow_url)

    def go_back(scene: Scene) -> None:
        with contextlib.suppress(NothingToRollBack):  # a person who asks again is told that it is done
            rollback(PIPELINE, PREVIOUS, who="ann", why="odd scores", to=scene.world.to)
        scene.reconcile()

    for found in killed_at_every_step(scene, go_back):
        assert (found.live(), found.aliases()) == (PREVIOUS, (PREVIOUS, CHAMPION))
        assert (found.tags(CHAMPION)[DECISION], found.tags(PREVIOUS)[DECISION]) == ("rolled back", "promoted")
        assert found.told("Ratchet.ModelRolledBack") == [PREVIOUS]
        pointer = found.world.read(f"models/{PIPELINE}/live.json")
        assert (pointer["generation"], [each["version"] for each in pointer["withdrawn"]]) == (3, [CHAMPION])


def test_an_approval_that_dies_between_any_two_steps(past: Past, mlflow_url: str, tmp_path: Path) -> None:
    def scene() -> Scene:
        return Scene(past.first_waits.copy(tmp_path), mlflow_url)

    def approve(scene: Scene) -> None:
        decide(PIPELINE, waiting_id(scene), "approve", who="ann", why="looks right", to=scene.world.to)
        scene.reconcile()

    for found in killed_at_every_step(scene, approve):
        assert (found.live(), found.aliases()) == (FIRST_WAITING, (FIRST_WAITING, CHAMPION))
        assert found.tags(FIRST_WAITING)[DECISION] == "promoted"
        assert found.told("Ratchet.ModelPromoted") == [PREVIOUS, CHAMPION, FIRST_WAITING]
        assert found.world.read(f"models/{PIPELINE}/live.json")["generation"] == 3


def test_a_reconciler_that_dies_between_any_two_steps(past: Past, mlflow_url: str, tmp_path: Path) -> None:
    def scene() -> Scene:
        found = Scene(past.first_waits.copy(tmp_path), mlflow_url)
        found.wish(PREVIOUS)
        return found

    def follow(scene: Scene) -> None:
        scene.reconcile()

    for found in killed_at_every_step(scene, follow):
        assert (found.live(), found.aliases()) == (PREVIOUS, (PREVIOUS, CHAMPION))
        assert found.tags(FIRST_WAITING)[DECISION] == "waiting"
        assert "was moved to version 1" in found.tags(PREVIOUS)[WHY]
        assert found.told("Ratchet.ModelPromoted") == [PREVIOUS, CHAMPION, PREVIOUS]
        assert json.loads(found.world.blobs.get(f"models/{PIPELINE}/live.json").data)["generation"] == 3
