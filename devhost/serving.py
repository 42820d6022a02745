"""Hosts an app until somebody asks to stop, and starts it again when its code changes, if that is wanted."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.util import cache_from_source
from pathlib import Path

from devhost.catalog import HTTP, kind
from devhost.errors import AppInvalid, IndexingFailed
from devhost.host import Host, HostOptions
from devhost.watching import next_change

SHOWN_CHANGES = 3
NO_FUNCTIONS = """
No functions were found. devhost looks for them in function_app.py, where the app's FunctionApp object must be at the
top level (the programming model v2 of Python), and leaves out those that AzureWebJobs.NAME.Disabled=true disables.
"""


async def serve(chosen: HostOptions, *, watch: bool = False) -> None:
    """Hosts until SIGTERM or SIGINT. A second one ends at once. Raises DevhostError.

    With `watch`, the app is stopped and started again whenever its code or settings change. A change that it cannot be
    started with is shown, and the next one waited for.
    """
    asked_to_stop = asyncio.create_task(_asked_to_stop())
    while True:
        changed = asyncio.create_task(next_change(chosen.app_dir)) if watch else None
        ends: list[asyncio.Task[object]] = [asked_to_stop] if changed is None else [asked_to_stop, changed]
        try:
            port = await _host(chosen, ends)
            chosen = replace(chosen, port=port or chosen.port)
        except (AppInvalid, IndexingFailed) as error:
            if changed is None:
                raise
            print(f"devhost: {error}\ndevhost: waiting for a change of the code.", file=sys.stderr, flush=True)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if changed is None or asked_to_stop.done():
            break
        _forget_compiled(changed.result())
        print(f"\n{_described(chosen.app_dir, changed.result())}: starting again", flush=True)
    if changed is not None:
        changed.cancel()
        await asyncio.wait({changed})


def _forget_compiled(sources: Iterable[Path]) -> None:
    """Python takes what it has compiled for a change of the same second and the same length, too."""
    for source in sources:
        if source.suffix == ".py":
            Path(cache_from_source(str(source))).unlink(missing_ok=True)


async def _host(chosen: HostOptions, ends: Sequence[asyncio.Task[object]]) -> int | None:
    """Hosts until one of `ends` is done. Returns the port, None when that was before it was ready."""
    host = Host(chosen)
    starting = asyncio.create_task(host.start())
    await asyncio.wait([starting, *ends], return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        return None
    try:
        starting.result()
        print(function_table(host))
        print(f"Host ready on {host.url}", flush=True)
        gc.freeze()  # what is loaded by now stays: a collection that looked through it would hold up every request
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        return int(host.url.rpartition(":")[2])
    finally:
        await host.stop()


async def _asked_to_stop() -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def ask() -> None:
        asked.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    await asked.wait()


def function_table(host: Host) -> str:
    """The functions with their URLs or triggers, HTTP functions first."""
    if not host.functions:
        return NO_FUNCTIONS
    width = max((len(function.name) for function in host.functions), default=0) + 1
    lines = {True: list[str](), False: list[str]()}
    for function in sorted(host.functions, key=lambda function: function.name.lower()):
        methods = ",".join(function.trigger.get("methods") or ())
        is_http = kind(function.trigger) == HTTP
        what = f"[{methods or 'ALL'}] {host.url_of(function)}" if is_http else str(function.trigger["type"])
        lines[is_http].append(f"\t{function.name + ':':<{width}} {what}")
    return "\n".join(["", "Functions:", "", *lines[True], *lines[False], ""])


def _described(app_dir: Path, changed: Sequence[Path]) -> str:
    shown = [str(path.relative_to(app_dir)) for path in changed[:SHOWN_CHANGES]]
    more = f" and {len(changed) - SHOWN_CHANGES} more" if len(changed) > SHOWN_CHANGES else ""
    return f"{', '.join(shown)}{more} changed"
