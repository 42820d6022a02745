"""Wish and fact, with registry and storage in memory: every way in which alias and pointer can differ."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from activities.aligned import SENT_FOR
from activities.decisions import DECISION, WHY
from activities.live import read_champion
from activities.pointing import PointerMoved, Reason, checked, point_at
from activities.reconcile import REFUSED_TAG, reconcile
from activities.rollback import rollback
from adapters.pointer import LivePointer, pointer_path
from adapters.registry import RegistryError
from tests.activities.world import PIPELINE, SPEC, World, rows


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A champion, version 3, that was preceded by versions 1 and 2. Copied for each test."""
    world = World(
        tmp_path_factory.mktemp("trained"), SPEC.replace("minimum_rows: 50,", "minimum_rows: 50, improvement: -1,")
    )
    for number in range(3):
        world.upload(f"{number}.csv", rows(10 * number, noise=0.5 - number / 10))
        record = world.run()
        assert record["outcome"] == "promoted", record["sentence"]
    return world


@pytest.fixture
def world(trained: World, tmp_path: Path) -> World:
    return trained.copy(tmp_path)


def live(world: World) -> LivePointer:
    champion = read_champion(world.blobs, PIPELINE)
    assert champion is not None
    return champion.pointer


def told(world: World, kind: str) -> list[int]:
    return [notice.data["version"] for notice in world.events.heard if notice.type == kind]


def test_each_promotion_was_told_once_and_the_aliases_follow(world: World) -> None:
    assert world.mlflow.alias == {"challenger": 3, "champion": 3, "previous": 2}
    assert told(world, "Ratchet.ModelPromoted") == [1, 2, 3]
    assert reconcile(PIPELINE, world.to).outcome == "in line"
    assert told(world, "Ratchet.ModelPromoted") == [1, 2, 3]


def test_a_moved_alias_moves_the_champion(world: World) -> None:
    world.mlflow.alias["champion"] = 1
    done = reconcile(PIPELINE, world.to)
    assert (done.outcome, done.version) == ("pointer moved", 1)
    pointer = live(world)
    assert (pointer.champion.version, pointer.generation, pointer.moves[0].kind) == (1, 4, "followed")
    assert world.mlflow.alias == {"challenger": 3, "champion": 1, "previous": 3}
    assert told(world, "Ratchet.ModelPromoted") == [1, 2, 3, 1]
    assert reconcile(PIPELINE, world.to).outcome == "in line"


def decided(world: World) -> dict[int, str]:
    return {version: word for (version, name), word in world.mlflow.tags.items() if name == DECISION}


def test_versions_say_what_was_decided_about_them(world: World) -> None:
    assert decided(world) == {1: "promoted", 2: "promoted", 3: "promoted"}
    rollback(PIPELINE, None, who="ann", why="odd scores", to=world.to)
    reconcile(PIPELINE, world.to)
    assert decided(world) == {1: "promoted", 2: "promoted", 3: "rolled back"}
    assert world.mlflow.tags[3, WHY].endswith("ann: odd scores")
    world.mlflow.alias["champion"] = 3
    reconcile(PIPELINE, world.to)
    assert decided(world)[3] == "promoted"


def test_a_version_that_was_deleted_in_the_registry_holds_up_nothing(world: World) -> None:
    world.mlflow.deleted.add(2)
    rollback(PIPELINE, 1, who="ann", why="odd scores", to=world.to)
    rollback(PIPELINE, 2, who="ann", why="not so odd", to=world.to)
    rollback(PIPELINE, 3, who="ann", why="after all", to=world.to)
    assert reconcile(PIPELINE, world.to).outcome == "in line"
    assert decided(world)[3] == "promoted"
    world.mlflow.alias["champion"] = 1
    assert reconcile(PIPELINE, world.to).outcome == "pointer moved"


def test_a_deleted_alias_is_put_back(world: World) -> None:
    del world.mlflow.alias["champion"]
    assert reconcile(PIPELINE, world.to).outcome == "alias moved"
    assert world.mlflow.alias["champion"] == 3
    assert live(world).generation == 3


