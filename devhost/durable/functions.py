"""The app's durable functions by role, and how the task hub calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from devhost.durable.errors import InvalidAction
from devhost.protocol import Datum, FunctionInfo, Invocation, Invoker, Outcome

WORKER_LOST = ("WorkerDied", "NoWorker")
MAX_LOST = 10
"""How often a work item whose worker died is run again before it counts as what kills them."""

type Role = Literal["orchestrator", "activity", "entity"]
_TRIGGERS: Mapping[str, tuple[Role, str]] = {
    "orchestrationtrigger": ("orchestrator", "orchestration"),
    "activitytrigger": ("activity", "activity"),
    "entitytrigger": ("entity", "entityName"),
}


@dataclass(frozen=True, slots=True)
class _Function:
    """Where a durable function is, and what its trigger's parameter is called."""

    id: str
    parameter: str


class Functions:
    """Durable functions by role and name. Names ignore case."""

    def __init__(self, invoker: Invoker, functions: Sequence[FunctionInfo]) -> None:
        self._invoker = invoker
        self._by_role: dict[Role, dict[str, _Function]] = {"orchestrator": {}, "activity": {}, "entity": {}}
        for function in functions:
            trigger = function.trigger
            known = _TRIGGERS.get(str(trigger["type"]).lower())
            if known is not None:
                role, name_field = known
                name = str(trigger.get(name_field) or function.name).lower()
                self._by_role[role][name] = _Function(function.id, str(trigger["name"]))

    def knows(self, role: Role, name: str) -> bool:
        """Whether the app has such a function."""
        return name.lower() in self._by_role[role]

    def check(self, role: Role, name: str) -> None:
        """Raises InvalidAction when the app has no such function."""
        if not self.knows(role, name):
            names = ", ".join(repr(each) for each in self._by_role[role]) or "none"
            raise InvalidAction(
                f"The function '{name}' doesn't exist, is disabled, or is not an {role} function. Known {role} "
                f"functions: {names}."
            )

    async def call(self, role: Role, name: str, value: str, metadata: Mapping[str, Datum] | None = None) -> Outcome:
        """Calls a function; when a worker dies under it, again."""
        function = self._by_role[role][name.lower()]
        invocation = Invocation(function.id, [(function.parameter, ("string", value))], metadata or {}, redispatch=True)
        for _ in range(MAX_LOST):
            outcome = await self._invoker.invoke(invocation)
            if outcome.ok or not outcome.error.startswith(WORKER_LOST):
                break
        return outcome
