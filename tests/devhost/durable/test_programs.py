"""Random orchestration programs: what the engine makes of them under the real SDK is what they read like.

A program is a small tree of steps. `_run` is an orchestrator that does what the tree says; `Reading` reads the same
tree in plain Python. Left out is only what the SDK and the Durable extension number differently on any host: a
`task_all` that fails while another of its parts still has retries to come.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import azure.durable_functions as df
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from devhost.durable.history import FINISHED
from tests.devhost.durable.sdk import SECONDS, App, Hub, hub

pytestmark = [
    # The SDK asks for the types of inputs; these programs take whatever comes.
    pytest.mark.filterwarnings("ignore:azure.functions df_loads was called without expected_type"),
    # What it says of an event that comes before the orchestrator waits for it.
    pytest.mark.filterwarnings("ignore:Potential duplicate Task completion"),
]
type Steps = Generator[Any, Any, Any]

CAUGHT = "caught"
PAUSED = "paused"
ALWAYS = 1000
"""More failures than any program has attempts."""


# What a program is made of.


@dataclass(frozen=True)
class Double:
    """An activity that succeeds."""

    number: int


@dataclass(frozen=True)
class Flaky:
    """An activity whose first `failures` runs fail. More than one attempt means a retry policy."""

    failures: int
    attempts: int


@dataclass(frozen=True)
class Pause:
    """A timer."""

    milliseconds: int


@dataclass(frozen=True)
class All:
    """task_all."""

    parts: tuple[Step, ...]


@dataclass(frozen=True)
class First:
    """task_any: the result is that of one of the parts."""

    parts: tuple[Step, ...]


@dataclass(frozen=True)
class Hear:
    """An external event; `early` ones are raised as soon as the instance exists, others once they are waited for."""

    early: bool


@dataclass(frozen=True)
class Deadline:
    """An event against a timer: answered in time (the timer is cancelled), or never."""

    answered: bool


@dataclass(frozen=True)
class Add:
    """An operation of the counter entity `key`: called for its new value, or signalled."""

    key: str
    number: int
    signal: bool


@dataclass(frozen=True)
class Refuse:
    """A call of the counter entity that fails."""

    key: str


@dataclass(frozen=True)
class Say:
    """A custom status."""

    text: str


@dataclass(frozen=True)
class Raise:
    """The orchestrator's own exception."""


@dataclass(frozen=True)
class Try:
    """try / except around steps."""

    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Child:
    """A sub-orchestration. More than one attempt means a retry policy."""

    steps: tuple[Step, ...]
    attempts: int


type Step = Double | Flaky | Pause | All | First | Hear | Deadline | Add | Refuse | Say | Raise | Try | Child


@dataclass(frozen=True)
class Program:
    """Steps, run once per generation: between generations the orchestrator continues as new."""

    steps: tuple[Step, ...]
    generations: int


# How programs are drawn.


def _tuples(steps: st.SearchStrategy[Step], *, least: int = 1, most: int = 3) -> st.SearchStrategy[tuple[Step, ...]]:
    return st.lists(steps, min_size=least, max_size=most).map(tuple)


DOUBLES = st.builds(Double, st.integers(-5, 5))
PAUSES = st.builds(Pause, st.integers(0, 20))
RETRIED = st.builds(lambda failures, spare: Flaky(failures, failures + spare), st.integers(0, 2), st.integers(1, 2))
"""Succeeds in the end."""
BROKEN = st.builds(Flaky, st.sampled_from([1, 2, ALWAYS]), st.just(1))
"""Fails, with no retries."""
HOPELESS = st.builds(Flaky, st.just(ALWAYS), st.integers(1, 3))
HEARD = st.builds(Hear, st.booleans())