def break_model(world: World) -> None:
    world.blobs.put(f"models/{PIPELINE}/versions/1/model.onnx", b"another model")


def lose(world: World) -> None:
    world.blobs.delete(f"models/{PIPELINE}/versions/1/model.json")


def garble(world: World) -> None:
    world.blobs.put(f"models/{PIPELINE}/versions/1/model.json", b"{")


def of_another(field: str, value: Any) -> Callable[[World], None]:
    def change(world: World) -> None:
        path = f"models/{PIPELINE}/versions/1/model.json"
        world.blobs.put(path, json.dumps({**world.read(path), field: value}).encode())

    return change


def change_columns(world: World) -> None:
    world.write_spec(SPEC.replace("town: category", "town: number"))


def change_classes(world: World) -> None:
    world.write_spec(SPEC.replace("negative: kept", "negative: stays"))


def turn_classes(world: World) -> None:
    world.write_spec(SPEC.replace("negative: kept, positive: sold", "negative: sold, positive: kept"))


def turn_positive(world: World) -> None:
    path = f"models/{PIPELINE}/versions/1/model.json"
    document = world.read(path)
    document["signature"]["positive"] = "kept"
    world.blobs.put(path, json.dumps(document).encode())


def change_task(world: World) -> None:
    world.write_spec(
        SPEC.replace("label: {column: sold, negative: kept, positive: sold}", "task: regression\nlabel: {column: sold}")
    )


def ask_for_less(world: World) -> None:
    features = "features:\n- {name: price, column: price}\n"
    world.write_spec(SPEC + features)


SPOILED = [
    ("bytes", break_model, "the stored bytes are not those that were exported"),
    ("missing", lose, "storage has no such version"),
    ("garbled", garble, "its model.json cannot be read"),
    ("foreign", of_another("pipeline", "others"), "its model.json belongs to version 1 of others"),
    ("renumbered", of_another("version", 7), "its model.json belongs to version 7 of shops"),
    ("columns", change_columns, "it wants the column town as category, and the pipeline has it as number"),
    ("classes", change_classes, "it answers kept, sold, and the pipeline stays, sold"),
    ("turned classes", turn_classes, "it answers kept, sold, and the pipeline sold, kept"),
    ("another positive", turn_positive, "its probability is of kept, and the pipeline's of sold"),
    ("task", change_task, "it is a binary model, and the pipeline's task is regression"),
    (
        "less asked",
        ask_for_less,
        "it wants the column town as category, and the pipeline's requests have no such column",
    ),
]
"""What may be wrong with version 1."""


@pytest.mark.parametrize(("spoil", "reason"), [case[1:] for case in SPOILED], ids=[case[0] for case in SPOILED])
def test_a_wish_that_does_not_serve_is_refused_with_its_reason(
    world: World, spoil: Callable[[World], None], reason: str
) -> None:
    spoil(world)
    world.mlflow.alias["champion"] = 1
    done = reconcile(PIPELINE, world.to)
    assert done.outcome == "refused"
    assert reason in done.sentence
    assert reason in world.mlflow.tags[1, REFUSED_TAG]
    assert (live(world).champion.version, live(world).generation) == (3, 3)
    assert world.mlflow.alias["champion"] == 3
    assert reconcile(PIPELINE, world.to).outcome == "in line"


def test_a_pointer_that_moved_while_the_registry_was_away_is_followed(world: World) -> None:
    world.mlflow.away = True
    rollback(PIPELINE, None, who="ann", why="odd scores", to=world.to)
    with pytest.raises(RegistryError):
        reconcile(PIPELINE, world.to)
    world.mlflow.away = False
    assert reconcile(PIPELINE, world.to).outcome == "alias moved"
    assert world.mlflow.alias == {"challenger": 3, "champion": 2, "previous": 3}
    assert told(world, "Ratchet.ModelRolledBack") == [2]


