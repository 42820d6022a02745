"""`python -m local up` keeps the local stack up; `python -m local demo` shows the whole system at work."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from rich.console import Console

from adapters.specs import SpecFiles
from devhost.errors import DevhostError
from devhost.supervisor import exit_on_signals
from local.parts import REPOSITORY
from local.stack import DEFAULT_PORTS, LocalStack, Ports, start_stack
from models.spec import SpecError

DATA = Path(".local")
INTERRUPTED = 130


def main(argv: Sequence[str]) -> int:
    """The exit status. `demo` has a parser of its own and gets everything behind its name."""
    if argv[:1] == ["demo"]:
        demo = importlib.import_module("local.demo")  # only now: it takes a while, and `up` does without it
        return int(demo.main(list(argv[1:])))
    return up(_parser().parse_args(argv), Console(highlight=False))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local", description="Ratchet's local stack and its demo.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="real data through the whole system, month by month", add_help=False)
    command = commands.add_parser(
        "up",
        help="start the stack and keep it up until Ctrl-C",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = command.add_argument
    option("--data", type=Path, default=DATA, metavar="DIR", help="directory for everything that is kept")
    option("--workers", type=int, default=2, metavar="N", help="worker processes of the functions host")
    option("--app", type=Path, metavar="DIR", help="another app to run instead of this one")
    ports = {"app": "--port", "mlflow": "--mlflow-port", "events": "--events-port"}
    ports |= {"blob": "--blob-port", "queue": "--queue-port", "table": "--table-port"}
    for name, flag in ports.items():
        note = f"insist on this port ({getattr(DEFAULT_PORTS, name)} or a free one when not given)"
        option(flag, type=int, dest=f"{name}_port", metavar="N", default=argparse.SUPPRESS, help=note)
    return parser


def up(arguments: argparse.Namespace, console: Console) -> int:
    """Starts the stack, says how to use it, and waits. 1 when a part failed, 130 after Ctrl-C."""
    ports = Ports(**{field.name: getattr(arguments, f"{field.name}_port", None) for field in fields(Ports)})
    try:
        with (
            exit_on_signals(),
            start_stack(
                arguments.data, ports=ports, workers=arguments.workers, app_dir=arguments.app, console=console
            ) as stack,
        ):
            _explain(stack, console)
            if arguments.app is None:
                _name_mistakes(console)
            stack.watch()
    except DevhostError as error:
        console.print(str(error), markup=False, style="red", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped.")
        return INTERRUPTED
    return 0


def _explain(stack: LocalStack, console: Console) -> None:
    upload = (
        "from azure.storage.blob import BlobServiceClient\n"
        f'storage = BlobServiceClient.from_connection_string("{stack.blob_connection_string}")\n'
        'storage.get_blob_client("training", "PIPELINE/FILE.csv").upload_blob(open("FILE.csv", "rb"))'
    )
    lines = [
        "",
        f"Models        {stack.app_url}/v2   (Open Inference Protocol)",
        f"Pipelines     {stack.app_url}/api/pipelines",
        f"Experiments   {stack.mlflow_url}",
        f"Events out    {stack.events_file}",
        f"Logs          {stack.log_dir}",
        "",
        "Upload training data, from Python (any client that takes a connection string does):",
        "",
        *(f"    {line}" for line in upload.splitlines()),
        "",
        "Ctrl-C stops everything.",
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _name_mistakes(console: Console) -> None:
    """A pipeline whose file has a mistake does not retrain; the others do."""
    specs = SpecFiles(REPOSITORY / "pipelines")
    for name in specs.names():
        try:
            specs.load(name)
        except SpecError as error:
            console.print(f"Pipeline {name} cannot be retrained: {error}", markup=False, style="red", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
