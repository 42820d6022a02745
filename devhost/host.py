"""The host as a whole: listens, loads the app into its workers, puts it in service, and ends in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from devhost import auth, settings, state_lock
from devhost.pool import WorkerPool
from devhost.ports import LOOPBACK, listening
from devhost.protocol import FunctionInfo
from devhost.settings import Settings

if TYPE_CHECKING:
    from devhost.durable_gate import EngineFactory
    from devhost.server import Server

THREADS_SETTING = "PYTHON_THREADPOOL_THREAD_COUNT"
WORKERS_SETTING = "FUNCTIONS_WORKER_PROCESS_COUNT"
"""In the cloud, too, a worker may read how many there are."""
HTTP_THREADS = 32
"""Threads of each worker for functions other than the durable engine's."""

_log = logging.getLogger("devhost.host")


@dataclass(frozen=True, slots=True)
class HostOptions:
    """What to host and where. `port` 0 takes any free one; without a `keys_file` nobody needs a key."""

    app_dir: Path
    state_dir: Path
    host: str = LOOPBACK
    port: int = 7071
    workers: int = 1
    keys_file: Path | None = None


class Host:
    """Hosts one app. `start` returns when all workers are ready; `stop` leaves no process behind."""

    def __init__(self, options: HostOptions, *, engine: EngineFactory | None = None) -> None:
        self._options = options
        self._engine_factory = engine
        self._held = contextlib.ExitStack()
        self._pool: WorkerPool | None = None
        self._server: Server | None = None
        self.url = ""

    @property
    def functions(self) -> tuple[FunctionInfo, ...]:
        """The functions in service. None before the app is loaded."""
        return () if self._server is None else self._server.functions

    def url_of(self, function: FunctionInfo) -> str:
        """The URL template of an HTTP function; empty for others, and before the start."""
        return "" if self._server is None else self._server.url_of(function)

    async def start(self) -> None:
        """Raises AppInvalid, IndexingFailed, StateDirectoryInUse, StateUnusable and AddressUnavailable.

        It has then stopped again.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Takes no more requests, lets those under way end for a few seconds, and stops the workers."""
        if self._server is not None:
            await self._server.stop()
        if self._pool is not None:
            await self._pool.stop()
        self._held.close()

    async def _start(self) -> None:
        options = self._options
        configured = settings.load(options.app_dir)
        for file, ignored in (("host.json", configured.ignored), (settings.LOCAL_SETTINGS, configured.local.ignored)):
            if ignored:
                _log.warning("%s: these settings have no effect in devhost: %s", file, ", ".join(ignored))
        keys = None if options.keys_file is None else auth.Keys.load(options.keys_file)
        self._held.enter_context(state_lock.held(options.state_dir))
        listener = self._held.enter_context(listening(options.host, options.port))
        address = f"{options.host}:{listener.getsockname()[1]}"
        self.url = f"http://{address}"
        self._pool = WorkerPool(
            app_dir=options.app_dir,
            count=options.workers,
            environment=worker_environment(configured, address, options.workers),
            function_timeout=configured.function_timeout,
        )
        loading = asyncio.create_task(self._pool.start())
        try:  # the workers load the app while this process loads what serves it: both take most of a second
            server = await asyncio.to_thread(import_module, "devhost.server")
            self._server = server.Server(
                configured,
                self._pool,
                url=self.url,
                state_dir=options.state_dir,
                keys=keys,
                engine=self._engine_factory,
            )
            await self._server.listen(listener)
            functions = await loading
        finally:
            loading.cancel()
        await self._server.open(functions)


def worker_environment(configured: Settings, address: str, workers: int = 1) -> dict[str, str]:
    """The whole environment of a worker: the app's settings and what the cloud's host adds to them.

    All activities and orchestrators of the host may meet in one worker while the others start again; with a thread for
    each of them, they never keep an HTTP function waiting for a thread.
    """
    threads = HTTP_THREADS + configured.max_activities + configured.max_orchestrators
    package_root = str(Path(__file__).resolve().parent.parent)
    search_path = [str(configured.app_dir), package_root, configured.environment.get("PYTHONPATH", "")]
    return {
        THREADS_SETTING: str(threads),
        "FUNCTIONS_WORKER_RUNTIME": "python",
        "AZURE_FUNCTIONS_ENVIRONMENT": "Development",
        "DEVHOST_WORKER_LOG_LEVEL": configured.log_level,
        **configured.environment,
        WORKERS_SETTING: str(workers),
        "PYTHONPATH": os.pathsep.join(part for part in search_path if part),
        "AzureWebJobsScriptRoot": str(configured.app_dir),
        "WEBSITE_HOSTNAME": address,
    }