def test_when_both_moved_the_fact_stays_and_the_wish_is_told_why(world: World) -> None:
    rollback(PIPELINE, None, who="ann", why="odd scores", to=world.to)
    world.mlflow.alias["champion"] = 1
    done = reconcile(PIPELINE, world.to)
    assert (done.outcome, done.version) == ("refused", 2)
    assert "odd scores" in world.mlflow.tags[1, REFUSED_TAG]
    assert world.mlflow.alias["champion"] == 2


def test_before_the_first_promotion_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert reconcile(PIPELINE, World(tmp_path).to).outcome == "no champion"


def test_a_file_with_a_mistake_does_not_keep_anybody_from_a_good_version(world: World) -> None:
    world.write_spec("name: [")
    assert rollback(PIPELINE, 1, who="ann", why="odd scores", to=world.to).champion.version == 1


class Dies(Exception):
    """The process is gone."""


@pytest.mark.parametrize("write", range(9))
def test_a_process_that_dies_between_any_two_steps_is_finished_by_the_next(world: World, write: int) -> None:
    """The write that it dies before: of the pointer, of an event, of a note, or in the registry."""
    world.mlflow.alias["champion"] = 1
    left = [write]

    def dying(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            if left[0] == 0:
                raise Dies
            left[0] -= 1
            return work(*given, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.blobs, "put", dying(world.blobs.put))
        patch.setattr(world.mlflow, "set_alias", dying(world.mlflow.set_alias))
        patch.setattr(world.mlflow, "tag", dying(world.mlflow.tag))
        with contextlib.suppress(Dies):
            reconcile(PIPELINE, world.to)
    world.outbox.flush()
    reconcile(PIPELINE, world.to)
    assert (live(world).champion.version, live(world).generation) == (1, 4)
    assert (world.mlflow.alias["champion"], world.mlflow.alias["previous"]) == (1, 3)
    assert "was moved to version 1" in world.mlflow.tags[1, WHY]
    heard = {
        notice.key: notice.data["version"] for notice in world.events.heard if notice.type == "Ratchet.ModelPromoted"
    }
    assert heard == {"1": 1, "2": 2, "3": 3, "4": 1}


def test_of_two_movers_one_wins_and_the_other_says_so(world: World) -> None:
    champion = read_champion(world.blobs, PIPELINE)
    first, second = checked(PIPELINE, 1, world.to), checked(PIPELINE, 2, world.to)
    point_at(first, Reason("followed", "one", "because"), champion, world.to)
    with pytest.raises(PointerMoved, match="changed by somebody else"):
        point_at(second, Reason("rolled back", "two", "because"), champion, world.to)
    assert (live(world).champion.version, live(world).generation) == (1, 4)


def test_generations_never_repeat_or_go_back_whoever_interleaves(world: World) -> None:
    """Each mover reads, another moves in between, and the first tries again, as the callers do."""
    seen = [live(world).generation]
    for turn, version in enumerate((1, 2, 1, 3, 2)):
        stale = read_champion(world.blobs, PIPELINE)
        world.mlflow.alias["champion"] = version
        reconcile(PIPELINE, world.to)
        seen.append(live(world).generation)
        with pytest.raises(PointerMoved):
            point_at(checked(PIPELINE, 1 + turn % 3, world.to), Reason("approved", "x", "y"), stale, world.to)
        assert live(world).generation == seen[-1]
    assert seen == sorted(set(seen))
    moves = [move.generation for move in live(world).moves]
    assert moves == sorted(moves, reverse=True)
    assert json.loads(world.blobs.get(pointer_path(PIPELINE)).data)["generation"] == seen[-1]


@contextlib.contextmanager
def just_before(world: World, owner: Any, name: str, interlude: Callable[[], Any], *, call: int = 0) -> Iterator[None]:
    """While one process is about to make this call, another one does all its work."""
    whole, calls = getattr(owner, name), [0]

    def late(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == call + 1:
            interlude()
        return whole(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, late)
        yield


def back_to(world: World, version: int) -> None:
    rollback(PIPELINE, version, who="ann", why="odd scores", to=world.to)
    reconcile(PIPELINE, world.to)


@pytest.mark.parametrize("call", range(2), ids=["champion", "previous"])
def test_a_reconciler_that_was_overtaken_leaves_the_aliases_as_the_pointer_is(world: World, call: int) -> None:
    """It is about to move the alias to where the pointer was; meanwhile the pointer moves on and the aliases follow."""
    rollback(PIPELINE, 2, who="ann", why="odd scores", to=world.to)
    with just_before(world, world.mlflow, "set_alias", lambda: back_to(world, 1), call=call):
        assert reconcile(PIPELINE, world.to).version == 1
    assert (live(world).champion.version, live(world).generation) == (1, 5)
    assert world.mlflow.alias == {"challenger": 3, "champion": 1, "previous": 2}
    assert decided(world) == {1: "promoted", 2: "rolled back", 3: "rolled back"}


def test_an_alias_that_was_put_back_too_late_is_no_wish(world: World) -> None:
    """A reconciler moves the alias long after it decided to, and dies. Nobody wished for that version."""
    rollback(PIPELINE, 2, who="ann", why="odd scores", to=world.to)
    set_alias = world.mlflow.set_alias

    def late(pipeline: str, alias: str, version: int) -> None:
        world.mlflow.set_alias = set_alias  # type: ignore[method-assign]
        back_to(world, 1)
        set_alias(pipeline, alias, version)
        raise Dies

    world.mlflow.set_alias = late  # type: ignore[method-assign]
    with pytest.raises(Dies):
        reconcile(PIPELINE, world.to)
    assert world.mlflow.alias["champion"] == 2
    assert reconcile(PIPELINE, world.to).outcome == "alias moved"
    assert (live(world).champion.version, live(world).generation, world.mlflow.alias["champion"]) == (1, 5, 1)
    world.now += SENT_FOR
    assert reconcile(PIPELINE, world.to).outcome == "in line"
    world.mlflow.alias["champion"] = 2
    assert reconcile(PIPELINE, world.to).outcome == "pointer moved", "by now it can only be a wish"


def test_a_wish_is_one_again_as_soon_as_the_reconciler_is_done(world: World) -> None:
    rollback(PIPELINE, 2, who="ann", why="odd scores", to=world.to)
    for version, outcome in ((None, "alias moved"), (3, "pointer moved"), (2, "pointer moved")):
        if version is not None:
            world.mlflow.alias["champion"] = version
        assert reconcile(PIPELINE, world.to).outcome == outcome
    assert live(world).champion.version == 2


def test_a_wish_that_follows_at_once_on_another_is_followed_too(world: World) -> None:
    """The first reconciler has moved the pointer and is about to say so in the registry when the alias moves back."""

    def moved_back() -> None:
        world.mlflow.alias["champion"] = 3
        assert reconcile(PIPELINE, world.to).outcome == "pointer moved"

    world.mlflow.alias["champion"] = 1
    with just_before(world, world.mlflow, "set_alias", moved_back):
        reconcile(PIPELINE, world.to)
    assert (live(world).champion.version, live(world).generation) == (3, 5)
    assert (world.mlflow.alias["champion"], world.mlflow.alias["previous"]) == (3, 1)
    assert told(world, "Ratchet.ModelPromoted") == [1, 2, 3, 1, 3]


def test_documents_of_newer_code_are_read(world: World) -> None:
    """While a new version is rolled out, the old one goes on working."""
    for name in ("aligned", "live", "versions/1/model", "versions/3/model"):
        path = f"models/{PIPELINE}/{name}.json"
        world.blobs.put(path, json.dumps({**world.read(path), "invented_later": [1]}).encode())
    world.mlflow.alias["champion"] = 1
    assert reconcile(PIPELINE, world.to).outcome == "pointer moved"


def test_a_document_with_a_mistake_is_not_taken_for_another(world: World) -> None:
    path = f"models/{PIPELINE}/aligned.json"
    world.blobs.put(path, json.dumps({**world.read(path), "generation": "3"}).encode())
    with pytest.raises(TypeError, match=r"Aligned\.generation is '3', no int"):
        reconcile(PIPELINE, world.to)
