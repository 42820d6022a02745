"""`--watch`: the app is started again when its code changes, on the same port, with its durable state."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.devhost import sample_app
from tests.devhost.waiting import eventually

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).parents[2]

APP = """
import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route(route="word")
async def word(req: func.HttpRequest) -> str:
    return "{word}"
"""


class Watched:
    """`python -m devhost start --watch` and what it has written so far."""

    def __init__(self, app_dir: Path, process: asyncio.subprocess.Process) -> None:
        self.app_dir, self.process, self.output = app_dir, process, ""

    async def read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.output += line.decode()

    async def says(self, text: str, *, times: int = 1) -> None:
        async def said() -> bool:
            assert self.process.returncode is None, self.output
            return self.output.count(text) >= times

        await eventually(said)

    def write(self, source: str) -> None:
        (self.app_dir / "function_app.py").write_text(source)

    async def answer(self) -> str:
        url = self.output.rpartition("Host ready on ")[2].split()[0]
        async with aiohttp.ClientSession() as client, client.get(f"{url}/api/word") as response:
            return await response.text()


@contextlib.asynccontextmanager
async def watched(folder: Path, source: str) -> AsyncIterator[Watched]:
    app_dir = sample_app.write(folder, source)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "devhost", "start", "--watch", "--port", "0", "--app", str(app_dir)),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    host = Watched(app_dir, process)
    reading = asyncio.create_task(host.read())
    try:
        yield host
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


async def test_changed_code_is_loaded_on_the_same_port_and_broken_code_waits(tmp_path: Path) -> None:
    async with watched(tmp_path, APP.format(word="one")) as host:
        await host.says("Host ready on ")
        assert await host.answer() == "one"
        host.write(APP.format(word="two"))
        await host.says("function_app.py changed: starting again")
        await host.says("Host ready on ", times=2)
        assert await host.answer() == "two"
        urls = [line for line in host.output.splitlines() if line.startswith("Host ready on ")]
        assert len(set(urls)) == 1
        host.write("this is no Python")
        await host.says("SyntaxError")
        await host.says("waiting for a change of the code")
        host.write(APP.format(word="three"))
        await host.says("Host ready on ", times=3)
        assert await host.answer() == "three"
        host.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(host.process.wait(), 10) == 0


async def test_an_app_that_does_not_load_at_the_first_start_is_waited_for_and_can_be_left(tmp_path: Path) -> None:
    async with watched(tmp_path, "this is no Python") as host:
        await host.says("waiting for a change of the code")
        host.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(host.process.wait(), 10) == 0
