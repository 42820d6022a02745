"""What a swap of the model costs the requests. `make bench-swap` prints the table.

Two really different models take turns as champion while wrk asks on 16 connections. Every answer is recorded and
checked: its probability has to be the one of the version that it names. A swap's window lasts from the pointer's write
to the first answer of the new version from the last process. No model stays in the local disk cache, so that every swap
downloads.

Many swaps take minutes, in which the machine itself may become slower or faster. So what they have left behind is also
looked for beside a control: a new host takes turns with theirs, under the same load and with swaps of its own.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from bench.load import Post
from bench.machine import machine
from bench.peers import tensors
from bench.recording import CONNECTIONS, Answer, Recording
from bench.report import Row, print_rows
from bench.serving import send
from bench.stack import Stack
from bench.trees import Trees, point, publish, rows, trees
from devhost.ports import free_ports
from devhost.supervisor import PartFailed, Supervisor

WORKERS = 2
SWAPS, TTL_SECONDS = 200, 1.0
MANY_SWAPS, SHORT_TTL_SECONDS = 1_000, 0.1
TURNS, SWAPS_IN_A_TURN = 10, 20
"""Of the host with many swaps behind it and of a new one."""
STEADY_SECONDS = 30.0
SETTLE_SECONDS = 3.0
"""Before anything counts: the first requests of a connection and of a session cost more."""
PATIENCE_SECONDS = 30.0
SEED = 7
PAGE_BYTES = 4096
ONE_OF_TWO_MODELS = {"RATCHET_CACHE_MEGABYTES": "1"}
"""Each has 0.6 MB, so the one that is not live does not stay on disk."""


@dataclass(slots=True)
class Swap:
    """`written` and `served` (by every process) in seconds since 1970; `rss` of every worker afterwards, in bytes."""

    written: float
    served: float
    rss: dict[int, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return self.served - self.written


@dataclass(slots=True)
class Course:
    """What came of a number of swaps. Without swaps until `steady_until`."""

    answers: list[Answer]
    errors: int
    steady: tuple[float, float]
    swaps: list[Swap]


@dataclass(frozen=True, slots=True)
class Host:
    """A running host: where it is, and the process ids of its workers."""

    stack: Stack
    workers: frozenset[int]


class Bench:
    """The stack with two models, under load."""

    def __init__(self, folder: Path, supervisor: Supervisor) -> None:
        self.folder, self.supervisor = folder, supervisor
        self.models = {1: trees((1, 2, 3)), 2: trees((6, 7, 8))}
        self.stack = Stack.on_free_ports(folder)
        self.supervisor.start(self.stack.azurite())
        self.blobs = self.stack.blobs()
        for version, model in self.models.items():
            publish(self.blobs, version, model)
        self.generation = self.courses = 0
        self.body = folder / "body"
        self.body.write_bytes(tensors(self.models[1], rows(1)))
        self.random = random.Random(SEED)  # noqa: S311 (spreads the writes over the TTL)

    @contextmanager
    def host(self, ttl_seconds: float, name: str = "Ratchet") -> Iterator[Host]:
        """A host with the first model live."""
        self.point(1)
        (port,) = free_ports(1)
        stack = replace(self.stack, folder=self.folder / name, port=port)
        part = stack.host(workers=WORKERS, ttl_seconds=ttl_seconds, more=ONE_OF_TWO_MODELS)
        self.supervisor.start(replace(part, name=name))
        status = json.loads(send(Post(f"{stack.url}/admin/host/status", b"")))
        yield Host(stack, frozenset(worker["pid"] for worker in status["workers"]))
        self.supervisor.stop(name)

    def point(self, version: int) -> float:
        """Makes a version the champion; when it was written."""
        self.generation += 1
        point(self.blobs, version, self.models[version], generation=self.generation)
        return time.time()

    def course(self, host: Host, swaps: int, ttl_seconds: float, steady: float, tell: Callable[[str], None]) -> Course:
        """Load on the host, without swaps for `steady` seconds and then with so many."""
        expected = {version: self._text(model) for version, model in self.models.items()}
        self.courses += 1
        folder = self.folder / f"records-{self.courses}"
        with Recording(host.stack.infer, self.body, folder, expected) as recording:
            time.sleep(SETTLE_SECONDS)
            begun = time.time()
            tell("steady load")
            time.sleep(steady)
            quiet = (begun, time.time())
            made = []
            for number in range(1, swaps + 1):
                tell(f"swap {number} of {swaps}")
                made.append(self._swap(recording, 1 + number % 2, host.workers))
                # The next write falls anywhere between two looks at the pointer.
                time.sleep(self.random.uniform(0, ttl_seconds))
        return Course(recording.answers, recording.errors, quiet, made)

    def turns(self, host: Host, tell: Callable[[str], None]) -> list[tuple[Course, Course]]:
        """Swaps of this host and of a new one, in turns."""
        found = []
        with self.host(SHORT_TTL_SECONDS, "control") as control:
            for number in range(1, TURNS + 1):
                tell(f"turn {number} of {TURNS}")
                old, new = (
                    self.course(each, SWAPS_IN_A_TURN, SHORT_TTL_SECONDS, 0.0, _silent) for each in (host, control)
                )
                found.append((old, new))
        return found

    def _swap(self, recording: Recording, version: int, workers: frozenset[int]) -> Swap:
        before = time.time()
        written = self.point(version)
        first = recording.until_served(version, workers, before, PATIENCE_SECONDS)
        return Swap(written, max(first.values()), {pid: _rss(pid) for pid in workers})

    def _text(self, model: Trees) -> str:
        """What an answer of this model has in it: its probabilities, to the last digit."""
        from serving.feeds import FeedReader
        from serving.session import Session

        found = Session(model.model).run(FeedReader(model.signature).from_records(rows(1)))
        return json.dumps(found.ravel().tolist(), separators=(",", ":")).strip("[]")


def _silent(_: str) -> None:
    """For a course that is one of many."""


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def in_windows(answers: Sequence[Answer], swaps: Sequence[Swap]) -> list[float]:
    """Milliseconds of the answers that were under way in a swap's window."""
    starts = [swap.written for swap in swaps]
    found = []
    for answer in answers:
        place = bisect_right(starts, answer.ended) - 1
        if place >= 0 and answer.asked <= swaps[place].served:
            found.append(answer.taken)
    return found


