"""Output bindings: what a function has set or returned for a queue goes there once it has succeeded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from devhost.catalog import QUEUE, kind
from devhost.errors import BindingInvalid
from devhost.protocol import Datum, FunctionInfo, Invocation, Invoker, Outcome
from devhost.queue_client import Queue, encode
from devhost.settings import Settings
from devhost.storage import Storage, StorageRefused

RETURN = "$return"


@dataclass(frozen=True, slots=True)
class _Output:
    name: str
    queue: Queue


class WithOutputs:
    """An invoker that writes the outputs of what it invokes. An output that cannot be written fails the invocation."""

    def __init__(
        self, invoker: Invoker, functions: Sequence[FunctionInfo], settings: Settings, storage: Storage
    ) -> None:
        """Raises ConnectionInvalid, SettingMissing and BindingInvalid."""
        self._invoker = invoker
        self._base64_text = settings.queues.base64_text
        found = {function.id: _outputs(function, settings, storage) for function in functions}
        self._outputs: Mapping[str, list[_Output]] = {key: outputs for key, outputs in found.items() if outputs}

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Invokes, and writes the outputs when that went well. Never raises for a failing function."""
        outcome = await self._invoker.invoke(invocation)
        outputs = self._outputs.get(invocation.function_id)
        if outputs is None or not outcome.ok:
            return outcome
        values = dict(outcome.outputs)
        if outcome.value is not None:
            values[RETURN] = outcome.value
        try:
            for output in outputs:
                if output.name in values:
                    await self._write(output.queue, values[output.name])
        except (StorageRefused, aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            return Outcome(ok=False, error=f"{type(error).__name__}: output to the queue {output.queue.name}: {error}")
        written = any(output.name == RETURN for output in outputs)
        return outcome._replace(value=None) if written else outcome

    async def _write(self, queue: Queue, datum: Datum) -> None:
        texts = [encode(content, base64_text=self._base64_text) for content in messages(datum)]
        for text in texts:
            await queue.put(text)


def messages(datum: Datum) -> list[bytes | str]:
    """The messages that a value for a queue makes: of an array, and of a text that looks like one, each item.

    So it is in the cloud: https://github.com/Azure/azure-functions-python-worker/issues/1492.
    """
    datum_kind, value = datum
    if datum_kind == "bytes":
        return [bytes(value)]
    text = str(value)
    content: Any = None
    if text.lstrip().startswith("["):
        try:
            content = json.loads(text)
        except ValueError:
            return [text]
    if not isinstance(content, list):
        return [text]
    return [item if isinstance(item, str) else json.dumps(item) for item in content]


def _outputs(function: FunctionInfo, settings: Settings, storage: Storage) -> list[_Output]:
    outputs = []
    for binding in function.bindings:
        if kind(binding) != QUEUE:
            continue
        wanted_by = f"The queue output {binding['name']!r} of function {function.name}"
        account = storage.account(str(binding.get("connection") or ""), wanted_by=wanted_by)
        name = settings.resolve(str(binding["queueName"]), wanted_by=wanted_by)
        if "{" in name:
            raise BindingInvalid(
                wanted_by, f"its queue name {name!r} has a binding expression, which devhost does not do"
            )
        outputs.append(_Output(str(binding["name"]), Queue(storage, account, name.lower())))
    return outputs
