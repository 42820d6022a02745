from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devhost.caller import Caller, retry_delay
from devhost.errors import ScheduleInvalid, SettingMissing
from devhost.protocol import Invocation, Outcome
from devhost.timer_memory import TimerFile
from devhost.timers import Timers, parse_schedule
from tests.devhost.fakes import DONE, FakeInvoker, function, settings
from tests.devhost.waiting import until

NEVER_IN_A_TEST = "0 0 0 1 1 *"


@pytest.mark.parametrize(
    ("expression", "following"),
    [
        ("0 */5 * * * *", "2026-11-24 10:05:00"),
        ("*/15 * * * * *", "2026-11-24 10:02:15"),
        ("*/5 * * * *", "2026-11-24 10:05:00"),
        ("0 30 9 * * 1-5", "2026-11-25 09:30:00"),
        ("0 0 0 13 * 5", "2027-08-13 00:00:00"),  # only a Friday the 13th: both days must fit
        ("0 0 0 1 Jan *", "2027-01-01 00:00:00"),
        ("00:10:00", "2026-11-24 10:12:00"),
    ],
)
def test_the_time_after(expression: str, following: str) -> None:
    moment = datetime(2026, 11, 24, 10, 2, 0, tzinfo=UTC)
    assert parse_schedule(expression, function="f").after(moment) == datetime.fromisoformat(following + "+00:00")


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.sampled_from(["* * * * * *", "*/7 * * * * *", "0 */5 * * * *", "*/5 * * * *", "0 0 3 * * 0", "00:00:01"]),
)
def test_the_next_time_is_always_later(moment: datetime, expression: str) -> None:
    assert parse_schedule(expression, function="f").after(moment) > moment


@pytest.mark.parametrize("expression", ["", "often", "* * *", "61 * * * * *", "* * * * * * *"])
def test_a_bad_schedule_is_named_with_its_function(expression: str) -> None:
    with pytest.raises(ScheduleInvalid, match="Function sweep: the schedule"):
        parse_schedule(expression, function="sweep")


def test_a_schedule_from_a_setting_that_is_not_set_is_named() -> None:
    sweep = function("sweep", "timerTrigger", schedule="%SWEEP%")
    with pytest.raises(SettingMissing, match="function sweep needs the setting SWEEP"):
        Timers([sweep], Caller(FakeInvoker()), settings())


async def test_a_timer_runs_at_its_times_and_on_start_up_when_it_says_so() -> None:
    invoker = FakeInvoker()
    caller = Caller(invoker)
    often = function("often", "timerTrigger", schedule="%OFTEN%")
    at_start = function("at_start", "timerTrigger", schedule=NEVER_IN_A_TEST, runOnStartup=True)
    quiet = function("quiet", "timerTrigger", schedule=NEVER_IN_A_TEST)
    timers = Timers([often, at_start, quiet], caller, settings({"OFTEN": "* * * * * *"}))
    timers.start()
    await until(lambda: [i.function_id for i in invoker.invocations].count("id-often") == 2)
    await timers.stop()
    names = [invocation.function_id for invocation in invoker.invocations]
    assert names.count("id-at_start") == 1
    assert "id-quiet" not in names
    (kind, content) = invoker.invocations[0].inputs[0][1]
    assert kind == "json"
    assert json.loads(content)["IsPastDue"] is False


async def test_run_now_and_the_retry_policy() -> None:
    def fails_twice(invocation: Invocation) -> Outcome:
        return DONE if invocation.retry_count == 2 else Outcome(ok=False, error="ValueError: no")

    invoker = FakeInvoker(fails_twice)
    caller = Caller(invoker)
    policy = {"max_retry_count": 5, "retry_strategy": "fixed_delay", "delay_interval": 0.0}
    sweep = function("sweep", "timerTrigger", schedule=NEVER_IN_A_TEST, retry=policy)
    Timers([sweep], caller, settings()).run_now(sweep)
    await caller.drain(5)
    assert [(i.retry_count, i.max_retry_count) for i in invoker.invocations] == [(0, 5), (1, 5), (2, 5)]


async def test_a_run_that_has_begun_outlives_stop_until_it_is_drained() -> None:
    released, finished = asyncio.Event(), asyncio.Event()

    class SlowInvoker:
        async def invoke(self, invocation: Invocation) -> Outcome:
            await released.wait()
            finished.set()
            return DONE

    caller = Caller(SlowInvoker())
    timers = Timers([function("t", "timerTrigger", schedule=NEVER_IN_A_TEST, runOnStartup=True)], caller, settings())
    timers.start()
    await asyncio.sleep(0)
    await timers.stop()
    released.set()
    await caller.drain(5)
    assert finished.is_set()


class Clock:
    """A clock that can be set. It counts how often somebody looks."""

    def __init__(self, text: str) -> None:
        self.looks = 0
        self.set(text)

    def set(self, text: str) -> None:
        self.time = datetime.fromisoformat(text)

    def __call__(self) -> datetime:
        self.looks += 1
        return self.time

    async def looked_at(self) -> None:
        """Waits until the timer has seen the present time, and waits again."""
        looks = self.looks
        await until(lambda: self.looks > looks + 4)


