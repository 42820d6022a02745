"""What the demo says on the terminal, at 80 columns or more; plain lines when it is not a terminal."""

from __future__ import annotations

import json
import textwrap
from calendar import month_name
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.table import Table

from local.client import Cell, Partition, RunProgress, RunRecord
from local.journal import ServedMonth
from local.months import Brought, blob_name
from local.verdict import mean_aucs
from models.errors import bounded

LABEL_WIDTH = 11
CURL_WIDTH = 78
REASON_CHARACTERS = 150
"""A reason may list every column of a file; the report in quarantine has all of it."""


class DemoView:
    """Writes to `console`, in the order in which things happen."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def opening(self, months: Sequence[int], start: str) -> None:
        """What is going to happen, and whether it starts clean."""
        span = month_name[months[0]] if len(months) == 1 else f"{month_name[months[0]]} to {month_name[months[-1]]}"
        self._say(f"[bold]Ratchet demo[/]: real flights out of New York, {span} 2013.")
        self._say(escape(start))
        self._say("")

    def month(self, month: int) -> None:
        """The heading of a month."""
        self._console.print(Rule(f"[bold]{month_name[month]}", align="left", style="dim"))

    @contextmanager
    def following(self) -> Iterator[Callable[[RunProgress | None], None]]:
        """A bar through the run's steps, gone when the run is over. Nothing at all when this is not a terminal."""
        bar = Progress(
            TextColumn("{task.description}", style="dim"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[step]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        with bar:
            task = bar.add_task("run".rjust(LABEL_WIDTH), total=None, step="waiting for the run")

            def follow(run: RunProgress | None) -> None:
                if run and run.steps:
                    within = run.done / run.total if run.total else 0.0
                    bar.update(task, total=run.steps, completed=run.index - 1 + within, step=_step(run))
                elif run is None and bar.tasks[task].total is not None:
                    bar.update(task, completed=bar.tasks[task].total, step="asking every worker")

            yield follow

    def brought(self, month: Brought) -> None:
        """What the month's run did."""
        lines = _lines()
        record, partition = month.record, month.record.partition(blob_name(month.month))
        if month.earlier:
            lines.add_row("there", "uploaded by the earlier demo; not uploaded again")
        lines.add_row("rows", _rows(month, partition))
        if month.broken:
            lines.add_row("bad file", _broken(month.broken))
        lines.add_row("model", _model(record))
        lines.add_row("decision", _decision(record))
        lines.add_row("live", _live(month))
        self._console.print(lines)

    def served(self, served: ServedMonth, *, earlier: bool) -> None:
        """How the live model did on the next month."""
        lines = _lines()
        where = "measured by the earlier demo" if earlier else f"{served.requests} requests, {served.seconds:.1f} s"
        same = served.version == served.frozen_version
        frozen = "the same model" if same else f"{served.frozen_auc:.4f} ({served.gain:+.4f})"
        lines.add_row(
            month_name[served.month],
            f"sent to the endpoint, {served.scored:,} flights ({where}):\n"
            f"AUC [bold]{served.auc:.4f}[/], version {served.version}; frozen first model: {frozen}",
        )
        self._console.print(lines)

    def note(self, label: str, text: str) -> None:
        """One line of its own."""
        lines = _lines()
        lines.add_row(label, escape(text))
        self._console.print(lines)

    def table(self, served: Sequence[ServedMonth]) -> None:
        """Every served month: the champion that was live then beside the frozen model."""
        first = served[0].frozen_version
        frozen = "frozen January" if first == 1 else f"frozen version {first}"
        title = "Each month, sent to the model that had seen only the months before it"
        table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1))
        table.add_column("month served")
        for name in ("rows", "champion", "its AUC", frozen, "difference"):
            table.add_column(name, justify="right")
        for one in served:
            figures = (f"{one.auc:.4f}", f"{one.frozen_auc:.4f}", _gain(one.gain))
            table.add_row(month_name[one.month], f"{one.scored:,}", f"version {one.version}", *figures)
        live, frozen_mean = mean_aucs(served)
        table.add_section()
        total = f"{sum(one.scored for one in served):,}"
        table.add_row("mean", total, "", f"{live:.4f}", f"{frozen_mean:.4f}", _gain(live - frozen_mean), style="bold")
        self._say("")
        self._console.print(table)

    def addresses(self, *, mlflow: str, predict: str, record: Mapping[str, Cell]) -> None:
        """Where to look, and a request to copy."""
        self._say("")
        lines = _lines()
        lines.add_row("MLflow", escape(mlflow))
        lines.add_row("predict", escape(predict))
        self._console.print(lines)
        self._say("")
        # Without wrapping and markup, because it is to be copied.
        self._console.print(curl_example(predict, record), soft_wrap=True, markup=False, highlight=False)
        self._say("")

    def shortfalls(self, found: Sequence[str]) -> None:
        """What did not happen, or that everything did."""
        if not found:
            self._say("[bold green]Every step happened.[/]")
            return
        self._say("[bold red]Not everything happened:[/]")
        for sentence in found:
            self._say(f"- {escape(sentence)}")

    def error(self, message: str, *, logs: str = "") -> None:
        """What stopped the demo, and where to read more."""
        self._say(f"[bold red]The demo stopped.[/] {escape(message)}")
        if logs:
            self._say(f"The logs are in {escape(logs)}")

    def next_steps(self, *, stays: bool) -> None:
        """What to try now."""
        if not stays:
            self._say("The stack stops now; `make demo STAY=1` keeps it up after the table.")
        self._say("Next: `make run` starts the stack and keeps it up, for files of your own.")

    def say(self, text: str) -> None:
        """A plain sentence."""
        self._say(escape(text))

    def _say(self, markup: str) -> None:
        self._console.print(markup, highlight=False)


