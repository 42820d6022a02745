"""The retrain orchestration under the real SDK and a real task hub, with activities that only answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.contracts import (
    BATCH_SIZE,
    LASTING,
    PASSING,
    STEPS,
    Claimed,
    Done,
    Fitted,
    Judged,
    RetrainRequest,
    Settled,
    Uploads,
)
from activities.sweep import STRANGERS_CLAIM
from orchestrations import steps
from orchestrations.retrain import FORCE, instance_id, next_look, quiet_until
from tests.devhost.durable.sdk import hub
from tests.devhost.waiting import eventually, until
from tests.orchestrations.answers import NOW, Answers, failing
from triggers.runs import ensure_run, is_under_way

pytestmark = pytest.mark.filterwarnings(
    # What the SDK says of an event that comes before it is waited for; it keeps it until then.
    "ignore:Potential duplicate Task completion for TaskId. force"
)


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
    expected = "look claim validate fit transform train export evaluate judge register promote align illustrate settle"
    assert [name for name, _ in app.asked] == expected.split()
    assert there["customStatus"] | {"since": "", "run": "", "started": "", "seconds": []} == {
        "run": "",
        "started": "",
        "step": "settle",
        "index": len(STEPS),
        "steps": len(STEPS),
        "done": 0,
        "total": 0,
        "since": "",
        "problem": "",
        "over": False,
        "seconds": [],
        "busy": [0.5] * 10 + [1.0, 0.5, 0.0],
        "executions": 13,
    }


async def test_every_activity_of_a_run_gets_the_same_run(app: Answers, tmp_path: Path) -> None:
    await _until_ended(app, tmp_path)
    assert len({payload["run"] for name, payload in app.asked if name != "look"}) == 1


async def test_the_record_gets_the_time_of_each_step(app: Answers, tmp_path: Path) -> None:
    await _until_ended(app, tmp_path)
    (finish,) = [payload for name, payload in app.asked if name == "settle"]
    assert len(finish["seconds"]) == len(STEPS) - 1
    assert all(seconds >= 0 for seconds in finish["seconds"])
    # Every activity said half a second; promote and align are one step, gate has one activity, and settle is still on.
    assert finish["busy"] == [0.5] * 10 + [1.0, 0.5, 0.0]
    assert finish["executions"] == 13


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


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause between attempts, but as many."""
    for name in ("PASSING_DELAYS", "UNKNOWN_DELAYS"):
        monkeypatch.setattr(f"orchestrations.steps.{name}", tuple(0.001 for _ in getattr(steps, name)))


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("text", "attempts"),
    [
        (f"{PASSING} StorageUnavailable: storage refuses for now (503)", 1 + len(steps.PASSING_DELAYS)),
        ("MemoryError: the disk is full", 1 + len(steps.UNKNOWN_DELAYS)),
        (f"{LASTING} SpecError: shops.yaml:3: no", 1),
    ],
)
async def test_a_step_is_tried_again_as_its_failure_deserves(
    app: Answers, tmp_path: Path, text: str, attempts: int
) -> None:
    failing(app, "train", text)
    there = await _until_ended(app, tmp_path)
    assert there["runtimeStatus"] == "Failed"
    assert app.count("train") == attempts
    (finish,) = [payload for name, payload in app.asked if name == "abandon"]
    assert finish["outcome"] == "failed"
    assert text in finish["sentence"]
    assert app.count("settle") == 0


def test_an_outage_of_some_minutes_is_ridden_out() -> None:
    assert 10 * 60 <= sum(steps.PASSING_DELAYS) <= 20 * 60
    assert sorted(steps.PASSING_DELAYS) == list(steps.PASSING_DELAYS)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("name", ["look", "claim", "validate", "transform", "register", "align", "settle"])
async def test_what_passes_ends_no_run(app: Answers, tmp_path: Path, name: str) -> None:
    failing(app, name, f"{PASSING} LedgerError: throttled", times=4)
    there = await _until_ended(app, tmp_path)
    assert there["output"]["outcome"] == "promoted"
    assert app.count(name) == 5


