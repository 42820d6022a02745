"""The registry and the event publisher in memory."""

from __future__ import annotations

from adapters.events import EventsUnavailable, Notice
from adapters.registry import RegistryError, Submission


class MemoryRegistry:
    """Implements adapters.registry.Registry. With `away`, every call raises."""

    def __init__(self) -> None:
        self.away = False
        self.versions: list[Submission] = []
        self.aliases: dict[str, int] = {}

    def register(self, submission: Submission) -> int:
        self._reach()
        for number, known in enumerate(self.versions, start=1):
            if known.key == submission.key:
                return number
        self.versions.append(submission)
        return len(self.versions)

    def set_alias(self, pipeline: str, alias: str, version: int) -> None:
        self._reach()
        self.aliases[alias] = version

    def _reach(self) -> None:
        if self.away:
            raise RegistryError("the model registry cannot be used")


class Listener:
    """Implements adapters.events.EventPublisher by remembering."""

    def __init__(self) -> None:
        self.away = False
        self.heard: list[Notice] = []

    def publish(self, notice: Notice) -> None:
        if self.away:
            raise EventsUnavailable("the topic cannot be used")
        self.heard.append(notice)