def _nested(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    return st.one_of(
        st.builds(All, _tuples(steps)), st.builds(First, _tuples(steps)), st.builds(Child, _tuples(steps), st.just(1))
    )


RACERS = st.recursive(st.one_of(DOUBLES, PAUSES), _nested, max_leaves=5)
"""May be left behind by others: no retries, no failures."""
FANS = st.recursive(
    st.builds(All, _tuples(st.one_of(RACERS, RETRIED, HEARD), least=0, most=4)),
    lambda inner: st.builds(All, _tuples(st.one_of(inner, RETRIED, HEARD))),
    max_leaves=4,
)
FAILING_FANS = st.builds(All, _tuples(st.one_of(BROKEN, RACERS, HEARD), most=4))
KEYS = st.sampled_from(["a", "b"])
ENTITIES = st.one_of(st.builds(Add, KEYS, st.integers(-3, 3), st.booleans()), st.builds(Refuse, KEYS))
PLAIN = st.one_of(
    DOUBLES,
    PAUSES,
    RETRIED,
    BROKEN,
    HOPELESS,
    ENTITIES,
    st.builds(Say, st.text(min_size=1, max_size=3)),
    st.builds(Raise),
    RACERS,
    st.builds(Deadline, st.just(False)),
)


def _composed(steps: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    return st.one_of(st.builds(Try, _tuples(steps)), st.builds(Child, _tuples(steps), st.integers(1, 3)))


CHILDREN = st.recursive(PLAIN, _composed, max_leaves=5)
"""Steps of any orchestrator; only the outermost one hears events, because its id is known."""
STEPS = st.recursive(
    st.one_of(CHILDREN, FANS, FAILING_FANS, HEARD, st.builds(Deadline, st.booleans())),
    lambda inner: st.builds(Try, _tuples(inner)),
    max_leaves=6,
)
GENERATIONS = st.sampled_from([1, 2, 3])
PROGRAMS = st.one_of(
    st.builds(Program, _tuples(STEPS, most=5), GENERATIONS),
    st.builds(Program, _tuples(st.one_of(PLAIN, FANS, FAILING_FANS, HEARD), most=5), GENERATIONS),
)
"""Deep ones, most of which catch their failures, and flat ones, many of which do not."""


# How they read.


class Failure(Exception):
    """A step has failed."""


@dataclass(frozen=True)
class OneOf:
    """Any of these will do."""

    options: tuple[Any, ...]


def matches(expected: Any, found: Any) -> bool:
    if isinstance(expected, OneOf):
        return any(matches(option, found) for option in expected.options)
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(matches(*pair) for pair in zip(expected, found, strict=True))
        )
    return bool(expected == found)


@dataclass
class Reading:
    """A plain reading of a program: what comes out, the custom status, and the entities' states."""

    tries: Counter[str] = field(default_factory=Counter)
    counters: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    said: str | None = None

    def read(self, program: Program) -> tuple[str, Any]:
        """(status, output)."""
        results: list[Any] = []
        try:
            for generation in range(program.generations):
                results = self._all(program.steps, str(generation), "")
        except Failure:
            return "Failed", None
        return "Completed", results

    def _all(self, steps: Sequence[Step], generation: str, path: str) -> list[Any]:
        return [self._step(step, generation, f"{path}.{index}") for index, step in enumerate(steps)]

    def _step(self, step: Step, generation: str, path: str) -> Any:
        match step:
            case Double(number):
                return number * 2
            case Flaky(failures, attempts):
                return self._flaky(path, failures, attempts)
            case Pause() | Deadline(False):
                return PAUSED
            case Hear() | Deadline():
                return f"{path}@{generation}"
            case All(parts):
                return self._fan(parts, generation, path)
            case First(parts):
                return OneOf(tuple(self._all(parts, generation, path)))
            case Add(key, number, signal):
                self.counters[key] += number
                return None if signal else self.counters[key]
            case Say(text):
                self.said = text
                return None
            case Try(steps):
                try:
                    return self._all(steps, generation, path)
                except Failure:
                    return CAUGHT
            case Child(steps, attempts):
                return self._child(steps, attempts, path)
            case Refuse() | Raise():
                raise Failure

    def _flaky(self, path: str, failures: int, attempts: int) -> str:
        for _ in range(attempts):
            self.tries[path] += 1
            if self.tries[path] > failures:
                return path
        raise Failure

    def _fan(self, parts: Sequence[Step], generation: str, path: str) -> list[Any]:
        """A part that fails does not stop the others."""
        results, failed = [], False
        for index, part in enumerate(parts):
            try:
                results.append(self._step(part, generation, f"{path}.{index}"))
            except Failure:
                failed = True
        if failed:
            raise Failure
        return results

    def _child(self, steps: Sequence[Step], attempts: int, path: str) -> list[Any]:
        said = self.said
        for _ in range(attempts):
            try:
                return self._all(steps, "child", path)
            except Failure:
                continue
            finally:
                self.said = said  # a child's status is its own
        raise Failure


# How they run.


@dataclass
class World:
    """What the steps of a running program have to do with."""

    tries: Counter[str] = field(default_factory=Counter)
    children: dict[str, Child] = field(default_factory=dict)
    awaited: list[tuple[str, str]] = field(default_factory=list)
    """Events (name, data) that the program waits for and that are not early."""


def _retry(attempts: int) -> df.RetryOptions:
    return df.RetryOptions(first_retry_interval_in_milliseconds=1, max_number_of_attempts=attempts)


@dataclass(frozen=True)
class Interpreter:
    """Does in one execution of an orchestrator what steps say."""

    world: World
    context: Any
    generation: str

    def run(self, steps: Sequence[Step], path: str) -> Steps:
        results = []
        for index, step in enumerate(steps):
            results.append((yield from self._step(step, f"{path}.{index}")))
        return results

    def _step(self, step: Step, path: str) -> Steps:
        match step:
            case Say(text):
                self.context.set_custom_status(text)
            case Raise():
                raise RuntimeError(path)
            case Add(key, number, signal) if signal:
                self.context.signal_entity(df.EntityId("counter", key), "add", number)
            case Add(key, number):
                return (yield self.context.call_entity(df.EntityId("counter", key), "add", number))
            case Refuse(key):
                yield self.context.call_entity(df.EntityId("counter", key), "refuse")
            case Try(steps):
                try:
                    return (yield from self.run(steps, path))
                except Exception:
                    return CAUGHT
            case Deadline(answered):
                return (yield from self._deadline(path, answered=answered))
            case Double() | Flaky() | Pause() | All() | First() | Hear() | Child():
                task = self._task(step, path)
                yield task
                return _result(step, task)
        return None

    def _deadline(self, path: str, *, answered: bool) -> Steps:
        answer = self._event(path, early=not answered)
        wait = timedelta(hours=1) if answered else timedelta(milliseconds=5)
        timer = self.context.create_timer(self.context.current_utc_datetime + wait)
        winner = yield self.context.task_any([answer, timer])
        if winner is timer:
            return PAUSED
        timer.cancel()
        return answer.result

    def _task(self, step: Step, path: str) -> Any:
        context = self.context
        match step:
            case Double(number):
                return context.call_activity("double", number)
            case Flaky(failures, 1):
                return context.call_activity("flaky", [path, failures])
            case Flaky(failures, attempts):
                return context.call_activity_with_retry("flaky", _retry(attempts), [path, failures])
            case Pause(milliseconds):
                return context.create_timer(context.current_utc_datetime + timedelta(milliseconds=milliseconds))
            case All(parts):
                return context.task_all([self._task(part, f"{path}.{n}") for n, part in enumerate(parts)])
            case First(parts):
                return context.task_any([self._task(part, f"{path}.{n}") for n, part in enumerate(parts)])
            case Hear(early):
                return self._event(path, early=early and self.generation == "0")
            case Child(_, attempts):
                self.world.children[path] = step
                if attempts == 1:
                    return context.call_sub_orchestrator("child", path)
                return context.call_sub_orchestrator_with_retry("child", _retry(attempts), path)
        raise AssertionError(step)

    def _event(self, path: str, *, early: bool) -> Any:
        wanted = (path, f"{path}@{self.generation}")
        if not early and wanted not in self.world.awaited:
            self.world.awaited.append(wanted)
        return self.context.wait_for_external_event(path)


def _result(step: Step, task: Any) -> Any:
    """A finished task's result; the SDK gives task_any's as the task that won."""
    match step:
        case All(parts):
            return [_result(part, each) for part, each in zip(parts, task.children, strict=True)]
        case First(parts):
            won = next(n for n, each in enumerate(task.children) if each is task.result)
            return _result(parts[won], task.result)
        case Pause():
            return PAUSED
    return task.result


def _app(program: Program, world: World) -> App:
    app = App()

    @app.activity
    def double(number: Any) -> Any:
        return number * 2

    @app.activity
    def flaky(request: Any) -> Any:
        path, failures = request
        world.tries[path] += 1
        if world.tries[path] <= failures:
            raise OSError(path)
        return path

    @app.entity
    def counter(context: Any) -> None:
        if context.operation_name == "refuse":
            raise ValueError("refused")
        value = context.get_state(lambda: 0) + context.get_input()
        context.set_state(value)
        context.set_result(value)

    @app.orchestrator
    def child(context: Any) -> Steps:
        path = context.get_input()
        return (yield from Interpreter(world, context, "child").run(world.children[path].steps, path))

    @app.orchestrator
    def main(context: Any) -> Steps:
        generation = context.get_input()
        results = yield from Interpreter(world, context, str(generation)).run(program.steps, "")
        if generation + 1 < program.generations:
            context.continue_as_new(generation + 1)
            return None
        return results

    return app


def _early(steps: Sequence[Step], path: str = "") -> Generator[str]:
    for index, step in enumerate(steps):
        here = f"{path}.{index}"
        match step:
            case Hear(True):
                yield here
            case All(parts) | Try(parts):
                yield from _early(parts, here)


async def _drive(running: Hub, program: Program, world: World) -> Any:
    """Starts the program and raises its events; the status that it ends with."""
    await running.start("main", 0)
    for path in _early(program.steps):
        await running.ask("POST", f"instances/one/raiseEvent/{path}", f"{path}@0")
    raised = 0
    async with asyncio.timeout(SECONDS):
        while (there := await running.status())["runtimeStatus"] not in FINISHED:
            for name, data in world.awaited[raised:]:
                await running.ask("POST", f"instances/one/raiseEvent/{name}", data)
                raised += 1
            await asyncio.sleep(0.001)
    return there


async def _settled(running: Hub, counters: Mapping[str, int]) -> None:
    """Waits until the entities have their last signals too."""
    async with asyncio.timeout(SECONDS):
        for key, value in counters.items():
            while True:
                if await running.ask("GET", f"entities/counter/{key}") == (200, value):
                    break
                await asyncio.sleep(0.001)


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(program=PROGRAMS)
async def test_programs_come_out_as_they_read(program: Program, tmp_path_factory: pytest.TempPathFactory) -> None:
    reading, world = Reading(), World()
    status, output = reading.read(program)
    event(f"{status}, {program.generations} generations")
    async with hub(_app(program, world), tmp_path_factory.mktemp("hub") / "hub.db") as running:
        there = await _drive(running, program, world)
        await _settled(running, reading.counters)
    assert (there["runtimeStatus"], there["customStatus"]) == (status, reading.said), there
    if status == "Completed":
        assert matches(output, there["output"]), (output, there["output"])