def under_load(course: Course) -> list[Row]:
    """The bars of the swaps under load."""
    wrong = sum(not answer.right for answer in course.answers)
    begun, ended = course.steady
    steady = percentile([a.taken for a in course.answers if begun <= a.asked <= ended], 0.999)
    swapping = percentile(in_windows(course.answers, course.swaps), 0.999)
    seconds = [swap.seconds for swap in course.swaps]
    middle, longest = statistics.median(seconds), max(seconds)
    what = f"{len(course.swaps)} swaps, {CONNECTIONS} connections, {WORKERS} processes"
    return [
        Row(f"{what}: errors", "0", f"{course.errors} of {len(course.answers):,}", course.errors == 0),
        Row("answers that mix versions, or are wrong", "0", str(wrong), wrong == 0),
        Row(
            "p99.9 in the swap windows, of steady state",
            "at most 2 times",
            f"{swapping / steady:.2f}  ({swapping:.1f} ms, {steady:.1f} ms)",
            swapping <= 2 * steady,
        ),
        Row("pointer written to every process serving it, median", "under 1 s", f"{middle:.2f} s", middle < 1),
        Row("the same, longest", "under TTL + 1 s = 2 s", f"{longest:.2f} s", longest < TTL_SECONDS + 1),
    ]


def over_time(course: Course) -> list[Row]:
    """The bars of many swaps: nothing grows from the second tenth to the last."""
    tenth = len(course.swaps) // 10
    early, late = course.swaps[tenth : 2 * tenth], course.swaps[-tenth:]
    growth = max(
        statistics.median(swap.rss[pid] for swap in late) / statistics.median(swap.rss[pid] for swap in early) - 1
        for pid in early[0].rss
    )
    megabytes = [max(swap.rss.values()) / 1e6 for swap in (early[0], late[-1])]
    tails = [percentile(_between(course.answers, part), 0.99) for part in (early, late)]
    wrong = sum(not answer.right for answer in course.answers) + course.errors
    what = f"{len(course.swaps):,} swaps (TTL {SHORT_TTL_SECONDS:g} s)"
    return [
        Row(f"{what}: errors or wrong answers", "0", f"{wrong} of {len(course.answers):,}", wrong == 0),
        Row(
            "RSS of a worker, last tenth of the swaps against the second",
            "within 5 %",
            f"{100 * growth:+.1f} %  ({megabytes[0]:.0f} MB, {megabytes[1]:.0f} MB)",
            growth <= 0.05,
        ),
        Row(
            "p99, the same tenths",
            "flat (within 25 %)",
            f"{tails[0]:.1f} ms, {tails[1]:.1f} ms",
            tails[1] <= 1.25 * tails[0],
        ),
    ]


def beside_a_control(turns: Sequence[tuple[Course, Course]]) -> list[Row]:
    """The bar of what many swaps leave behind: the control met the same machine in the same minutes."""
    tails = [tuple(percentile(_between(each.answers, each.swaps), 0.99) for each in turn) for turn in turns]
    ratio = statistics.median(old / new for old, new in tails)
    old, new = (statistics.median(of) for of in zip(*tails, strict=True))
    wrong = sum(sum(not answer.right for answer in each.answers) + each.errors for turn in turns for each in turn)
    return [
        Row(
            f"after them, p99 beside a new process's ({len(turns)} turns)",
            "at most 1.25 times",
            f"{ratio:.2f}  ({old:.1f} ms, {new:.1f} ms)",
            ratio <= 1.25 and not wrong,
        )
    ]


def _between(answers: Sequence[Answer], swaps: Sequence[Swap]) -> list[float]:
    return [answer.taken for answer in answers if swaps[0].written <= answer.asked <= swaps[-1].served]


def main() -> int:
    """Prints the table; 1 when a bar is missed."""
    console = Console(highlight=False, width=160)
    folder = Path(tempfile.mkdtemp(prefix="bench-swap-"))
    try:
        with console.status("training two models") as status, Supervisor(folder / "logs") as supervisor:
            bench = Bench(folder, supervisor)
            with bench.host(TTL_SECONDS) as host:
                lines = under_load(bench.course(host, SWAPS, TTL_SECONDS, STEADY_SECONDS, status.update))
            with bench.host(SHORT_TTL_SECONDS) as host:
                lines += over_time(bench.course(host, MANY_SWAPS, SHORT_TTL_SECONDS, 0.0, status.update))
                lines += beside_a_control(bench.turns(host, status.update))
        print_rows(console, lines)
        console.print(f"Load: wrk, every answer recorded. {machine()}")
        return 0 if all(line.held for line in lines) else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, PartFailed) as error:
        sys.exit(f"The benchmark could not be run: {error}")
