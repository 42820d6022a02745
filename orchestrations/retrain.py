"""The retrain orchestration: one singleton instance per pipeline (`retrain-{pipeline}`), one pass per run.

Deterministic: no clock but the context's, no environment, no I/O. Every figure that it needs comes from an activity.
"""

from __future__ import annotations

from collections.abc import Generator
from datetime import datetime, timedelta
from typing import Any

from azure.durable_functions import DurableOrchestrationContext

from activities import contracts
from activities.contracts import (
    BatchRequest,
    Claimed,
    Done,
    Finish,
    Fitted,
    Judged,
    RetrainRequest,
    RunRef,
    Settled,
    Uploads,
)
from orchestrations.steps import Progress, call, fan_out

__all__ = ["FAN_OUT", "FORCE", "RETRAIN", "fan_out", "instance_id", "quiet_until", "retrain"]

RETRAIN, FAN_OUT = "retrain", "fan_out"
FORCE = "force"
"""The external event that a forced retrain raises when an instance is under way."""
WITHOUT_PICTURES = "1.0.0"
"""Instances that began under this version have registered before drawing was a step, and end without it."""
FORGETFUL = frozenset({"1.0.0", "1.1.0"})
"""Instances that began under these do not ask, when their run has failed, whether somebody forced another one."""


def instance_id(pipeline: str) -> str:
    """The one instance of a pipeline's retraining. A second start is refused by the platform, which is the point."""
    return f"retrain-{pipeline}"


def retrain(context: DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any] | None]:
    """Waits for quiet, then makes one run; continues as new while partitions keep coming, or when a run was forced."""
    request = RetrainRequest.from_dict(context.get_input(dict))
    started: datetime = context.current_utc_datetime
    name = f"{started:%Y%m%dT%H%M%S}-{str(context.new_uuid())[:8]}"
    progress = Progress(context, name, started.isoformat())
    progress.enter("quiet")
    forced = context.wait_for_external_event(FORCE, str)
    uploads = yield from _settle_down(context, request, progress, forced)
    force = request.force or forced.is_completed
    run = RunRef(request.pipeline, run=name, started=started.isoformat(), force=force, hub=request.hub)
    if uploads.problem:
        return {"run": name, "outcome": "failed", "sentence": uploads.problem, "mistake": True}
    if uploads.pending or force or request.stale:
        try:
            settled, outcome = yield from _guarded(context, run, progress)
        except Exception:
            if context.version in FORGETFUL or not (yield from _forced_meanwhile(context, forced)):
                raise
            context.continue_as_new(RetrainRequest(request.pipeline, force=True, hub=request.hub).to_dict())
            return None
    else:
        settled, outcome = Settled(0), {"run": name, "outcome": "nothing_to_do", "sentence": "Nothing is pending."}
    again = yield from _forced_meanwhile(context, forced)
    if settled.pending or settled.stale or again:
        next_request = RetrainRequest(request.pipeline, force=again, stale=settled.stale, hub=request.hub)
        context.continue_as_new(next_request.to_dict())
        return None
    return outcome


def _guarded(
    context: DurableOrchestrationContext, run: RunRef, progress: Progress
) -> Generator[Any, Any, tuple[Settled, dict[str, Any]]]:
    """The run; what it has claimed is given back when it fails."""
    try:
        return (yield from _run(context, run, progress))
    except Exception as exc:
        progress.leave()
        yield from call(context, progress, contracts.ABANDON, _finish(run, progress, "failed", str(exc)))
        progress.give_up()
        raise


def _forced_meanwhile(context: DurableOrchestrationContext, forced: Any) -> Generator[Any, Any, bool]:
    """Whether somebody asked for a forced run since this one left its quiet period."""
    late = context.wait_for_external_event(FORCE, str) if forced.is_completed else forced
    timer = context.create_timer(context.current_utc_datetime)
    winner = yield context.task_any([late, timer])
    if winner is timer:
        return False
    timer.cancel()
    return True


def _settle_down(
    context: DurableOrchestrationContext, request: RetrainRequest, progress: Progress, forced: Any
) -> Generator[Any, Any, Uploads]:
    """Waits until uploads have been quiet, or the longest wait is over, or somebody forces the run."""
    since: datetime = context.current_utc_datetime
    while True:
        uploads = Uploads.from_dict((yield from call(context, progress, contracts.LOOK, request)))
        if not uploads.pending or request.force or forced.is_completed:
            return uploads
        until = quiet_until(uploads, since=since)
        if until <= context.current_utc_datetime:
            return uploads
        timer = context.create_timer(next_look(until, since=since, now=context.current_utc_datetime))
        winner = yield context.task_any([timer, forced])
        if winner is not timer:
            timer.cancel()