@pytest.mark.usefixtures("at_once")
async def test_while_everything_fails_one_item_alone_feels_its_way(app: Answers, tmp_path: Path) -> None:
    app.answer("claim", lambda _: Claimed(todo=5, batches=1))
    failing(app, "validate", f"{PASSING} StorageUnavailable: 503", times=7)
    there = await _until_ended(app, tmp_path)
    assert there["output"]["outcome"] == "promoted"
    indexes = [payload["index"] for name, payload in app.asked if name == "validate"]
    # All five fail; the first one alone fails twice more, and comes through; then the others.
    assert sorted(indexes[:5]) == [0, 1, 2, 3, 4]
    assert indexes[5:8] == [0, 0, 0]
    assert sorted(indexes[8:]) == [1, 2, 3, 4]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("times", [1, 2])
async def test_what_passes_of_some_items_is_tried_again_for_them(app: Answers, tmp_path: Path, times: int) -> None:
    app.answer("claim", lambda _: Claimed(todo=3, batches=1))
    failing(app, "validate", f"{PASSING} StorageUnavailable: 503", times=times)
    there = await _until_ended(app, tmp_path)
    assert there["runtimeStatus"] == "Completed", there["output"]
    assert app.count("validate") == 3 + times


@pytest.mark.usefixtures("at_once")
async def test_one_bad_item_is_not_tried_again_and_the_others_are_kept(app: Answers, tmp_path: Path) -> None:
    app.answer("claim", lambda _: Claimed(todo=3, batches=1))
    failing(app, "validate", f"{LASTING} SpecError: no", times=1)
    there = await _until_ended(app, tmp_path)
    assert there["runtimeStatus"] == "Failed"
    assert (app.count("validate"), app.count("abandon")) == (3, 1)


def test_what_waits_for_a_worker_is_not_taken_for_what_hangs() -> None:
    """What hangs is ended by the platform. A claim of a run may not be old enough to be taken for a dead one's."""
    timeout = json.loads((Path(__file__).parents[2] / "host.json").read_text())["functionTimeout"]
    assert timeout == "01:00:00"
    assert timedelta(hours=1) < steps.STEP_LIMIT < STRANGERS_CLAIM


