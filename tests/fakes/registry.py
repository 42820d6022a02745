"""The registry and the event publisher in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from adapters.events import EventsUnavailable, Notice
from adapters.registry import NoSuchVersion, RegistryAway, Submission


class MemoryRegistry:
    """Implements adapters.registry.Registry. With `away`, every call raises; `deleted` versions are not there."""

    def __init__(self) -> None:
        self.away = False
        self.versions: list[Submission] = []
        self.alias: dict[str, int] = {}
        self.tags: dict[tuple[int, str], str] = {}
        self.deleted: set[int] = set()
        self.pictures: dict[int, Mapping[str, bytes]] = {}
        self.measures: dict[tuple[int, str], float] = {}

    def register(self, submission: Submission, *, anew: bool = True) -> int:
        self._reach()
        for number, known in enumerate(self.versions, start=1):
            if known.key == submission.key:
                if anew and known.run != submission.run:
                    self._keep(number, submission)
                return number
        self.versions.append(submission)
        self._keep(len(self.versions), submission)
        return len(self.versions)

    def _keep(self, number: int, submission: Submission) -> None:
        self.versions[number - 1] = submission
        self.tags.update({(number, name): value for name, value in submission.tags.items()})

    def illustrate(self, pipeline: str, version: int, run: str, pictures: Callable[[], Mapping[str, bytes]]) -> None:
        self._reach(version)
        if self.versions[version - 1].run == run:
            self.pictures[version] = pictures()

    def measured(self, pipeline: str, version: int, metrics: Mapping[str, float], *, at: str) -> None:
        self._reach()
        self.measures.update({(version, name): value for name, value in metrics.items()})

    def aliases(self, pipeline: str) -> Mapping[str, int]:
        self._reach()
        return dict(self.alias)

    def set_alias(self, pipeline: str, alias: str, version: int) -> None:
        self._reach(version)
        self.alias[alias] = version

    def remove_alias(self, pipeline: str, alias: str) -> None:
        self._reach()
        self.alias.pop(alias, None)

    def knows(self, pipeline: str, version: int) -> bool:
        self._reach()
        return 0 < version <= len(self.versions) and version not in self.deleted

    def delete(self, version: int) -> None:
        """What somebody does in the registry's UI: the aliases that name the version go with it."""
        self.deleted.add(version)
        self.alias = {alias: named for alias, named in self.alias.items() if named != version}

    def tag(self, pipeline: str, version: int, name: str, value: str) -> None:
        self._reach(version)
        self.tags[version, name] = value

    def _reach(self, version: int = 0) -> None:
        if self.away:
            raise RegistryAway("the model registry cannot be used")
        if version in self.deleted:
            raise NoSuchVersion(f"there is no version {version}")


def at_once(work: Callable[[], None]) -> None:
    """Does what others leave to a thread of its own."""
    work()


class Listener:
    """Implements adapters.events.EventPublisher by remembering."""

    def __init__(self) -> None:
        self.away = False
        self.heard: list[Notice] = []

    def publish(self, notice: Notice) -> None:
        if self.away:
            raise EventsUnavailable("the topic cannot be used")
        self.heard.append(notice)
