"""The app's functions, by name and by trigger, checked for bindings that this host knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from devhost.errors import BindingUnsupported
from devhost.protocol import FunctionInfo
from devhost.settings import Settings

HTTP = "httptrigger"
EVENT_GRID = "eventgridtrigger"
TIMER = "timertrigger"
WARMUP = "warmuptrigger"
BLOB_TRIGGER = "blobtrigger"
QUEUE_TRIGGER = "queuetrigger"
QUEUE = "queue"
DURABLE_CLIENT = "durableclient"
DURABLE = frozenset({"orchestrationtrigger", "activitytrigger", "entitytrigger", DURABLE_CLIENT})

SUPPORTED = (
    "httpTrigger",
    "http",
    "eventGridTrigger",
    "timerTrigger",
    "warmupTrigger",
    "blobTrigger",
    "queueTrigger",
    "queue",
    "activityTrigger",
    "orchestrationTrigger",
    "entityTrigger",
    "durableClient",
)
_SUPPORTED = frozenset(kind.lower() for kind in SUPPORTED)


def kind(binding: Mapping[str, Any]) -> str:
    """The binding's type in lower case, which is how types compare."""
    return str(binding["type"]).lower()


class Catalog:
    """The functions in service: those of the app without the disabled ones."""

    def __init__(self, functions: Iterable[FunctionInfo], settings: Settings) -> None:
        """Raises BindingUnsupported."""
        self.functions = tuple(f for f in functions if not settings.is_disabled(f.name))
        for function in self.functions:
            _check(function)
        self._by_name = {function.name.lower(): function for function in self.functions}

    def find(self, name: str) -> FunctionInfo | None:
        """The function of that name; names ignore case."""
        return self._by_name.get(name.lower())

    def triggered_by(self, trigger: str) -> list[FunctionInfo]:
        """The functions with this kind of trigger, such as TIMER."""
        return [function for function in self.functions if kind(function.trigger) == trigger]

    @property
    def durable(self) -> bool:
        """Whether any function needs the durable engine."""
        return any(kind(binding) in DURABLE for function in self.functions for binding in function.bindings)


def _check(function: FunctionInfo) -> None:
    for binding in function.bindings:
        if kind(binding) not in _SUPPORTED:
            raise BindingUnsupported(function.name, str(binding.get("name")), str(binding["type"]), SUPPORTED)
