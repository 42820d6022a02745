"""Timer triggers: NCRONTAB schedules in UTC, or a fixed span between runs. A timer never overlaps itself.

A time that passed while the host was down is made up for, once, by a run at the start that says that it is past due,
unless the timer has useMonitor=False or comes more than once a minute.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from croniter import croniter

from devhost.caller import Caller
from devhost.errors import ScheduleInvalid
from devhost.protocol import Datum, FunctionInfo
from devhost.settings import Settings, parse_time_span
from devhost.timer_memory import Forgetful, Ticked, TimerMemory

SHORTEST_MONITORED = timedelta(minutes=1)
"""Timers that come more often are not remembered. As in the cloud."""
LOOK_SECONDS = 10.0
"""How often a waiting timer looks at the clock, which may have been set, or have gone on while the machine slept."""
SET_BACK = timedelta(minutes=1)
"""A clock that is set back by more than this is believed; less must not run the same time twice."""
PAST_DUE_SECONDS = 1.0
"""A run that begins later than this after its time says so."""
FIELDS_WITHOUT_SECONDS = 5
FIELDS_WITH_SECONDS = 6
NEVER = "0001-01-01T00:00:00"


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a timer function runs. `expression` has six fields, seconds first, or five, or is a time span."""

    expression: str
    interval: timedelta | None = None

    def after(self, moment: datetime) -> datetime:
        """The first time after `moment`."""
        if self.interval is not None:
            return moment + self.interval
        with_seconds = len(self.expression.split()) == FIELDS_WITH_SECONDS
        # Day of month and day of week must both fit, where classic cron lets either suffice.
        times = croniter(self.expression, moment, second_at_beginning=with_seconds, day_or=False)
        found: datetime = times.get_next(datetime)
        return found


@dataclass(slots=True)
class _Timer:
    function: FunctionInfo
    schedule: Schedule
    run_on_startup: bool
    monitored: bool = True
    last: datetime | None = None


class Timers:
    """Runs the app's timer functions at their times."""

    def __init__(
        self,
        functions: Sequence[FunctionInfo],
        caller: Caller,
        settings: Settings,
        memory: TimerMemory | None = None,
        *,
        now: Callable[[], datetime] = _utc_now,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """Raises ScheduleInvalid and SettingMissing."""
        self._caller = caller
        self._memory = memory or Forgetful()
        self._now = now
        self._look_seconds = look_seconds
        self._timers = {function.name: _timer(function, settings) for function in functions}
        self._waiting: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to wait for the times; functions that run on start-up run now."""
        loop = asyncio.get_running_loop()
        self._waiting = [loop.create_task(self._run_for_ever(timer)) for timer in self._timers.values()]

    async def stop(self) -> None:
        """Waits for no more times. Runs that have begun go on: the caller drains them."""
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)

    def run_now(self, function: FunctionInfo) -> None:
        """Begins a run out of turn."""
        timer = self._timers[function.name]
        self._caller.begin(self._run(timer, past_due=False))

    async def _run_for_ever(self, timer: _Timer) -> None:
        missed = self._missed(timer)
        if missed or timer.run_on_startup:
            await self._in_background(timer, past_due=missed)
        due = self._now()
        while True:
            due = timer.schedule.after(max(due, self._now()))  # a sleep that ends early must not run a time twice
            due = await self._reached(timer, due)
            await self._in_background(timer, past_due=(self._now() - due).total_seconds() > PAST_DUE_SECONDS)

    def _missed(self, timer: _Timer) -> bool:
        """Whether a time passed since the timer was last seen. One that is new is remembered from now on."""
        now = self._now()
        following = timer.schedule.after(now)
        timer.monitored = timer.monitored and timer.schedule.after(following) - following >= SHORTEST_MONITORED
        if not timer.monitored:
            return False
        known = self._memory.recall(timer.function.name)
        if known is None or known.expression != timer.schedule.expression:
            self._memory.note(timer.function.name, Ticked(timer.schedule.expression, None, following))
            return False
        timer.last = known.last
        return known.next < now

    async def _reached(self, timer: _Timer, due: datetime) -> datetime:
        """Waits for `due`, or for an earlier time that the clock was set back to, and returns which."""
        while (left := (due - self._now()).total_seconds()) > 0:
            before = self._now()
            await asyncio.sleep(min(left, self._look_seconds))
            if self._now() < before - SET_BACK:
                due = timer.schedule.after(self._now())
        return due

    async def _in_background(self, timer: _Timer, *, past_due: bool) -> None:
        """A run that `stop` does not cut short, though this waits for its end."""
        ended = asyncio.Event()

        async def run() -> None:
            try:
                await self._run(timer, past_due=past_due)
            finally:
                ended.set()

        self._caller.begin(run())
        await ended.wait()

    async def _run(self, timer: _Timer, *, past_due: bool) -> None:
        now = self._now()
        following = timer.schedule.after(now)
        datum = timer_datum(past_due=past_due, last=timer.last, following=following)
        timer.last = now
        await self._caller.call_with_retries(timer.function, datum)
        if timer.monitored:  # after the run: one that a kill cuts short is made up for
            self._memory.note(timer.function.name, Ticked(timer.schedule.expression, now, following))


def timer_datum(*, past_due: bool, last: datetime | None, following: datetime) -> Datum:
    """What a timer function receives."""
    status: Mapping[str, str] = {
        "Last": last.isoformat() if last else NEVER,
        "LastUpdated": last.isoformat() if last else NEVER,
        "Next": following.isoformat(),
    }
    content = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": status, "IsPastDue": past_due}
    return ("json", json.dumps(content))


def parse_schedule(expression: str, *, function: str) -> Schedule:
    """A schedule from its text. Raises ScheduleInvalid, which names `function`."""
    text = expression.strip()
    seconds = parse_time_span(text)
    if seconds:
        return Schedule(text, timedelta(seconds=seconds))
    fields = len(text.split())
    known = fields in {FIELDS_WITHOUT_SECONDS, FIELDS_WITH_SECONDS}
    if not known or not croniter.is_valid(text, second_at_beginning=fields == FIELDS_WITH_SECONDS):
        raise ScheduleInvalid(function, expression)
    return Schedule(text)


def _timer(function: FunctionInfo, settings: Settings) -> _Timer:
    text = settings.resolve(str(function.trigger["schedule"]), wanted_by=f"The schedule of function {function.name}")
    schedule = parse_schedule(text, function=function.name)
    return _Timer(
        function,
        schedule,
        run_on_startup=bool(function.trigger.get("runOnStartup")),
        monitored=function.trigger.get("useMonitor") is not False,
    )
