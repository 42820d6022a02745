"""The retrain orchestration under the real SDK and a real task hub, with activities that only answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.contracts import (
    BATCH_SIZE,
    STEPS,
    Claimed,
    Done,
    Fitted,
    Judged,
    RetrainRequest,
    Settled,
    Uploads,
)
from orchestrations.retrain import fan_out, instance_id, quiet_until, retrain
from tests.devhost.durable.sdk import App, hub

pytestmark = pytest.mark.filterwarnings(
    # The SDK loses the expected type of an activity that is called with retries, and then asks for it.
    "ignore:azure.functions df_loads was called without expected_type"
)
NOW = "2026-01-01T00:00:00+00:00"


class Answers(App):
    """An app whose activities give fixed answers and remember what they were asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.uploads = [Uploads(1, NOW, NOW, 0, 0)]
        self.orchestrator(retrain)
        self.orchestrator(fan_out)
        self.answer("look", lambda _: self.uploads[0] if len(self.uploads) == 1 else self.uploads.pop(0))
        self.answer("claim", lambda _: Claimed(todo=1, batches=1))
        self.answer("validate", lambda _: Done())
        self.answer("fit", lambda _: Fitted(todo=1, batches=1))
        self.answer("judge", lambda _: Judged(promote=True, sentence="Promoted: it is better."))
        self.answer("settle", lambda _: Settled(pending=0))
        self.answer("abandon", lambda _: Settled(pending=1))
        for name in ("transform", "train", "export", "evaluate", "register", "promote", "align"):
            self.answer(name, lambda _: Done())

    def answer(self, name: str, function: Callable[[dict[str, Any]], Any]) -> None:
        def activity(payload: dict[str, Any]) -> Any:
            self.asked.append((name, payload))
            return function(payload).to_dict()

        self.activities[name] = activity

    def count(self, name: str) -> int:
        return [asked for asked, _ in self.asked].count(name)


@pytest.fixture
def app() -> Answers:
    return Answers()


async def _until_ended(app: Answers, tmp_path: Path, *, force: bool = False) -> Any:
    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("retrain", RetrainRequest("shops", force).to_dict(), instance_id("shops"))
        return await running.ended(instance_id("shops"))


async def test_a_run_goes_through_every_step_once(app: Answers, tmp_path: Path) -> None:
    there = await _until_ended(app, tmp_path)
    assert there["runtimeStatus"] == "Completed"
    assert there["output"]["outcome"] == "promoted"
    assert there["output"]["sentence"] == "Promoted: it is better."
    expected = "look claim validate fit transform train export evaluate judge register promote align settle"
    assert [name for name, _ in app.asked] == expected.split()
    assert there["customStatus"] | {"since": "", "run": ""} == {
        "run": "",
        "step": "settle",
        "index": len(STEPS),
        "steps": len(STEPS),
        "done": 0,
        "total": 0,
        "since": "",
    }


async def test_every_activity_of_a_run_gets_the_same_run(app: Answers, tmp_path: Path) -> None:
    await _until_ended(app, tmp_path)
    assert len({payload["run"] for name, payload in app.asked if name != "look"}) == 1


async def test_the_record_gets_the_time_of_each_step(app: Answers, tmp_path: Path) -> None:
    await _until_ended(app, tmp_path)
    (finish,) = [payload for name, payload in app.asked if name == "settle"]
    assert len(finish["seconds"]) == len(STEPS) - 1
    assert all(seconds >= 0 for seconds in finish["seconds"])


async def test_nothing_pending_is_no_run(app: Answers, tmp_path: Path) -> None:
    app.uploads = [Uploads(0, "", "", 0, 0)]
    there = await _until_ended(app, tmp_path)
    assert there["output"]["outcome"] == "nothing_to_do"
    assert [name for name, _ in app.asked] == ["look"]


@pytest.mark.parametrize("force", [False, True])
async def test_a_wrong_pipeline_file_is_no_run(app: Answers, tmp_path: Path, *, force: bool) -> None:
    app.uploads = [Uploads(problem="shops.yaml:3: label: is missing")]
    there = await _until_ended(app, tmp_path, force=force)
    assert (there["runtimeStatus"], there["output"]["outcome"]) == ("Completed", "failed")
    assert there["output"]["sentence"] == "shops.yaml:3: label: is missing"
    assert [name for name, _ in app.asked] == ["look"]


async def test_force_runs_without_anything_pending(app: Answers, tmp_path: Path) -> None:
    app.uploads = [Uploads(0, "", "", 0, 0)]
    app.answer("claim", lambda _: Claimed(todo=0, batches=0))
    there = await _until_ended(app, tmp_path, force=True)
    assert there["output"]["outcome"] == "promoted"


async def test_a_rejected_challenger_is_registered_but_not_promoted(app: Answers, tmp_path: Path) -> None:
    app.answer("judge", lambda _: Judged(promote=False, sentence="The champion stays."))
    there = await _until_ended(app, tmp_path)
    assert there["output"]["outcome"] == "kept"
    assert (app.count("register"), app.count("promote"), app.count("settle")) == (1, 0, 1)


