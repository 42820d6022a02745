"""The load client counts answers, and takes nothing but a 200 for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from bench.load import load

ANSWER = "x" * 100_000
"""Long enough to come in several pieces."""


@pytest.fixture
async def served() -> AsyncIterator[tuple[str, list[str]]]:
    """The URL of a server, and the paths that it was asked for."""
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        asked.append(request.path)
        return web.Response(text=ANSWER, status=200 if request.path == "/good" else 404)

    runner = web.ServerRunner(web.Server(handler=handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    await runner.cleanup()


async def test_each_connection_asks_again_when_it_has_the_whole_answer(served: tuple[str, list[str]]) -> None:
    url, asked = served
    assert (await load(f"{url}/good", 4, 0.2)).rate > 0
    assert len(asked) > 4


async def test_an_answer_that_is_no_200_ends_it(served: tuple[str, list[str]]) -> None:
    with pytest.raises(RuntimeError, match="not a 200"):
        await load(f"{served[0]}/bad", 2, 0.2)
