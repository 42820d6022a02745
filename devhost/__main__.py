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

from devhost.catalog import HTTP, kind
from devhost.errors import DevhostError
from devhost.host import LOOPBACK, Host, HostOptions

PORT = 7071
STATE_FOLDER = ".devhost"
WORKERS_SETTING = "FUNCTIONS_WORKER_PROCESS_COUNT"
LOG_FORMAT = "[%(asctime)s] %(levelname)s %(message)s"

DESCRIPTION = """\
Runs an Azure Functions app (Python, programming model v2) on this machine, without Core Tools: HTTP, timer, queue,
Event Grid, blob (from Event Grid) and warmup triggers, queue outputs, and Durable Functions."""

START_EPILOG = """\
Settings come from the environment, and from Values in local.settings.json where the environment has none. host.json
is honoured for routePrefix, functionTimeout, logLevel.default, and durableTask's hubName, maxConcurrent...Functions,
and all of queues; the start names what else it says.
AzureWebJobs.NAME.Disabled=true takes a function out of service.

While it runs (port 7071):
  curl http://127.0.0.1:7071/admin/host/status                        200 once it is ready, with the workers' pids
  curl http://127.0.0.1:7071/admin/functions                          the functions
  curl -X POST http://127.0.0.1:7071/admin/functions/NAME -d '{}'     runs a timer, queue, Event Grid or warmup function
  POST /runtime/webhooks/EventGrid?functionName=NAME                  what an Event Grid subscription calls
  POST /runtime/webhooks/blobs?functionName=Host.Functions.NAME        the same for a blob trigger
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
    start.add_argument("--port", type=int, default=PORT, help="the port; 0 takes a free one (default: %(default)s)")
    start.add_argument(
        "--workers", type=int, help=f"worker processes (default: {WORKERS_SETTING} from the environment, or 1)"
    )
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
    commands.add_parser("eventgrid", help="run a local Event Grid (see its own --help)", add_help=False)
    return top


def options(arguments: argparse.Namespace) -> HostOptions:
    """What to host, from the command line. Raises DevhostError."""
    app_dir: Path = arguments.app.resolve()
    if not app_dir.is_dir():
        raise DevhostError(f"There is no folder {app_dir}: name the app's folder with --app.")
    workers = int(os.environ.get(WORKERS_SETTING, "1")) if arguments.workers is None else arguments.workers
    if workers < 1:
        raise DevhostError(f"{workers} workers cannot run anything: give --workers a number from 1 on.")
    state: Path = app_dir / STATE_FOLDER if arguments.state is None else arguments.state
    keys_file = None if arguments.auth is None else arguments.auth.resolve()
    return HostOptions(app_dir, state.resolve(), arguments.host, arguments.port, workers, keys_file)


def function_table(host: Host) -> str:
    """The functions with their URLs or triggers, HTTP functions first."""
    width = max((len(function.name) for function in host.functions), default=0) + 1
    lines = {True: list[str](), False: list[str]()}
    for function in sorted(host.functions, key=lambda function: function.name.lower()):
        methods = ",".join(function.trigger.get("methods") or ())
        is_http = kind(function.trigger) == HTTP
        what = f"[{methods or 'ALL'}] {host.url_of(function)}" if is_http else str(function.trigger["type"])
        lines[is_http].append(f"\t{function.name + ':':<{width}} {what}")
    return "\n".join(["", "Functions:", "", *lines[True], *lines[False], ""])


async def serve(chosen: HostOptions) -> None:
    """Hosts until SIGTERM or SIGINT. A second one ends at once. Raises DevhostError."""
    loop = asyncio.get_running_loop()
    asked_to_stop = asyncio.Event()

    def ask_to_stop() -> None:
        asked_to_stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask_to_stop)
    host = Host(chosen)
    starting = asyncio.create_task(host.start())
    stopping = asyncio.create_task(asked_to_stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return
    try:
        starting.result()
        print(function_table(host))
        print(f"Host ready on {host.url}", flush=True)
        await stopping
    finally:
        stopping.cancel()
        await host.stop()


def main(argv: Sequence[str]) -> int:
    """0 when it was asked to stop, 1 when it could not go on, 2 for bad options."""
    if argv[:1] == ["eventgrid"]:
        from devhost.eventgrid import cli

        return cli.main(list(argv[1:]))
    arguments = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    logging.getLogger("devhost").setLevel(logging.DEBUG)  # the workers have filtered by host.json's level already
    try:
        asyncio.run(serve(options(arguments)))
    except DevhostError as error:
        print(f"devhost: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