def curl_example(url: str, record: Mapping[str, Cell]) -> str:
    """A shell command that asks for one prediction, in lines that fit 80 columns. JSON may be broken between fields."""
    body = "{" + ", ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items()) + "}"
    data = textwrap.fill(body, CURL_WIDTH, initial_indent="  -d '", subsequent_indent="      ", break_on_hyphens=False)
    # A name or value with an apostrophe would end the shell's quotes.
    data = data[:6] + data[6:].replace("'", "'\\''") + "'"
    return f"curl -s {url} \\\n  -H 'content-type: application/json' \\\n{data}"


def _lines() -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=LABEL_WIDTH, style="dim", justify="right")
    grid.add_column()
    return grid


def _step(run: RunProgress) -> str:
    if run.waiting:
        return "waiting for more uploads"
    parts = f", {run.done} of {run.total}" if run.total else ""
    return f"{run.index} of {run.steps}: {run.step}{parts}"


def _rows(month: Brought, partition: Partition | None) -> str:
    if partition is None:
        return f"{month.uploaded:,} uploaded, but the run does not name them"
    if partition.state != "included":
        return f"{month.uploaded:,} uploaded; {partition.state}: {escape(partition.reason)}"
    return f"{month.uploaded:,}: {partition.rows:,} to learn from, {partition.rejected:,} in quarantine"


def _broken(broken: Partition) -> str:
    name = broken.path.rpartition("/")[2]
    where = f"\nreport: {broken.report}" if broken.report else ""
    return escape(f"{name} is {broken.state}: {bounded(broken.reason, REASON_CHARACTERS)}{where}")


def _model(record: RunRecord) -> str:
    if record.challenger is None:
        return "none registered"
    challenger = f"version {record.challenger.version}, AUC {_auc(record.challenger.auc)}"
    against = (
        "no champion yet"
        if record.champion is None
        else (f"champion version {record.champion.version}: {_auc(record.champion.auc)}")
    )
    return f"{challenger}; {against} ({record.judged_rows:,} rows that neither has seen)"


def _decision(record: RunRecord) -> str:
    sentence = record.decision.sentence if record.decision else record.sentence
    style = "green" if record.outcome == "promoted" else "yellow" if record.outcome == "kept" else "red"
    # The sentence begins with the outcome; only a run without a decision has to have it said.
    lead, colon, rest = sentence.partition(":")
    if record.decision is None or not colon:
        lead, rest = record.outcome, f" {sentence}"
    return f"[{style}]{escape(lead.lower())}[/]:{escape(rest)}"


def _live(month: Brought) -> str:
    if month.live is None:
        return "no model yet"
    if not month.all_live:
        return f"[red]not every worker process answers with version {month.live}[/]"
    workers = f"version {month.live} in each of {month.workers} worker processes"
    return workers if month.seconds_to_live is None else f"{workers}, {month.seconds_to_live:.1f} s after the upload"


def _auc(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


def _gain(value: float) -> str:
    return "same model" if value == 0 else f"{value:+.4f}"
