"""Which scenarios there are: a plan that a seed and a number make, the same every time."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bench.chaos.proxy import FAULTS, Fault

Family = Literal["none", "storage", "outage", "events", "boundary", "kill", "registry", "clock", "two hosts", "all"]
Victim = Literal["workers", "host"]

FAMILIES: Mapping[Family, int] = {
    "none": 5,
    "storage": 70,
    "outage": 10,
    "events": 45,
    "boundary": 22,
    "kill": 8,
    "registry": 20,
    "clock": 10,
    "two hosts": 10,
    "all": 6,
}
"""How many scenarios of each family 206 hold; another number is shared out in these parts."""

BOUNDARIES: Mapping[str, str] = {
    "claim": "/steps/[^/]+/plan.json",
    "validate": "/outcomes/",
    "profile": "/steps/[^/]+/dataset.json",
    "features": "/matrices/",
    "train": "/steps/[^/]+/training.json",
    "export": "/steps/[^/]+/export.json",
    "evaluate": "/steps/[^/]+/evaluation.json",
    "gate": "/steps/[^/]+/decision.json",
    "register": "/steps/[^/]+/version.json",
    "promote": "/live.json",
    "settle": "/runs/",
}
"""The last write of each step, as a pattern of its request line: the boundary to the next step."""

EVENT_FAULTS = ("duplicate=0.5", "delay=0.3:1s", "reorder=0.3", "drop=0.3")
SKEWS = (-10_800, -420, 420, 10_800)
"""Seconds by which the app's clock is wrong: minutes, as a machine that lost its time server; hours, as one that never
had one."""


COMPANY = 10
"""Scenarios of a group."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One pipeline's life under faults. What is not named is fair."""

    number: int
    family: Family
    seed: int
    storage: Mapping[Fault, float] = field(default_factory=dict)
    registry: Mapping[Fault, float] = field(default_factory=dict)
    storage_down: float = 0.0
    registry_down: float = 0.0
    """Seconds."""
    boundary: str = ""
    after: bool = False
    victim: Victim | None = None
    kills: tuple[float, ...] = ()
    """When the victim is killed, in seconds after the first upload."""
    events: bool = False
    skew: int = 0
    two_hosts: bool = False

    @property
    def pipeline(self) -> str:
        return f"chaos-{self.number:04d}"

    @property
    def alone(self) -> bool:
        """Whether it breaks the stack for everybody. The others share one: their faults hit their own requests."""
        return bool(self.kills or self.boundary or self.storage_down or self.registry or self.registry_down)

    @property
    def setting(self) -> tuple[int, bool, bool]:
        """What the stack has to be restarted for: scenarios of one setting follow each other, the plain ones first."""
        return (abs(self.skew) * 2 + (self.skew < 0), self.two_hosts, self.events)


def plan(count: int, *, seed: int, only: Family | None = None) -> list[Scenario]:
    """`count` scenarios, shared out over the families (or all of one), by setting."""
    shares = {only: count} if only is not None else _shares(count)
    scenarios: list[Scenario] = []
    for family, number in shares.items():
        for index in range(number):
            scenarios.append(_scenario(len(scenarios) + 1, family, index, seed))
    return sorted(scenarios, key=lambda scenario: (scenario.setting, scenario.number))


def sample() -> Scenario:
    """One that needs no process started anew but the local Event Grid's: every fault of storage, registry and events.

    Its seed makes uploads of every kind, which come together: one run has them all, if events come in time.
    """
    return Scenario(
        9001,
        "all",
        286,
        storage=dict.fromkeys(FAULTS, 0.004),
        registry=dict.fromkeys((kind for kind in FAULTS if kind != "hang"), 0.01),
        events=True,
    )


def companies(scenarios: Sequence[Scenario]) -> list[list[Scenario]]:
    """The scenarios in groups that one stack plays at a time, by setting: those that have to be alone, are."""
    groups: list[list[Scenario]] = []
    for scenario in sorted(scenarios, key=lambda scenario: (scenario.setting, scenario.alone, scenario.number)):
        last = groups[-1] if groups else []
        if not last or scenario.alone or len(last) == COMPANY or last[0].setting != scenario.setting:
            groups.append([scenario])
        else:
            last.append(scenario)
    return groups


def _shares(count: int) -> dict[Family, int]:
    """Every family at least once, the rest in the table's parts (largest remainder)."""
    total = sum(FAMILIES.values())
    exact = {family: count * share / total for family, share in FAMILIES.items()}
    shares = {family: max(1, int(value)) for family, value in exact.items()}
    for family in sorted(exact, key=lambda family: int(exact[family]) - exact[family]):
        if sum(shares.values()) < count:
            shares[family] += 1
    return shares


def _scenario(number: int, family: Family, index: int, seed: int) -> Scenario:
    own = seed * 100_003 + number
    rng = random.Random(own)  # noqa: S311 (a seed makes it repeatable)
    scenario = Scenario(number, family, own)
    changes: dict[Family, Callable[[], dict[str, Any]]] = {
        "none": dict,
        "storage": lambda: {"storage": _shares_of_faults(rng, index)},
        "outage": lambda: {"storage_down": rng.choice((3.0, 6.0, 12.0))},
        "events": lambda: {"events": True},
        "boundary": lambda: _boundary(index),
        "kill": lambda: {"victim": _victim(index), "kills": _moments(rng)},
        "registry": lambda: _registry(rng, index),
        "clock": lambda: {"skew": SKEWS[index % len(SKEWS)]},
        "two hosts": lambda: {"two_hosts": True, "storage": _mild(rng) if index % 2 else {}},
        "all": lambda: {
            "storage": _mild(rng),
            "registry": _mild(rng),
            "events": True,
            "victim": _victim(index),
            "kills": _moments(rng)[:1],
        },
    }
    return replace(scenario, **changes[family]())


def _shares_of_faults(rng: random.Random, index: int) -> dict[Fault, float]:
    """One kind alone in turn, then mixtures."""
    if index % 2 == 0:
        kind = FAULTS[(index // 2) % len(FAULTS)]
        return {kind: 0.04 if kind == "hang" else rng.choice((0.05, 0.1, 0.15))}
    return {kind: rng.uniform(0.0, 0.005 if kind == "hang" else 0.03) for kind in FAULTS}


def _mild(rng: random.Random) -> dict[Fault, float]:
    return {kind: rng.uniform(0.0, 0.015) for kind in FAULTS if kind != "hang"}


def _boundary(index: int) -> dict[str, Any]:
    """Every boundary twice: the workers die before the write has arrived, the whole host after it."""
    names = list(BOUNDARIES)
    host = index // len(names) % 2 == 1
    return {"boundary": names[index % len(names)], "after": host, "victim": "host" if host else "workers"}


def _victim(index: int) -> Victim:
    return "host" if index % 3 == 0 else "workers"


def _moments(rng: random.Random) -> tuple[float, ...]:
    return tuple(sorted(rng.uniform(0.1, 2.5) for _ in range(rng.randint(1, 3))))


def _registry(rng: random.Random, index: int) -> dict[str, Any]:
    if index == 0:
        return {"registry_down": 60.0}
    if index % 4 == 1:
        return {"registry_down": rng.choice((5.0, 10.0))}
    kinds: tuple[Fault, ...] = tuple(kind for kind in FAULTS if kind != "hang")
    return {"registry": {kind: rng.uniform(0.0, 0.08) for kind in kinds}}
