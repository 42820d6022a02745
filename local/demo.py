"""`make demo`: real flights through the whole system, month by month, and what retraining buys at the end.

Exit status: 0 when every step really happened, 1 when one did not, 2 for a wrong argument, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from rich.console import Console

from local.client import AppClient, NoModelYet, RequestRefused, UnexpectedAnswer
from local.demo_view import DemoView
from local.flights import PIPELINE, features_and_labels
from local.journal import Journal, ServedMonth, Start, prepare
from local.months import Brought, Patience, RunLog, Site, bring, serve
from local.scoring import FrozenModel
from local.uploads import AccountStorage, Storage
from local.verdict import shortfalls
from models.errors import RatchetError

DATA_DIRECTORY = Path(".local/demo")
MONTHS_SETTING, DEFAULT_MONTHS, LAST_MONTH = "DEMO_MONTHS", 6, 12
PASSED, FAILED, INTERRUPTED = 0, 1, 130
PATIENCE = Patience()


class RunningStack(Protocol):
    """What the demo needs to know of the stack that it started."""

    @property
    def blob_connection_string(self) -> str:
        """Connection string of the storage account."""
        ...

    @property
    def app_url(self) -> str:
        """Where the function app answers."""
        ...

    @property
    def mlflow_url(self) -> str:
        """Where the MLflow UI answers."""
        ...

    @property
    def log_dir(self) -> Path:
        """Where the processes write their logs."""
        ...


@dataclass(frozen=True, slots=True)
class Stack:
    """How to start a stack on a data directory, which errors that raises, and how to reach its storage."""

    start: Callable[[Path], AbstractContextManager[RunningStack]]
    errors: tuple[type[Exception], ...] = ()
    storage: Callable[[str], AbstractContextManager[Storage]] = AccountStorage


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line and the environment ask for. `months` is 1 to 12, counted from January."""

    months: int
    data: Path
    fresh: bool
    stay: bool

    @property
    def taught(self) -> tuple[int, ...]:
        """Months that are uploaded."""
        return tuple(range(1, self.months + 1))

    @property
    def served(self) -> tuple[int, ...]:
        """Months that are sent to the model that has seen the ones before. The data ends with December."""
        return tuple(month + 1 for month in self.taught if month < LAST_MONTH)


@dataclass(slots=True)
class Happened:
    """What has happened so far, by month."""

    brought: dict[int, Brought] = field(default_factory=dict)
    served: dict[int, ServedMonth] = field(default_factory=dict)


def main(
    argv: list[str], *, stack: Stack | None = None, console: Console | None = None, patience: Patience = PATIENCE
) -> int:
    """Runs the demo and gives the exit status. A wrong argument raises SystemExit, as argparse does."""
    options = _options(argv)
    view, stack = DemoView(console or Console(highlight=False)), stack or _local_stack()
    expected: tuple[type[Exception], ...] = (RatchetError, *stack.errors)
    try:
        start = prepare(options.data, fresh=options.fresh)
        view.opening(options.taught, start.sentence)
        with stack.start(options.data) as running, stack.storage(running.blob_connection_string) as storage:
            with AppClient(running.app_url, PIPELINE) as client:
                site = Site(client, storage, RunLog(client), patience)
                status = _run(site, view, options, start, running)
            if options.stay:
                with suppress(KeyboardInterrupt):
                    view.say("The stack stays up until Ctrl-C.")
                    threading.Event().wait()
            return status
    except KeyboardInterrupt:
        view.say("Interrupted: the stack is stopped. The next `make demo` carries on from here.")
        return INTERRUPTED
    except expected as exc:
        view.error(str(exc))
        return FAILED


def _run(site: Site, view: DemoView, options: Options, start: Start, running: RunningStack) -> int:
    happened, stopped = Happened(), False
    try:
        _all_months(site, view, options, start.journal, happened)
    except RatchetError as exc:
        stopped = True
        view.error(str(exc), logs=str(running.log_dir))
    if happened.served:
        view.table([happened.served[month] for month in sorted(happened.served)])
    found = shortfalls(options.taught, happened.brought, options.served, happened.served)
    view.shortfalls(found)
    if not stopped:
        example = features_and_labels(options.taught[-1]).features.row(0, named=True)
        view.addresses(mlflow=running.mlflow_url, predict=site.client.predict_url, record=example)
        view.next_steps(stays=options.stay)
    return FAILED if found or stopped else PASSED


def _all_months(site: Site, view: DemoView, options: Options, journal: Journal, happened: Happened) -> None:
    """Fills `happened`, month by month, and keeps the journal. Raises RatchetError when it cannot go on."""
    frozen: FrozenModel | None = None
    for month in options.taught:
        view.month(month)
        with view.following() as follow:
            brought = bring(site, month, follow=follow)
        happened.brought[month] = brought
        view.brought(brought)
        if month + 1 not in options.served:
            continue
        if brought.earlier and month + 1 in journal.served:
            happened.served[month + 1] = journal.served[month + 1]
            view.served(happened.served[month + 1], earlier=True)
            continue
        frozen = frozen or _frozen(site)
        served = _serve(site, view, month + 1, brought.live, frozen)
        if served is not None:
            happened.served[month + 1] = served
            if served.complete:
                journal = journal.with_served(served)
                journal.write(options.data)
    replace(journal, state="finished").write(options.data)


def _frozen(site: Site) -> FrozenModel | None:
    first = site.runs.first_live()
    return FrozenModel.load(site.storage, PIPELINE, first) if first is not None else None


def _serve(site: Site, view: DemoView, month: int, live: int | None, frozen: FrozenModel | None) -> ServedMonth | None:
    """The next month through the endpoint; None, and a line that says why, when the app cannot answer it."""
    if live is None or frozen is None:
        view.note("not served", "there is no model to ask")
        return None
    try:
        served = serve(site, month, live, frozen)
    except (NoModelYet, RequestRefused, UnexpectedAnswer) as exc:
        view.note("not served", str(exc))
        return None
    view.served(served, earlier=False)
    return served


def _options(argv: list[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m local demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--months", metavar="N", help=f"months to upload, 1 to 12 (default: {MONTHS_SETTING}, or 6)")
    parser.add_argument("--data", type=Path, default=DATA_DIRECTORY, help=f"data directory (default: {DATA_DIRECTORY})")
    parser.add_argument("--fresh", action="store_true", help="start clean even when an earlier demo did not finish")
    parser.add_argument("--stay", action="store_true", help="keep the stack up after the table, until Ctrl-C")
    given = parser.parse_args(argv)
    months = given.months or os.environ.get(MONTHS_SETTING) or str(DEFAULT_MONTHS)
    if not (months.isdecimal() and 1 <= int(months) <= LAST_MONTH):
        parser.error(f"--months or {MONTHS_SETTING} is a whole number from 1 to {LAST_MONTH}, not {months!r}")
    return Options(months=int(months), data=given.data, fresh=given.fresh, stay=given.stay)


def _local_stack() -> Stack:
    from devhost.errors import DevhostError
    from local.stack import start_stack

    return Stack(start=start_stack, errors=(DevhostError,))
