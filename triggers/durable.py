"""Orchestrators and activities, bound to their functions: one line each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import azure.durable_functions as df

from activities import contracts
from activities.contracts import Finish, ItemRef, RetrainRequest, RunRef
from activities.failures import step_failed
from models.errors import RatchetError
from orchestrations.retrain import FAN_OUT, RETRAIN, fan_out, retrain
from triggers import services

blueprint = df.Blueprint()

blueprint.orchestration_trigger(context_name="context", orchestration=RETRAIN)(retrain)
blueprint.orchestration_trigger(context_name="context", orchestration=FAN_OUT)(fan_out)


class PayloadTooLarge(RatchetError):
    """What crosses an activity's boundary stays in the history and is read at every replay: it has to be small."""

    def __init__(self, activity: str, size: int) -> None:
        super().__init__(f"{activity} was given or gave {size} bytes; at most {contracts.MAX_PAYLOAD_BYTES} may cross")
        self.activity, self.size = activity, size


class _Request(Protocol):
    @classmethod
    def from_dict(cls, data: Any) -> Any: ...


def _bind(name: str, request: type[_Request], module: str) -> None:
    """Registers `activities.{module}.{name}`. The module is imported at the first call: some are heavy.

    Its answer carries the seconds that it took; its errors say in their text whether trying again helps.
    """

    def activity(payload: dict) -> dict:  # type: ignore[type-arg]
        body: Callable[..., Any] = getattr(import_module(f"activities.{module}"), name)
        started = time.perf_counter()
        try:
            result: dict[str, Any] = body(request.from_dict(payload), services.dependencies()).to_dict()
        except RatchetError as exc:
            raise step_failed(exc) from exc
        answer = {"result": result, "seconds": round(time.perf_counter() - started, 3)}
        for crossing in (payload, answer):
            if (size := len(json.dumps(crossing))) > contracts.MAX_PAYLOAD_BYTES:
                raise step_failed(PayloadTooLarge(name, size))
        return answer

    activity.__name__ = name
    blueprint.activity_trigger(input_name="payload", activity=name)(activity)


_bind(contracts.LOOK, RetrainRequest, "uploads")
_bind(contracts.CLAIM, RunRef, "uploads")
_bind(contracts.VALIDATE, ItemRef, "validate")
_bind(contracts.FIT, RunRef, "fit")
_bind(contracts.TRANSFORM, ItemRef, "transform")
_bind(contracts.TRAIN, RunRef, "train")
_bind(contracts.EXPORT, RunRef, "export")
_bind(contracts.EVALUATE, RunRef, "evaluate")
_bind(contracts.JUDGE, RunRef, "judge")
_bind(contracts.REGISTER, RunRef, "register")
_bind(contracts.PROMOTE, RunRef, "promote")
_bind(contracts.ALIGN, RunRef, "promote")
_bind(contracts.ILLUSTRATE, RunRef, "illustrate")
_bind(contracts.SETTLE, Finish, "settle")
_bind(contracts.ABANDON, Finish, "settle")
