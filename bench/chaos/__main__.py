"""`make chaos`: plays the scenarios and prints, by family, what was injected and what was lost."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

from rich.console import Console
from rich.table import Table

from bench.chaos.arena import arena
from bench.chaos.customer import Customer
from bench.chaos.game import Game, Result
from bench.chaos.scenarios import FAMILIES, Scenario, companies, plan

LANES = 2
"""Stacks that play side by side."""


def main(argv: Sequence[str]) -> int:
    """0 when nothing was lost and no answer was an error, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--scenarios", type=int, default=sum(FAMILIES.values()), metavar="N")
    parser.add_argument("--seed", type=int, default=7, metavar="N")
    parser.add_argument("--family", choices=list(FAMILIES), help="this family alone")
    parser.add_argument("--part", metavar="A:B:STEP", default=":", help="only these of the plan, as a Python slice")
    parser.add_argument("--lanes", type=int, default=LANES, metavar="N", help="stacks that play side by side")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs and data here")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, width=150)
    started = time.monotonic()
    part = slice(*(int(number) if number else None for number in arguments.part.split(":")))
    scenarios = plan(arguments.scenarios, seed=arguments.seed, only=arguments.family)[part]
    results: list[Result] = []
    with ExitStack() as opened:
        # Also when it is told to end: what was played until then was played.
        opened.callback(lambda: _sum_up(results, seed=arguments.seed, started=started, console=console))
        folder = arguments.keep or Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-chaos-")))
        games = (_game(opened, folder / f"lane-{lane}", arguments.seed) for lane in range(arguments.lanes))
        for result in played(games, scenarios):
            results.append(result)
            _say(result, console)
    return int(any(result.lost for result in results))


def _sum_up(results: Sequence[Result], *, seed: int, started: float, console: Console) -> None:
    console.print(table(results))
    console.print(f"{len(results)} scenarios, seed {seed}, {time.monotonic() - started:.0f} s")


def _game(opened: ExitStack, folder: Path, seed: int) -> Game:
    pipelines = folder / "pipelines"
    pipelines.mkdir(parents=True)
    stack = opened.enter_context(arena(folder / "data", pipelines))
    return Game(stack, opened.enter_context(Customer(stack)), seed=seed)


def played(games: Iterable[Game], scenarios: Sequence[Scenario]) -> Iterator[Result]:
    """All scenarios, each group by whichever game is free."""
    waiting, came = deque(companies(scenarios)), SimpleQueue[Result | Exception | None]()

    def play(game: Game) -> None:
        try:
            game.open()
            while (group := _next(waiting)) is not None:
                for result in game.play_together(group):
                    came.put(result)
            came.put(None)
        except Exception as exc:
            came.put(exc)

    playing = 0
    for game in games:  # the first one plays while the next one's stack starts
        playing += 1
        # Daemons: when this process is told to end, their stacks are stopped under them.
        threading.Thread(target=play, args=(game,), name=f"lane-{playing}", daemon=True).start()
    while playing:
        result = came.get()
        if isinstance(result, Exception):
            raise result
        if result is None:
            playing -= 1
        else:
            yield result


def _next(waiting: deque[list[Scenario]]) -> list[Scenario] | None:
    try:
        return waiting.popleft()
    except IndexError:
        return None


def table(results: Sequence[Result]) -> Table:
    """A row for each family and one for all."""
    results = sorted(results, key=lambda result: result.scenario.number)
    made = Table(
        "family", "scenarios", "partitions", "runs", "faults", "losses", "answers", "again", "errors", "s each"
    )
    for name in [*dict.fromkeys(result.scenario.family for result in results), "total"]:
        mine = [result for result in results if name in {result.scenario.family, "total"}]
        faults = sum((result.faults for result in mine), Counter[str]())
        made.add_row(
            name,
            str(len(mine)),
            str(sum(result.verdict.partitions for result in mine)),
            str(sum(result.verdict.runs for result in mine)),
            f"{faults.total()}: " + ", ".join(f"{kind} {count}" for kind, count in faults.most_common()),
            str(sum(len(result.verdict.losses) for result in mine)),
            str(sum(result.answers for result in mine)),
            str(sum(result.repeated for result in mine)),
            str(sum(result.errors.total() for result in mine)),
            f"{sum(result.verdict.seconds for result in mine) / max(1, len(mine)):.1f}",
        )
    return made


def _say(result: Result, console: Console) -> None:
    scenario, verdict = result.scenario, result.verdict
    what = f"{scenario.boundary} {'after' if scenario.after else 'before'}" if scenario.boundary else ""
    line = f"{scenario.number:4} {scenario.family:10} {what:16} {verdict.seconds:6.1f} s  {dict(result.faults)}"
    console.print(line, markup=False)
    for loss in (*verdict.losses, *(f"{count} x {error}" for error, count in result.errors.items())):
        console.print(f"     LOST: {loss}", markup=False, style="red", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