def quiet_until(uploads: Uploads, *, since: datetime) -> datetime:
    """When the uploads will have settled: quiet since the newest, but no longer than the oldest may wait.

    `since` is when this run was asked for: a file that is written over and over has a row that is always new.
    """
    quiet = datetime.fromisoformat(uploads.newest) + timedelta(seconds=uploads.quiet_seconds)
    latest = min(datetime.fromisoformat(uploads.oldest), since) + timedelta(seconds=uploads.longest_wait_seconds)
    return min(quiet, latest)


def next_look(until: datetime, *, since: datetime, now: datetime) -> datetime:
    """When to look again: not before a twentieth of the time that the run has waited already is over.

    Where uploads never cease, a short quiet period and a long wait would fill the history with looks.
    """
    return max(until, now + (now - since) / 20)


def _run(
    context: DurableOrchestrationContext, run: RunRef, progress: Progress
) -> Generator[Any, Any, tuple[Settled, dict[str, Any]]]:
    progress.enter("claim")
    claimed = Claimed.from_dict((yield from call(context, progress, contracts.CLAIM, run)))
    outcome, sentence = yield from _steps(context, run, claimed, progress)
    progress.enter("settle")
    finish = _finish(run, progress, outcome, sentence)
    settled = Settled.from_dict((yield from call(context, progress, contracts.SETTLE, finish)))
    return settled, {"run": run.run, "outcome": outcome, "sentence": sentence}


def _finish(run: RunRef, progress: Progress, outcome: str, sentence: str) -> Finish:
    return Finish(
        run.pipeline,
        run.run,
        run.started,
        outcome,
        sentence,
        seconds=tuple(progress.seconds),
        busy=tuple(progress.busy),
        executions=progress.executions,
    )


def _steps(
    context: DurableOrchestrationContext, run: RunRef, claimed: Claimed, progress: Progress
) -> Generator[Any, Any, tuple[str, str]]:
    """From the claimed partitions to a promoted or rejected version: (outcome, sentence)."""
    yield from _wave(context, run, progress, "validate", contracts.VALIDATE, claimed)
    progress.enter("profile")
    fitted = Fitted.from_dict((yield from call(context, progress, contracts.FIT, run)))
    if fitted.ended:
        return fitted.ended, fitted.sentence
    yield from _wave(context, run, progress, "features", contracts.TRANSFORM, fitted)
    for step, activity in (("train", contracts.TRAIN), ("export", contracts.EXPORT)):
        progress.enter(step)
        done = Done.from_dict((yield from call(context, progress, activity, run)))
        if done.ended:
            return done.ended, done.sentence
    progress.enter("evaluate")
    yield from call(context, progress, contracts.EVALUATE, run)
    progress.enter("gate")
    judged = Judged.from_dict((yield from call(context, progress, contracts.JUDGE, run)))
    progress.enter("register")
    yield from call(context, progress, contracts.REGISTER, run)
    progress.enter("promote")
    outcome, sentence = yield from _promotion(context, run, progress, judged)
    if context.version == WITHOUT_PICTURES:
        return outcome, sentence
    progress.enter("pictures")
    try:
        yield from call(context, progress, contracts.ILLUSTRATE, run)
    except Exception as exc:
        # What was decided stays so, whatever keeps it from being drawn.
        return outcome, contracts.sentence(f"{sentence} It has no pictures in the registry: {exc}")
    return outcome, sentence


def _promotion(
    context: DurableOrchestrationContext, run: RunRef, progress: Progress, judged: Judged
) -> Generator[Any, Any, tuple[str, str]]:
    """What becomes of the registered version: (outcome, sentence)."""
    if not judged.promote:
        return "kept", judged.sentence
    promoted = Done.from_dict((yield from call(context, progress, contracts.PROMOTE, run)))
    if promoted.ended:
        return promoted.ended, promoted.sentence
    try:
        yield from call(context, progress, contracts.ALIGN, run)
    except Exception as exc:
        # The model is live: a registry that is away for long may not make a failure of that.
        return "promoted", contracts.sentence(f"{judged.sentence} The registry's aliases are behind: {exc}")
    return "promoted", judged.sentence


def _wave(
    context: DurableOrchestrationContext,
    run: RunRef,
    progress: Progress,
    step: str,
    activity: str,
    work: Claimed | Fitted,
) -> Generator[Any, Any]:
    """Fans the work's items out in sub-orchestrations, and shows how many batches' items are done."""
    progress.enter(step, total=work.todo)
    sizes = [min(contracts.BATCH_SIZE, work.todo - number * contracts.BATCH_SIZE) for number in range(work.batches)]
    open_tasks = [
        context.call_sub_orchestrator(
            FAN_OUT, BatchRequest(activity, run.pipeline, run.run, number, size).to_dict(), expected_type=dict
        )
        for number, size in enumerate(sizes)
    ]
    while open_tasks:
        finished = yield context.task_any(open_tasks)
        open_tasks.remove(finished)
        answer = yield finished
        progress.worked(answer["seconds"], answer["executions"])
        progress.show(done=progress.done + answer["size"])