async def test_without_usable_data_the_run_is_settled_early(app: Answers, tmp_path: Path) -> None:
    app.answer("fit", lambda _: Fitted("nothing_to_do", "No usable partition."))
    there = await _until_ended(app, tmp_path)
    assert there["output"]["outcome"] == "nothing_to_do"
    assert (app.count("train"), app.count("settle")) == (0, 1)


async def test_many_partitions_fan_out_in_bounded_batches(app: Answers, tmp_path: Path) -> None:
    todo = 2 * BATCH_SIZE + 3
    app.answer("claim", lambda _: Claimed(todo=todo, batches=3))
    await _until_ended(app, tmp_path)
    items = [(payload["batch"], payload["index"]) for name, payload in app.asked if name == "validate"]
    sizes = {0: BATCH_SIZE, 1: BATCH_SIZE, 2: 3}
    assert sorted(items) == [(batch, index) for batch, size in sizes.items() for index in range(size)]


async def test_uploads_that_arrive_meanwhile_make_another_run(app: Answers, tmp_path: Path) -> None:
    pending = [1, 0]
    app.answer("settle", lambda _: Settled(pending=pending.pop(0)))
    await _until_ended(app, tmp_path)
    assert app.count("settle") == 2
    assert len({payload["run"] for name, payload in app.asked if name == "settle"}) == 2


async def test_a_run_waits_until_uploads_are_quiet(app: Answers, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    busy = Uploads(1, now.isoformat(), now.isoformat(), 0.2, 60)
    later = (now + timedelta(seconds=0.1)).isoformat()
    app.uploads = [busy, Uploads(2, now.isoformat(), later, 0.2, 60), Uploads(2, now.isoformat(), later, 0.2, 60)]
    there = await _until_ended(app, tmp_path)
    assert there["output"]["outcome"] == "promoted"
    assert app.count("look") >= 3
    assert datetime.now(UTC) >= datetime.fromisoformat(later) + timedelta(seconds=0.2)


async def test_a_step_that_fails_for_good_gives_the_claims_back(
    app: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrations.retrain.RETRY._first_retry_interval_in_milliseconds", 1)

    def broken(_: dict[str, Any]) -> Any:
        raise RuntimeError("the disk is full")

    app.answer("train", broken)
    there = await _until_ended(app, tmp_path)
    assert there["runtimeStatus"] == "Failed"
    (finish,) = [payload for name, payload in app.asked if name == "abandon"]
    assert finish["outcome"] == "failed"
    assert "the disk is full" in finish["sentence"]
    assert app.count("settle") == 0


async def test_a_model_that_is_live_is_no_failure_although_the_registry_is_away(
    app: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrations.retrain.REGISTRY_RETRY._first_retry_interval_in_milliseconds", 1)

    def away(_: dict[str, Any]) -> Any:
        raise RuntimeError("no answer")

    app.answer("align", away)
    there = await _until_ended(app, tmp_path)
    assert there["output"]["outcome"] == "promoted"
    assert "aliases are behind" in there["output"]["sentence"]
    assert (app.count("settle"), app.count("abandon")) == (1, 0)


async def test_a_version_that_does_not_prove_itself_is_a_failure_that_is_settled(app: Answers, tmp_path: Path) -> None:
    app.answer("promote", lambda _: Done("failed", "Not promoted: version 2 does not prove itself."))
    there = await _until_ended(app, tmp_path)
    assert there["output"]["outcome"] == "failed"
    assert (app.count("align"), app.count("settle"), app.count("abandon")) == (0, 1, 0)


async def test_no_payload_is_large(app: Answers, tmp_path: Path) -> None:
    await _until_ended(app, tmp_path)
    assert max(len(str(payload)) for _, payload in app.asked) < 1000


@pytest.mark.parametrize(
    ("oldest", "newest", "since", "until"),
    [(0, 0, 0, 60), (0, 30, 0, 90), (0, 595, 0, 600), (0, 1000, 0, 600), (580, 580, 0, 600), (0, 700, 650, 600)],
)
def test_quiet_means_since_the_newest_but_never_longer_than_allowed(
    oldest: int, newest: int, since: int, until: int
) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    at = [(start + timedelta(seconds=seconds)).isoformat() for seconds in (oldest, newest)]
    found = quiet_until(Uploads(2, at[0], at[1], 60, 600), since=start + timedelta(seconds=since))
    assert found == start + timedelta(seconds=until)


@pytest.mark.parametrize("step", ["train", "export"])
async def test_a_step_may_end_the_run(app: Answers, tmp_path: Path, step: str) -> None:
    app.answer(step, lambda _: Done("failed", "Not promoted: a categorical split."))
    there = await _until_ended(app, tmp_path)
    assert (there["output"]["outcome"], app.count("evaluate"), app.count("settle")) == ("failed", 0, 1)
