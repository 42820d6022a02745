"""What kind of failure an error is; and that a lost answer is of the kind that is tried again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from activities.contracts import LASTING, PASSING, Finish, RunRef
from activities.failures import step_failed
from activities.pointing import PointerMoved
from activities.settle import settle
from activities.waiting import AlreadyDecided
from adapters.blobs import BlobConflict, BlobNotFound, StorageUnavailable
from adapters.ledger import IllegalTransition, LedgerConflict
from adapters.registry import RegistryError, VersionTaken
from models.errors import RatchetError
from tests.activities.world import SPEC, World, rows

TRIES = 3


@pytest.mark.parametrize(
    ("error", "mark"),
    [
        (StorageUnavailable("a", "503"), PASSING),
        (BlobConflict("a", "412"), PASSING),
        (LedgerConflict("a", "busy"), PASSING),
        (RegistryError("away"), PASSING),
        (PointerMoved("shops"), PASSING),
        (AlreadyDecided("by somebody else"), PASSING),
        (IllegalTransition("a", "no"), LASTING),
        (VersionTaken("shops", 1, "another"), LASTING),
        (RatchetError("no"), LASTING),
        (BlobNotFound("a", "no"), ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_the_kind_of_a_failure_is_in_its_text(error: RatchetError, mark: str) -> None:
    text = str(step_failed(error))
    assert [each for each in (PASSING, LASTING) if each in text] == ([mark] if mark else [])
    assert str(error) in text


class Patient(World):
    """Tries a step again as the orchestration does."""

    def call(self, activity: Any, request: Any) -> Any:
        for _ in range(TRIES):
            try:
                return super().call(activity, request)
            except RatchetError as exc:
                if PASSING not in str(step_failed(exc)):
                    raise
        raise AssertionError(f"{activity.__name__} failed {TRIES} times")

    def settle(self, run: RunRef, outcome: str, sentence: str) -> None:
        self.call(settle, Finish(run.pipeline, run.run, run.started, outcome, sentence, (1.0, 2.0)))


@pytest.mark.parametrize("mode", ["automatic", "approval"])
def test_a_write_whose_answer_is_lost_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """The SDK makes the request again, which then meets its own first one."""
    world = Patient(tmp_path, f"{SPEC}promotion: {{mode: {mode}}}\n")
    put, lost = world.blobs.put, set[str]()

    def losing(path: str, data: bytes, **conditions: Any) -> str:
        etag = put(path, data, **conditions)
        if path not in lost and (conditions.get("only_new") or conditions.get("if_match")):
            lost.add(path)
            raise BlobConflict(path, f"{path} was changed by somebody else")
        return etag

    monkeypatch.setattr(world.blobs, "put", losing)
    for number in range(2):
        world.upload(f"{number}.csv", rows(number * 10))
        assert world.run()["outcome"] in {"promoted", "kept", "waiting"}
    assert lost >= {f"models/shops/{'live' if mode == 'automatic' else 'waiting'}.json"}