async def test_a_step_that_hangs_is_given_up_and_its_claims_are_given_back(
    app: Answers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The platform keeps the instance until the step has come back, which may be never: the sweep ends it."""
    monkeypatch.setattr("orchestrations.steps.STEP_LIMIT", timedelta(seconds=0.1))
    app.holding.add("train")
    async with hub(app, tmp_path / "hub.db") as running:
        client = running.client()
        await running.start("retrain", RetrainRequest("shops").to_dict(), instance_id("shops"))
        await until(lambda: app.count("abandon") == 1)
        (finish,) = [payload for name, payload in app.asked if name == "abandon"]
        assert "train did not end within" in finish["sentence"]
        assert len(finish["seconds"]) == STEPS.index("train") + 1

        async def over() -> bool:
            return not await is_under_way(client, "shops")

        await eventually(over)
        assert (await running.ended(instance_id("shops")))["runtimeStatus"] in {"Failed", "Terminated"}
        app.holding.clear()
        app.released.set()
        assert await ensure_run(client, "shops")
        assert (await running.ended(instance_id("shops")))["output"]["outcome"] == "promoted"


@pytest.mark.usefixtures("at_once")
async def test_a_model_that_is_live_is_no_failure_although_the_registry_is_away(app: Answers, tmp_path: Path) -> None:
    failing(app, "align", "no answer")
    there = await _until_ended(app, tmp_path)
    assert there["output"]["outcome"] == "promoted"
    assert "aliases are behind" in there["output"]["sentence"]
    assert (app.count("settle"), app.count("abandon")) == (1, 0)


async def test_a_forced_request_in_the_quiet_period_ends_it_and_forces_the_run(app: Answers, tmp_path: Path) -> None:
    now = datetime.now(UTC).isoformat()
    app.uploads = [Uploads(1, now, now, 3600, 3600)]
    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("retrain", RetrainRequest("shops").to_dict(), instance_id("shops"))
        await until(lambda: app.count("look") == 1)
        await running.client().raise_event(instance_id("shops"), FORCE, "now")
        there = await running.ended(instance_id("shops"))
    assert there["output"]["outcome"] == "promoted"
    assert [payload["force"] for name, payload in app.asked if name == "claim"] == [True]


async def test_a_forced_request_during_a_run_makes_another_one(app: Answers, tmp_path: Path) -> None:
    app.holding.add("train")
    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("retrain", RetrainRequest("shops").to_dict(), instance_id("shops"))
        await app.held.wait()
        await running.client().raise_event(instance_id("shops"), FORCE, "now")
        app.released.set()
        await running.ended(instance_id("shops"))
    assert [payload["force"] for name, payload in app.asked if name == "claim"] == [False, True]


async def test_a_forced_request_is_not_lost_with_the_run_that_fails(app: Answers, tmp_path: Path) -> None:
    app.holding.add("train")
    failing(app, "export", f"{LASTING} SpecError: no", times=1)
    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("retrain", RetrainRequest("shops").to_dict(), instance_id("shops"))
        await app.held.wait()
        await running.client().raise_event(instance_id("shops"), FORCE, "now")
        app.released.set()
        there = await running.ended(instance_id("shops"))
    assert (there["runtimeStatus"], app.count("abandon")) == ("Completed", 1)
    assert [payload["force"] for name, payload in app.asked if name == "claim"] == [False, True]


async def test_a_forced_run_that_fails_is_not_repeated_for_ever(app: Answers, tmp_path: Path) -> None:
    failing(app, "train", f"{LASTING} SpecError: no")
    there = await _until_ended(app, tmp_path, force=True)
    assert (there["runtimeStatus"], app.count("train")) == ("Failed", 1)


@pytest.mark.parametrize(("quiet", "longest"), [(1.0, 604_800.0), (0.01, 604_800.0), (60.0, 600.0)])
def test_uploads_that_never_cease_are_not_looked_at_for_ever(quiet: float, longest: float) -> None:
    now = since = datetime(2026, 1, 1, tzinfo=UTC)
    looks = 0
    while True:
        looks += 1
        uploads = Uploads(1, since.isoformat(), now.isoformat(), quiet, longest)
        until = quiet_until(uploads, since=since)
        if until <= now:
            break
        now = next_look(until, since=since, now=now)
    assert looks < 400
    assert now - since < timedelta(seconds=longest) * 1.06


async def test_a_challenger_that_was_outrun_is_judged_again(app: Answers, tmp_path: Path) -> None:
    settled = [Settled(pending=0, stale=True), Settled(pending=0)]
    app.answer("settle", lambda _: settled.pop(0))
    app.uploads = [Uploads(1, NOW, NOW, 0, 0), Uploads(0, "", "", 0, 0)]
    there = await _until_ended(app, tmp_path)
    assert there["output"]["outcome"] == "promoted"
    assert app.count("evaluate") == 2


async def test_a_version_that_does_not_prove_itself_is_a_failure_that_is_settled(app: Answers, tmp_path: Path) -> None:
    app.answer("promote", lambda _: Done("failed", "Not promoted: version 2 does not prove itself."))
    there = await _until_ended(app, tmp_path)
    assert there["output"]["outcome"] == "failed"
    assert (app.count("align"), app.count("settle"), app.count("abandon")) == (0, 1, 0)


@pytest.mark.usefixtures("at_once")
async def test_what_was_decided_stays_so_without_pictures(app: Answers, tmp_path: Path) -> None:
    failing(app, "illustrate", "ValueError: cannot draw")
    there = await _until_ended(app, tmp_path)
    assert there["output"]["outcome"] == "promoted"
    said = "Promoted: it is better. It has no pictures in the registry: "
    assert there["output"]["sentence"].startswith(said)
    assert "cannot draw" in there["output"]["sentence"]


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
