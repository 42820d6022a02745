"""The retrain orchestration: one singleton instance per pipeline (`retrain-{pipeline}`), one pass per run.

Deterministic: no clock but the context's, no environment, no I/O. Every figure that it needs comes from an activity.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from azure.durable_functions import DurableOrchestrationContext, RetryOptions

from activities import contracts
from activities.contracts import (
    STEPS,
    BatchRequest,
    Claimed,
    Done,
    Finish,
    Fitted,
    Judged,
    Payload,
    RetrainRequest,
    RunRef,
    Settled,
    Uploads,
)

type Step = Generator[Any, Any, dict[str, Any]]

RETRAIN, FAN_OUT = "retrain", "fan_out"

RETRY = RetryOptions(first_retry_interval_in_milliseconds=5_000, max_number_of_attempts=10)
"""For steps that meet storage: a throttled account or a failover is over within a minute, most often in seconds."""
REGISTRY_RETRY = RetryOptions(first_retry_interval_in_milliseconds=10_000, max_number_of_attempts=60)
"""For steps that meet the registry: a server that restarts or is upgraded is back within ten minutes."""


def instance_id(pipeline: str) -> str:
    """The one instance of a pipeline's retraining. A second start is refused by the platform, which is the point."""
    return f"retrain-{pipeline}"


@dataclass
class Progress:
    """The custom status of a run, and how long each step took."""

    context: DurableOrchestrationContext
    run: str
    seconds: list[float] = field(default_factory=list)
    since: datetime | None = None

    def enter(self, step: str, *, done: int = 0, total: int = 0) -> None:
        """Says that `step` begins, and so that the one before it has ended."""
        now: datetime = self.context.current_utc_datetime
        if self.since is not None:
            self.seconds.append(round((now - self.since).total_seconds(), 3))
        self.since = now
        self.show(step, done=done, total=total)

    def show(self, step: str, *, done: int, total: int) -> None:
        self.context.set_custom_status(
            {
                "run": self.run,
                "step": step,
                "index": STEPS.index(step) + 1,
                "steps": len(STEPS),
                "done": done,
                "total": total,
                "since": self.since.isoformat() if self.since else "",
            }
        )


def retrain(context: DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any] | None]:
    """Waits for quiet, then makes one run; continues as new while partitions keep coming."""
    request = RetrainRequest.from_dict(context.get_input(dict))
    started: datetime = context.current_utc_datetime
    run = RunRef(
        request.pipeline,
        run=f"{started:%Y%m%dT%H%M%S}-{str(context.new_uuid())[:8]}",
        started=started.isoformat(),
        force=request.force,
    )
    progress = Progress(context, run.run)
    progress.enter("quiet")
    uploads = yield from _settle_down(context, request)
    if uploads.problem:
        return {"run": run.run, "outcome": "failed", "sentence": uploads.problem}
    if not uploads.pending and not request.force:
        return {"run": run.run, "outcome": "nothing_to_do", "sentence": "Nothing is pending."}
    try:
        settled, outcome = yield from _run(context, run, progress)
    except Exception as exc:
        finish = Finish(run.pipeline, run.run, run.started, "failed", _short(str(exc)), tuple(progress.seconds))
        yield from _call(context, contracts.ABANDON, finish)
        raise
    if settled.pending:
        context.continue_as_new(RetrainRequest(request.pipeline).to_dict())
        return None
    return outcome


def fan_out(context: DurableOrchestrationContext) -> Generator[Any, Any, int]:
    """One activity call for each item of a batch, all at once."""
    batch = BatchRequest.from_dict(context.get_input(dict))
    items = [contracts.ItemRef(batch.pipeline, batch.run, batch.batch, index) for index in range(batch.size)]
    yield context.task_all(
        [context.call_activity_with_retry(batch.activity, RETRY, item.to_dict(), dict) for item in items]
    )
    return batch.size


def _settle_down(context: DurableOrchestrationContext, request: RetrainRequest) -> Generator[Any, Any, Uploads]:
    """Waits until uploads have been quiet, or the longest wait is over."""
    since: datetime = context.current_utc_datetime
    while True:
        uploads = Uploads.from_dict((yield from _call(context, contracts.LOOK, request)))
        if not uploads.pending or request.force:
            return uploads
        until = quiet_until(uploads, since=since)
        if until <= context.current_utc_datetime:
            return uploads
        yield context.create_timer(until)


