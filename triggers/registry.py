"""Who may move the champion besides a run: a person by API, the registry's alias by webhook and timer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import azure.functions as func

from activities.reconcile import Reconciled, reconcile
from activities.rollback import rollback
from activities.waiting import decide, tend
from adapters import mlflow_webhook
from adapters.events import EventsUnavailable
from adapters.mlflow_webhook import WebhookRefused
from adapters.registry import CHAMPION, RegistryAway, RegistryError
from models.errors import RatchetError
from triggers import services
from triggers.admin import AdminBlueprint
from triggers.answers import BadRequest, answer_json, answering, known_pipeline, read_object

blueprint = AdminBlueprint()
log = logging.getLogger("ratchet.registry")

MAX_WHY_CHARACTERS = 500
IN_LINE_SECONDS = 0.5
"""How long an answer waits for the registry to follow. It is about the champion, which storage has changed by then; a
registry that is away may take a minute to be known as such."""
_following: dict[str, asyncio.Task[None]] = {}
"""By pipeline, the latest work that goes on behind an answer: the event loop itself would forget it."""


@blueprint.function_name("reconcile")
@blueprint.timer_trigger(arg_name="timer", schedule="%RATCHET_RECONCILE_SCHEDULE%", run_on_startup=False)
def reconcile_all(timer: func.TimerRequest) -> None:
    """Waiting challengers and events on their way, and then wish and fact in line, for each pipeline.

    Raises an ExceptionGroup with what went wrong, after all were seen to. A registry or a topic that is away is no
    error here: the next time is soon. What needs storage alone comes first, and a registry that hangs is waited for
    once.
    """
    errors: list[Exception] = []
    names, to = services.specs().names(), services.dependencies()
    due: list[Callable[[], object]] = [partial(tend, name, to) for name in names]
    due += [_see_to_mail, partial(_see_to_aliases, names, errors)]
    for work in due:
        try:
            work()
        except Exception as exc:
            errors.append(exc)
    if errors:
        raise ExceptionGroup("the reconciler could not see to everything", errors)


def _see_to_aliases(names: Sequence[str], errors: list[Exception]) -> None:
    for name in names:
        try:
            see_to(name)
        except RegistryAway as exc:
            log.warning("%s and what comes after it: the registry's aliases were not looked at: %s", name, exc)
            return
        except Exception as exc:
            errors.append(exc)


def see_to(pipeline: str) -> None:
    """Wish and fact of one pipeline. Raises RegistryAway, PointerMoved and what storage raises."""
    try:
        done = reconcile(pipeline, services.dependencies())
    except RegistryAway:
        raise
    except RegistryError as exc:
        log.warning("%s: the registry's aliases were not looked at: %s", pipeline, exc)
        return
    if done.outcome not in {"in line", "no champion"}:
        log.warning("%s: %s", pipeline, done.sentence)


def _see_to_mail() -> None:
    mlflow_webhook.forget(services.blobs(), now=time.time())
    outbox = services.outbox()
    if outbox is not None:
        try:
            outbox.flush()
        except EventsUnavailable as exc:
            log.warning("events wait in the outbox: %s", exc)


@blueprint.function_name("mlflow_webhook")
@blueprint.route("api/mlflow/webhook", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@answering
async def on_webhook(req: func.HttpRequest) -> func.HttpResponse:
    """MLflow tells that an alias was moved. The signature is the key; the registry itself is asked what is so."""
    secret = services.settings().webhook_secret
    if secret is None:
        raise WebhookRefused("no webhook is expected: RATCHET_MLFLOW_WEBHOOK_SECRET is not set")
    headers, body = {name.lower(): value for name, value in req.headers.items()}, req.get_body()
    delivery = mlflow_webhook.verified(headers, body, secret=secret, now=time.time())
    change = mlflow_webhook.alias_change(body)
    if change is None or change.alias != CHAMPION or change.pipeline not in services.specs().names():
        return answer_json({"outcome": "ignored"})
    return answer_json(await asyncio.to_thread(_follow, change.pipeline, delivery))


def _follow(pipeline: str, delivery: str) -> dict[str, Any]:
    log.info("%s: a webhook says that the alias was moved", pipeline)
    mlflow_webhook.remember(services.blobs(), delivery)
    try:
        done = _reconciled(pipeline)
    except Exception as exc:
        log.warning("%s: the webhook came to nothing and is awaited again: %s", pipeline, exc)
        mlflow_webhook.give_back(services.blobs(), delivery)
        raise
    _swap_here(pipeline)
    return {"pipeline": pipeline, **asdict(done)}


def _reconciled(pipeline: str) -> Reconciled:
    began = time.monotonic()
    done = reconcile(pipeline, services.dependencies())
    log.info("%s: reconciled in %.2f s: %s", pipeline, time.monotonic() - began, done.sentence)
    return done


@blueprint.function_name("rollback")
@blueprint.route("api/pipelines/{pipeline}/rollback", methods=["POST"])
@answering
async def roll_back(req: func.HttpRequest) -> func.HttpResponse:
    """Back to the version before, or to `version`; `who` and `why` are kept. Needs storage alone."""
    pipeline, given = known_pipeline(req), read_object(req)
    version = given.get("version")
    if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
        raise BadRequest("version is a whole number, or left out for the version before")
    who, why = _text(given, "who", "somebody"), _text(given, "why", "no reason was given")
    pointer = await asyncio.to_thread(rollback, pipeline, version, who=who, why=why, to=services.dependencies())
    await _in_line(pipeline)
    return answer_json({"pipeline": pipeline, "version": pointer.champion.version, "generation": pointer.generation})


@blueprint.function_name("answer_approval")
@blueprint.route("api/pipelines/{pipeline}/approvals/{id}", methods=["POST"])
@answering
async def answer_approval(req: func.HttpRequest) -> func.HttpResponse:
    """`{"decision": "approve" | "reject", "who": ..., "why": ...}` for a challenger that waits."""
    pipeline, given = known_pipeline(req), read_object(req)
    decision = given.get("decision")
    if decision not in {"approve", "reject"}:
        raise BadRequest('decision is "approve" or "reject"')
    if not given.get("who"):
        raise BadRequest("who is missing: the decision is kept with the name of whoever made it")
    who, why = _text(given, "who", ""), _text(given, "why", "")
    done = await asyncio.to_thread(
        decide, pipeline, req.route_params["id"], decision, who=who, why=why, to=services.dependencies()
    )
    await _in_line(pipeline)
    return answer_json(asdict(done), status=200 if done.outcome != "refused" else 409)


async def _in_line(pipeline: str) -> None:
    """The registry follows at once when it can; when it is away, the reconciler sees to it."""
    task = asyncio.create_task(_follow_up(pipeline, _following.get(pipeline)))
    _following[pipeline] = task
    await asyncio.wait({task}, timeout=IN_LINE_SECONDS)


async def _follow_up(pipeline: str, former: asyncio.Task[None] | None) -> None:
    await asyncio.to_thread(_swap_here, pipeline)
    if former is not None and not former.done():
        # While the registry is away each of them takes long, and together they would take all threads.
        await asyncio.wait({former})
    await asyncio.to_thread(_align, pipeline)


def _align(pipeline: str) -> None:
    try:
        _reconciled(pipeline)
    except RatchetError as exc:
        log.warning("%s: the aliases will follow later: %s", pipeline, exc)


def _swap_here(pipeline: str) -> None:
    """This process need not wait until it looks at the pointer again; the others do within its TTL."""
    service = services.inference_if_there()
    if service is not None:
        service.warm((pipeline,))


def _text(given: Mapping[str, Any], name: str, default: str) -> str:
    value = given.get(name, default)
    if not isinstance(value, str) or len(value) > MAX_WHY_CHARACTERS:
        raise BadRequest(f"{name} is a text of at most {MAX_WHY_CHARACTERS} characters")
    return value
