"""`python -m local up` keeps the local stack up, `upload` gives it data, `events` shows what it tells, `demo` shows the
whole system at work."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from rich.console import Console

from adapters.specs import SpecFiles, UnknownPipeline
from devhost.errors import DevhostError
from devhost.supervisor import exit_on_signals
from local.events import described, events_file, follow
from local.parts import REPOSITORY
from local.stack import DEFAULT_PORTS, LocalStack, Ports, start_stack, storage_of
from local.uploads import TRAINING_CONTAINER, AccountStorage
from models.errors import RatchetError
from models.spec import SpecError

DATA = Path(".local")
INTERRUPTED = 130
SPECS = SpecFiles(REPOSITORY / "pipelines")


def main(argv: Sequence[str]) -> int:
    """The exit status. `demo` has a parser of its own and gets everything behind its name."""
    console = Console(highlight=False)
    try:
        if argv[:1] == ["demo"]:
            demo = importlib.import_module("local.demo")  # only now: it takes a while, and `up` does without it
            return int(demo.main(list(argv[1:])))
        arguments = _parser().parse_args(argv)
        command: Callable[[argparse.Namespace, Console], int] = arguments.function
        return command(arguments, console)
    except (DevhostError, RatchetError, OSError) as error:  # OSError: a folder that cannot be written, a full disk
        console.print(str(error), markup=False, style="red", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped.")
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local", description="Ratchet's local stack and its demo.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="real data through the whole system, month by month", add_help=False)
    command = commands.add_parser(
        "up",
        help="start the stack and keep it up until Ctrl-C",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    command.set_defaults(function=up)
    option = command.add_argument
    option("--data", type=Path, default=DATA, metavar="DIR", help="directory for everything that is kept")
    option("--workers", type=int, default=2, metavar="N", help="worker processes of the functions host")
    option("--app", type=Path, metavar="DIR", help="another app to run instead of this one")
    ports = {"app": "--port", "mlflow": "--mlflow-port", "events": "--events-port"}
    ports |= {"blob": "--blob-port", "queue": "--queue-port", "table": "--table-port"}
    for name, flag in ports.items():
        note = f"insist on this port ({getattr(DEFAULT_PORTS, name)} or a free one when not given)"
        option(flag, type=int, dest=f"{name}_port", metavar="N", default=argparse.SUPPRESS, help=note)
    command = commands.add_parser("events", help="show the app's own events as they come, until Ctrl-C")
    command.set_defaults(function=events)
    command.add_argument("--data", type=Path, default=DATA, metavar="DIR", help=f"the stack's directory ({DATA})")
    command = commands.add_parser("upload", help="upload training data to the stack that runs")
    command.set_defaults(function=upload)
    command.add_argument("--data", type=Path, default=DATA, metavar="DIR", help=f"the stack's directory ({DATA})")
    command.add_argument("pipeline", metavar="PIPELINE", help="a file in pipelines/, without .yaml")
    command.add_argument("files", metavar="FILE", type=Path, nargs="+", help="CSV, gzipped CSV, Parquet or JSON Lines")
    return parser


def up(arguments: argparse.Namespace, console: Console) -> int:
    """Starts the stack, says how to use it, and waits. Raises DevhostError when a part fails."""
    ports = Ports(**{field.name: getattr(arguments, f"{field.name}_port", None) for field in fields(Ports)})
    with (
        exit_on_signals(),
        start_stack(
            arguments.data, ports=ports, workers=arguments.workers, app_dir=arguments.app, console=console
        ) as stack,
    ):
        _explain(stack, console)
        if arguments.app is None:
            _name_mistakes(console)
        console.print("Ctrl-C stops everything.")
        stack.watch()
    return 0


def upload(arguments: argparse.Namespace, console: Console) -> int:
    """Files to the pipeline's training data, under their names. Raises UnknownPipeline and StorageUnavailable."""
    names = SPECS.names()
    if arguments.pipeline not in names:
        raise UnknownPipeline(arguments.pipeline, names)
    for file in arguments.files:
        if not file.is_file():
            console.print(f"There is no file {file}; nothing was uploaded.", markup=False, style="red", soft_wrap=True)
            return 1
    with AccountStorage(storage_of(arguments.data)) as storage:
        for file in arguments.files:
            path = f"{TRAINING_CONTAINER}/{arguments.pipeline}/{file.name}"
            storage.upload(path, file.read_bytes())
            console.print(f"{path}  {file.stat().st_size:,} bytes", markup=False, soft_wrap=True)
    return 0


def events(arguments: argparse.Namespace, console: Console) -> int:
    """The events of the stack's topic: those that were, and then each as it comes."""
    file = events_file(arguments.data)
    if not file.exists():
        console.print(f"No events yet: {file} is not there. `make run` starts the stack.", markup=False, soft_wrap=True)
    with exit_on_signals():
        for event in follow(file):
            console.print(described(event), markup=False, soft_wrap=True)
    return 0


def _explain(stack: LocalStack, console: Console) -> None:
    lines = [
        "",
        f"Models        {stack.app_url}/v2   (Open Inference Protocol)",
        f"Pipelines     {stack.app_url}/api/pipelines",
        f"Experiments   {stack.mlflow_url}",
        "Events out    make events",
        f"Logs          {stack.log_dir}",
        "",
        "Upload training data with",
        "",
        "    .venv/bin/python -m local upload PIPELINE FILE...",
        "",
        "or with any client of Azure Storage, to training/PIPELINE/FILE, with this connection string:",
        "",
        f"    {stack.blob_connection_string}",
        "",
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _name_mistakes(console: Console) -> None:
    """A pipeline whose file has a mistake does not retrain; the others do."""
    for name in SPECS.names():
        try:
            SPECS.load(name)
        except SpecError as error:
            console.print(f"Pipeline {name} cannot be retrained: {error}", markup=False, style="red", soft_wrap=True)
            console.print()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