def quiet_until(uploads: Uploads, *, since: datetime) -> datetime:
    """When the uploads will have settled: quiet since the newest, but no longer than the oldest may wait.

    `since` is when this run was asked for: a file that is written over and over has a row that is always new.
    """
    quiet = datetime.fromisoformat(uploads.newest) + timedelta(seconds=uploads.quiet_seconds)
    latest = min(datetime.fromisoformat(uploads.oldest), since) + timedelta(seconds=uploads.longest_wait_seconds)
    return min(quiet, latest)


def _run(
    context: DurableOrchestrationContext, run: RunRef, progress: Progress
) -> Generator[Any, Any, tuple[Settled, dict[str, Any]]]:
    progress.enter("claim")
    claimed = Claimed.from_dict((yield from _call(context, contracts.CLAIM, run)))
    outcome, sentence = yield from _steps(context, run, claimed, progress)
    progress.enter("settle")
    finish = Finish(run.pipeline, run.run, run.started, outcome, sentence, tuple(progress.seconds))
    settled = Settled.from_dict((yield from _call(context, contracts.SETTLE, finish)))
    return settled, {"run": run.run, "outcome": outcome, "sentence": sentence}


def _steps(
    context: DurableOrchestrationContext, run: RunRef, claimed: Claimed, progress: Progress
) -> Generator[Any, Any, tuple[str, str]]:
    """From the claimed partitions to a promoted or rejected version: (outcome, sentence)."""
    yield from _wave(
        context, run, progress, step="validate", activity=contracts.VALIDATE, todo=claimed.todo, batches=claimed.batches
    )
    progress.enter("profile")
    fitted = Fitted.from_dict((yield from _call(context, contracts.FIT, run)))
    if fitted.ended:
        return fitted.ended, fitted.sentence
    yield from _wave(
        context, run, progress, step="features", activity=contracts.TRANSFORM, todo=fitted.todo, batches=fitted.batches
    )
    progress.enter("train")
    trained = Done.from_dict((yield from _call(context, contracts.TRAIN, run)))
    if trained.ended:
        return trained.ended, trained.sentence
    progress.enter("export")
    exported = Done.from_dict((yield from _call(context, contracts.EXPORT, run)))
    if exported.ended:
        return exported.ended, exported.sentence
    progress.enter("evaluate")
    yield from _call(context, contracts.EVALUATE, run)
    progress.enter("gate")
    judged = Judged.from_dict((yield from _call(context, contracts.JUDGE, run)))
    progress.enter("register")
    yield from _call(context, contracts.REGISTER, replace(run, seconds=tuple(progress.seconds)), REGISTRY_RETRY)
    progress.enter("promote")
    if not judged.promote:
        return "kept", judged.sentence
    promoted = Done.from_dict((yield from _call(context, contracts.PROMOTE, run)))
    if promoted.ended:
        return promoted.ended, promoted.sentence
    try:
        yield from _call(context, contracts.ALIGN, run, REGISTRY_RETRY)
    except Exception as exc:
        # The model is live: a registry that is away for long may not make a failure of that.
        return "promoted", _short(f"{judged.sentence} The registry's aliases are behind: {exc}")
    return "promoted", judged.sentence


def _call(context: DurableOrchestrationContext, activity: str, payload: Payload, retry: RetryOptions = RETRY) -> Step:
    result: dict[str, Any] = yield context.call_activity_with_retry(activity, retry, payload.to_dict(), dict)
    return result


def _wave(
    context: DurableOrchestrationContext,
    run: RunRef,
    progress: Progress,
    *,
    step: str,
    activity: str,
    todo: int,
    batches: int,
) -> Generator[Any, Any]:
    """Fans `todo` items out in sub-orchestrations, and shows how many batches' items are done."""
    progress.enter(step, total=todo)
    sizes = [min(contracts.BATCH_SIZE, todo - number * contracts.BATCH_SIZE) for number in range(batches)]
    open_tasks = [
        context.call_sub_orchestrator(
            FAN_OUT, BatchRequest(activity, run.pipeline, run.run, number, size).to_dict(), expected_type=int
        )
        for number, size in enumerate(sizes)
    ]
    done = 0
    while open_tasks:
        finished = yield context.task_any(open_tasks)
        open_tasks.remove(finished)
        # Yielding a finished task gives its result, or raises what made it fail.
        done += yield finished
        progress.show(step, done=done, total=todo)


def _short(text: str) -> str:
    return " ".join(text.split())[: contracts.MAX_SENTENCE_CHARACTERS]
