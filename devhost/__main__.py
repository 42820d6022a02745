"""The command line: `python -m devhost start` and `python -m devhost eventgrid`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from devhost.errors import DevhostError, SettingsInvalid
from devhost.host import WORKERS_SETTING, HostOptions
from devhost.ports import LOOPBACK, port_number
from devhost.serving import serve
from devhost.settings import LocalSettings, local_settings

PORT = 7071
STATE_FOLDER = ".devhost"
LOG_FORMAT = "[%(asctime)s] %(levelname)s %(message)s"

DESCRIPTION = """\
Runs an Azure Functions app (Python, programming model v2) on this machine, without Core Tools: HTTP, timer, queue,
Event Grid, blob (from Event Grid) and warmup triggers, queue outputs, and Durable Functions."""

START_EPILOG = """\
Settings come from the environment, and from Values in local.settings.json where the environment has none. host.json
is honoured for routePrefix, functionTimeout, logLevel.default, all of queues, and durableTask's hubName,
maxConcurrent...Functions, defaultVersion and version...Strategy; the start names what else it says.
AzureWebJobs.NAME.Disabled=true takes a function out of service.

While it runs (port 7071):
  curl http://127.0.0.1:7071/admin/host/status                        200 once it is ready, with the workers' pids
  curl http://127.0.0.1:7071/admin/functions                          the functions
  curl -X POST http://127.0.0.1:7071/admin/functions/NAME -d '{"input": ...}'
                                      runs a timer or warmup function, or a queue, blob or Event Grid function with
                                      the text of a message, the path of a blob (container/name) or an event
  POST /runtime/webhooks/EventGrid?functionName=NAME                  what an Event Grid subscription calls
  POST /runtime/webhooks/blobs?functionName=Host.Functions.NAME       the same for a blob trigger
  /runtime/webhooks/durabletask/...                                   the Durable Functions HTTP API

With --auth KEYS, a key belongs in the header x-functions-key or in the query as code: one of the function, of the
host or the master key where authLevel is function; the master key where it is admin, and for /admin, but not for
/admin/host/ping; the system keys eventgrid_extension, durabletask_extension and blobs_extension for /runtime/webhooks.

Ctrl-C or SIGTERM: takes no more requests, lets those under way end for a few seconds, and stops the workers.
"""


def parser() -> argparse.ArgumentParser:
    """The options of both commands."""
    top = argparse.ArgumentParser(prog="python -m devhost", description=DESCRIPTION)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    start = commands.add_parser(
        "start",
        help="run a function app",
        description=DESCRIPTION,
        epilog=START_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    start.add_argument("--app", type=Path, default=Path(), help="the app's folder, with host.json (default: here)")
    start.add_argument("--host", default=LOOPBACK, help="the address to listen on (default: %(default)s)")
    start.add_argument(
        "--port",
        type=port_number,
        help=f"the port; 0 takes a free one (default: LocalHttpPort of local.settings.json, or {PORT})",
    )
    start.add_argument("--workers", type=int, help=f"worker processes (default: the setting {WORKERS_SETTING}, or 1)")
    start.add_argument(
        "--state",
        type=Path,
        help=f"folder for durable state, for one host at a time (default: {STATE_FOLDER} in the app)",
    )
    start.add_argument(
        "--auth",
        type=Path,
        metavar="KEYS",
        help="want access keys, those of this JSON file; it is made with random ones if need be (default: no keys)",
    )
    start.add_argument(
        "--watch", action="store_true", help="start the app again when its Python files or settings files change"
    )
    commands.add_parser("eventgrid", help="run a local Event Grid (see its own --help)", add_help=False)
    return top


def _local(app_dir: Path) -> LocalSettings:
    try:
        return local_settings(app_dir)
    except SettingsInvalid:
        return LocalSettings()  # the start says what is wrong with it


def _workers(given: int | None, local: LocalSettings) -> int:
    """Raises DevhostError."""
    text = {**local.values, **os.environ}.get(WORKERS_SETTING, "1") if given is None else str(given)
    if not text.isdecimal() or int(text) < 1:
        source = WORKERS_SETTING if given is None else "--workers"
        raise DevhostError(f"{text} workers cannot run anything: give {source} a number from 1 on.")
    return int(text)


def options(arguments: argparse.Namespace) -> HostOptions:
    """What to host, from the command line. Raises DevhostError."""
    app_dir: Path = arguments.app.resolve()
    if not app_dir.is_dir():
        raise DevhostError(f"There is no folder {app_dir}: name the app's folder with --app.")
    local = _local(app_dir)
    workers = _workers(arguments.workers, local)
    port = next(port for port in (arguments.port, local.port, PORT) if port is not None)
    state: Path = app_dir / STATE_FOLDER if arguments.state is None else arguments.state
    keys_file = None if arguments.auth is None else arguments.auth.resolve()
    return HostOptions(app_dir, state.resolve(), arguments.host, port, workers, keys_file)


def main(argv: Sequence[str]) -> int:
    """0 when it was asked to stop, 1 when it could not go on, 2 for bad options."""
    if argv[:1] == ["eventgrid"]:
        from devhost.eventgrid import cli

        return cli.main(list(argv[1:]))
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    logging.getLogger("devhost").setLevel(logging.DEBUG)  # the workers have filtered by host.json's level already
    try:
        asyncio.run(serve(options(arguments), watch=arguments.watch), loop_factory=uvloop.new_event_loop)
    except DevhostError as error:
        print(f"devhost: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