def _past_due(invoker: FakeInvoker) -> list[bool]:
    return [json.loads(invocation.inputs[0][1][1])["IsPastDue"] for invocation in invoker.invocations]


async def _up(folder: Path, at: str, **trigger: Any) -> FakeInvoker:
    """A host that is up at that time, and long enough for what it does at its start."""
    invoker, clock = FakeInvoker(), Clock(at)
    caller = Caller(invoker)
    hourly = function("hourly", "timerTrigger", **{"schedule": "0 0 * * * *", **trigger})
    timers = Timers([hourly], caller, settings(), TimerFile(folder), now=clock, look_seconds=0.001)
    timers.start()
    await clock.looked_at()
    await timers.stop()
    await caller.drain(1)
    return invoker


async def test_a_time_that_passed_while_the_host_was_down_is_made_up_for_once(tmp_path: Path) -> None:
    assert _past_due(await _up(tmp_path, "2026-11-24T10:30:00+00:00")) == []
    assert _past_due(await _up(tmp_path, "2026-11-24T10:40:00+00:00")) == []
    made_up = await _up(tmp_path, "2026-11-24T13:10:00+00:00")
    assert _past_due(made_up) == [True]
    assert _past_due(await _up(tmp_path, "2026-11-24T13:20:00+00:00")) == []
    made_up = await _up(tmp_path, "2026-11-24T14:20:00+00:00", runOnStartup=True)
    assert _past_due(made_up) == [True]
    status = json.loads(made_up.invocations[0].inputs[0][1][1])["ScheduleStatus"]
    assert status["Last"] == "2026-11-24T13:10:00+00:00"


@pytest.mark.parametrize(
    "trigger", [{"useMonitor": False}, {"schedule": "*/15 * * * * *"}], ids=["not monitored", "every 15 seconds"]
)
async def test_some_timers_are_not_remembered(tmp_path: Path, trigger: dict[str, Any]) -> None:
    await _up(tmp_path, "2026-11-24T10:30:00+00:00", **trigger)
    assert _past_due(await _up(tmp_path, "2026-11-24T13:10:01+00:00", **trigger)) == []


async def test_another_schedule_has_missed_nothing(tmp_path: Path) -> None:
    await _up(tmp_path, "2026-11-24T10:30:00+00:00")
    assert _past_due(await _up(tmp_path, "2026-11-24T13:10:00+00:00", schedule="0 5 * * * *")) == []


async def test_a_run_that_is_cut_short_is_made_up_for(tmp_path: Path) -> None:
    class NeverEnds(FakeInvoker):
        async def invoke(self, invocation: Invocation) -> Outcome:
            await super().invoke(invocation)
            await asyncio.Event().wait()
            return DONE

    invoker, clock = NeverEnds(), Clock("2026-11-24T10:30:00+00:00")
    caller = Caller(invoker)
    hourly = function("hourly", "timerTrigger", schedule="0 0 * * * *")
    timers = Timers([hourly], caller, settings(), TimerFile(tmp_path), now=clock, look_seconds=0.001)
    timers.start()
    await asyncio.sleep(0)
    clock.time += timedelta(minutes=30)
    await until(lambda: len(invoker.invocations) == 1)
    await timers.stop()
    await caller.drain(0.01)
    assert _past_due(await _up(tmp_path, "2026-11-24T11:10:00+00:00")) == [True]


@pytest.mark.parametrize("content", ["", "[]", '{"hourly": 1}', '{"hourly": {"schedule": "x", "last": 1, "next": 2}}'])
async def test_a_spoilt_memory_is_told_and_replaced(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "timers.json").write_text(content, encoding="utf-8")
    assert _past_due(await _up(tmp_path, "2026-11-24T10:30:00+00:00")) == []
    assert "cannot be read" in caplog.text
    assert _past_due(await _up(tmp_path, "2026-11-24T12:30:00+00:00")) == [True]


async def test_a_clock_that_is_set_forward_or_back_is_noticed() -> None:
    invoker, clock = FakeInvoker(), Clock("2026-11-24T10:30:00+00:00")
    caller = Caller(invoker)
    hourly = function("hourly", "timerTrigger", schedule="0 0 * * * *")
    timers = Timers([hourly], caller, settings(), now=clock, look_seconds=0.001)
    timers.start()
    await clock.looked_at()
    clock.set("2026-11-24T15:30:00+00:00")
    await until(lambda: _past_due(invoker) == [True])
    await clock.looked_at()
    clock.set("2026-11-23T08:59:00+00:00")
    await clock.looked_at()
    clock.set("2026-11-23T09:00:00+00:00")
    await until(lambda: _past_due(invoker) == [True, False])
    await timers.stop()


def test_retry_delays() -> None:
    assert retry_delay({"delay_interval": 4.0}, 3) == 4.0
    exponential = {"minimum_interval": 1.0, "maximum_interval": 5.0}
    assert [retry_delay(exponential, retry) for retry in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 5.0]
    assert timedelta(seconds=retry_delay(exponential, 10_000)) == timedelta(seconds=5)
