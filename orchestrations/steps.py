"""Calling activities from an orchestration: a limit of time, and retries by kind of failure.

What passes (throttling, time-outs, a registry that restarts) is tried again with back-off for a quarter of an hour: an
outage of some minutes ends no run. What lasts (bad data, a mistake in the pipeline's file) is not tried again. What is
not known (a bug, a worker that died) is tried three times.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from azure.durable_functions import DurableOrchestrationContext

from activities.contracts import LASTING, PASSING, STEPS, BatchRequest, ItemRef, Payload, sentence

PASSING_DELAYS = (1.0, 2.0, 4.0, 8.0, 15.0, *(30.0,) * 29)
"""Seconds before each further attempt; a quarter of an hour in all."""
UNKNOWN_DELAYS = (5.0, 15.0)

STEP_LIMIT = timedelta(hours=12)
"""What hangs is ended by host.json's functionTimeout, an hour after it began, and is a failure then. This limit counts
the wait for a free worker too, which is long while many pipelines have many uploads: whoever gave up then would hold
against the data that there is much of it. It is for what the platform has lost."""

type Step = Generator[Any, Any, dict[str, Any]]


class StepTimedOut(Exception):
    """A step did not end within its limit."""

    def __init__(self, step: str, limit: timedelta) -> None:
        super().__init__(f"{step} did not end within {limit.total_seconds() / 3600:g} hours")
        self.step, self.limit = step, limit


def delay_after(failure: str, attempts: int) -> float | None:
    """Seconds to wait after `attempts` failed attempts, the last one with this text; None when it is given up."""
    if LASTING in failure:
        return None
    delays = PASSING_DELAYS if PASSING in failure else UNKNOWN_DELAYS
    return delays[attempts - 1] if attempts <= len(delays) else None


@dataclass
class Progress:
    """The custom status of a run, and what each step took: seconds by the clock, and seconds of work in activities."""

    context: DurableOrchestrationContext
    run: str
    started: str
    seconds: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    executions: int = 0
    step: str = ""
    since: datetime | None = None
    done: int = 0
    total: int = 0
    over: bool = False

    def enter(self, step: str, *, total: int = 0) -> None:
        """Says that `step` begins, and so that the one before it has ended."""
        self.leave()
        self.step, self.since, self.total = step, self.context.current_utc_datetime, total
        self.busy.append(0.0)
        self.show(done=0)

    def leave(self) -> None:
        """Says that the present step has ended, well or not."""
        if self.since is not None:
            self.seconds = with_step(self.seconds, self.step, self.since, self.context.current_utc_datetime)
            self.since = None

    def give_up(self) -> None:
        """Says that the run is over. An instance may outlive its run: it ends when the last of its activities has."""
        self.over = True
        self.show(done=self.done)

    def worked(self, seconds: float, executions: int = 1) -> None:
        """Adds activities' work to the present step."""
        self.busy[-1] = round(self.busy[-1] + seconds, 3)
        self.executions += executions

    def show(self, *, done: int, problem: str = "") -> None:
        """`problem` is what the step waits for to pass."""
        self.done = done
        self.context.set_custom_status(
            {
                "run": self.run,
                "started": self.started,
                "step": self.step,
                "index": STEPS.index(self.step) + 1,
                "steps": len(STEPS),
                "done": done,
                "total": self.total,
                "since": self.since.isoformat() if self.since else "",
                "problem": problem,
                "over": self.over,
                "seconds": self.seconds,
                "busy": list(self.busy),
                "executions": self.executions,
            }
        )


def with_step(seconds: Sequence[float], step: str, since: datetime, now: datetime) -> list[float]:
    """The seconds of the first steps of STEPS and those of `step`, unless the run left some out before that."""
    follows = len(seconds) == STEPS.index(step)
    return [*seconds, round((now - since).total_seconds(), 3)] if follows else list(seconds)


def call(context: DurableOrchestrationContext, progress: Progress, activity: str, payload: Payload) -> Step:
    """The activity's result, in the end. Raises StepTimedOut, or what it failed with when that is given up."""
    attempts = 0
    while True:
        task = context.call_activity(activity, payload.to_dict(), dict)
        timer = context.create_timer(context.current_utc_datetime + STEP_LIMIT)
        winner = yield context.task_any([task, timer])
        if winner is timer:
            raise StepTimedOut(activity, STEP_LIMIT)
        timer.cancel()
        try:
            # Yielding a finished task gives its result, or raises what made it fail.
            answer = yield task
        except Exception as exc:
            attempts += 1
            delay = delay_after(str(exc), attempts)
            if delay is None:
                raise
            progress.show(done=progress.done, problem=sentence(exc))
            yield context.create_timer(context.current_utc_datetime + timedelta(seconds=delay))
            progress.show(done=progress.done)
        else:
            progress.worked(answer["seconds"])
            result: dict[str, Any] = answer["result"]
            return result


def fan_out(context: DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any]]:
    """One activity call for each item of a batch, all at once; what failed in passing again, until all are done.

    While everything fails, one item alone feels whether the trouble has passed: a hundred need not knock on a storage
    account that is overloaded, and the history stays short.
    """
    batch = BatchRequest.from_dict(context.get_input(dict))
    waiting = [ItemRef(batch.pipeline, batch.run, batch.batch, index) for index in range(batch.size)]
    attempts, executions, seconds, feeling = 0, 0, 0.0, False
    while waiting:
        trying = waiting[:1] if feeling else waiting
        answers, failures = yield from _round(context, batch.activity, trying)
        executions += len(trying)
        seconds += sum(answers)
        if failures:
            attempts += 1
            worst = max(failures.values(), key=lambda text: (LASTING in text, PASSING not in text))
            delay = delay_after(worst, attempts)
            if delay is None:
                raise RuntimeError(worst)
            yield context.create_timer(context.current_utc_datetime + timedelta(seconds=delay))
        else:
            attempts = 0
        feeling = bool(failures) and not answers
        waiting = [*(item for item in trying if item.index in failures), *waiting[len(trying) :]]
    return {"size": batch.size, "seconds": round(seconds, 3), "executions": executions}


def _round(
    context: DurableOrchestrationContext, activity: str, items: list[ItemRef]
) -> Generator[Any, Any, tuple[list[float], dict[int, str]]]:
    """Each item once: seconds of those that came out well, and the texts of the failures by item.

    Not by `task_all`: within `task_any`, the SDK takes one that has failed for completed a second time once the last of
    its tasks succeeds, and ends the orchestration. Nor would it wait for the others of one that failed.
    """
    tasks = [context.call_activity(activity, item.to_dict(), dict) for item in items]
    timer = context.create_timer(context.current_utc_datetime + STEP_LIMIT)
    yield context.task_any([*tasks, timer])  # this schedules them all
    answers: list[float] = []
    failures: dict[int, str] = {}
    for item, task in zip(items, tasks, strict=True):
        if not task.is_completed:
            yield context.task_any([task, timer])
        if not task.is_completed:
            raise StepTimedOut(activity, STEP_LIMIT)
        try:
            answers.append((yield task)["seconds"])
        except Exception as exc:
            failures[item.index] = sentence(exc)
    timer.cancel()
    return answers, failures
