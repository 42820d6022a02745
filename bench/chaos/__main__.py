"""`make chaos`: plays the scenarios and prints, by family, what was injected and what was lost."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.chaos.arena import arena
from bench.chaos.customer import Customer
from bench.chaos.game import Game, Result
from bench.chaos.scenarios import FAMILIES, plan


def main(argv: Sequence[str]) -> int:
    """0 when nothing was lost and no answer was an error, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--scenarios", type=int, default=sum(FAMILIES.values()), metavar="N")
    parser.add_argument("--seed", type=int, default=7, metavar="N")
    parser.add_argument("--family", choices=list(FAMILIES), help="this family alone")
    parser.add_argument("--part", metavar="A:B", default=":", help="only these of the plan, as a Python slice")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs and data here")
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, width=150)
    results: list[Result] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ratchet-chaos-") as temporary:
        folder = arguments.keep or Path(temporary)
        with arena(folder) as stack, Customer(stack) as customer:
            game = Game(stack, customer, seed=arguments.seed)
            game.open()
            start, _, stop = arguments.part.partition(":")
            part = slice(int(start) if start else None, int(stop) if stop else None)
            for scenario in plan(arguments.scenarios, seed=arguments.seed, only=arguments.family)[part]:
                result = game.play(scenario)
                results.append(result)
                _say(result, console)
    console.print(table(results))
    console.print(f"{len(results)} scenarios, seed {arguments.seed}, {time.monotonic() - started:.0f} s")
    return int(any(result.lost for result in results))


def table(results: Sequence[Result]) -> Table:
    """A row for each family and one for all."""
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
        console.print(f"     LOST: {loss}", markup=False, style="red")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
