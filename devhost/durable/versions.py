"""Versions of orchestrations: which one a new instance gets, and which ones this host may run.

As extensions.durableTask of host.json says: defaultVersion, versionMatchStrategy (None, Strict or CurrentOrOlder) and
versionFailureStrategy (Reject or Fail). Without a defaultVersion every instance runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

type MatchStrategy = Literal["None", "Strict", "CurrentOrOlder"]
type FailureStrategy = Literal["Reject", "Fail"]

MATCH_STRATEGIES: tuple[MatchStrategy, ...] = ("None", "Strict", "CurrentOrOlder")
FAILURE_STRATEGIES: tuple[FailureStrategy, ...] = ("Reject", "Fail")
MISMATCH = "VersionMismatch: Orchestration version did not comply with Worker Versioning"
"""What an instance fails with that this host may not run, where the strategy is Fail."""

_NUMBERS = re.compile(r"\d+(\.\d+){1,3}")


@dataclass(frozen=True, slots=True)
class Versions:
    """`default` is the version of instances that are started without one."""

    default: str = ""
    match: MatchStrategy = "CurrentOrOlder"
    failure: FailureStrategy = "Reject"

    def admits(self, version: str) -> bool:
        """Whether this host may run an instance of that version."""
        if not self.default or self.match == "None":
            return True
        if self.match == "Strict":
            return version == self.default
        return not _newer(version, self.default)


def _newer(version: str, other: str) -> bool:
    """Compares as the Durable Task Framework does: no version is the oldest; by numbers where both have some."""
    if not version or not other:
        return bool(version)
    if _NUMBERS.fullmatch(version) and _NUMBERS.fullmatch(other):
        return _numbers(version) > _numbers(other)
    return version.lower() > other.lower()


def _numbers(version: str) -> list[int]:
    """A part that is not given is older than one that is zero, as in .NET's Version."""
    return [int(part) for part in version.split(".")]
