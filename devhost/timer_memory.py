"""What timers remember over a restart: when each ran last and is due next, in one small file of the state directory.

So a time that passed while the host was down is made up for at the next start, as the schedule monitor of the cloud's
host does with a blob.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

FILE = "timers.json"
_log = logging.getLogger("devhost.timers")


@dataclass(frozen=True, slots=True)
class Ticked:
    """Of one timer: the schedule that it had, when it last ran (None for never), and when it is due next."""

    expression: str
    last: datetime | None
    next: datetime


class TimerMemory(Protocol):
    """Remembers timers by their functions' names."""

    def recall(self, function: str) -> Ticked | None:
        """What is known of this timer."""
        ...

    def note(self, function: str, ticked: Ticked) -> None:
        """Remembers it from now on."""
        ...


class Forgetful:
    """Remembers nothing."""

    def recall(self, function: str) -> Ticked | None:
        """Nothing."""
        return None

    def note(self, function: str, ticked: Ticked) -> None:
        """Nothing."""


class TimerFile:
    """Keeps the timers in a file, which is always whole: a new one takes the old one's place."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._timers = _read(self._path)

    def recall(self, function: str) -> Ticked | None:
        """What the file says of this timer."""
        return self._timers.get(function)

    def note(self, function: str, ticked: Ticked) -> None:
        """Writes it. A full disk is told in the log and does not stop the timer."""
        self._timers[function] = ticked
        content = {
            name: {
                "schedule": known.expression,
                "last": None if known.last is None else known.last.isoformat(),
                "next": known.next.isoformat(),
            }
            for name, known in self._timers.items()
        }
        new = self._path.with_name(f"{FILE}.new")
        try:
            new.write_text(json.dumps(content, indent=2), encoding="utf-8")
            new.replace(self._path)
        except OSError as error:
            _log.warning("%s cannot be written (%s): a missed time may not be noticed", self._path, error)


def _read(path: Path) -> dict[str, Ticked]:
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {name: _ticked(known) for name, known in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("%s cannot be read (%s): times that were missed are not made up for", path, error)
        return {}


def _ticked(known: Mapping[str, Any]) -> Ticked:
    last = known["last"]
    return Ticked(
        str(known["schedule"]),
        None if last is None else datetime.fromisoformat(last),
        datetime.fromisoformat(known["next"]),
    )
