"""The fault harness itself: its plan, its uploads, its proxy. (A sample of its scenarios: tests/integration.)"""

from __future__ import annotations

import asyncio
import re
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from http.client import HTTPException
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from bench.chaos.arena import Arena
from bench.chaos.customer import Customer, Met
from bench.chaos.proxy import FAULTS, FaultProxy, Trap, Weather
from bench.chaos.scenarios import BOUNDARIES, FAMILIES, companies, plan
from bench.chaos.uploads import script
from bench.floor import model_of
from devhost.ports import free_ports


def test_the_plan_is_the_same_every_time_and_holds_every_family() -> None:
    scenarios = plan(206, seed=7)
    assert scenarios == plan(206, seed=7)
    assert scenarios != plan(206, seed=8)
    assert len(scenarios) == 206 == len({scenario.pipeline for scenario in scenarios})
    assert {scenario.family for scenario in scenarios} == set(FAMILIES)
    killed = {(scenario.boundary, scenario.victim) for scenario in scenarios if scenario.boundary}
    assert killed == {(boundary, victim) for boundary in BOUNDARIES for victim in ("workers", "host")}
    alone = {kind for scenario in scenarios if len(scenario.storage) == 1 for kind in scenario.storage}
    assert alone == set(FAULTS)
    assert 60.0 in {scenario.registry_down for scenario in scenarios}


def test_who_breaks_the_stack_is_alone_with_it() -> None:
    groups = companies(plan(206, seed=7))
    assert sum(len(group) for group in groups) == 206
    assert all(len({scenario.setting for scenario in group}) == 1 for group in groups)
    assert all(len(group) == 1 for group in groups if any(scenario.alone for scenario in group))
    families = {scenario.family for group in groups if len(group) > 1 for scenario in group}
    assert families == {"none", "storage", "events", "clock", "two hosts"}


def test_scripts_are_the_same_every_time_and_leave_something_to_train_on() -> None:
    scripts = [script(seed) for seed in range(60)]
    assert scripts == [script(seed) for seed in range(60)]
    assert all(made.usable for made in scripts)
    verbs = {upload.verb for made in scripts for upload in made.uploads}
    assert verbs == {"put", "blocks", "copy", "delete"}
    assert any(made.content.keys() - made.usable for made in scripts)


def test_the_floor_makes_the_same_model_whatever_the_order_of_its_files() -> None:
    from bench.chaos.uploads import SPEC
    from models.spec import parse_spec

    made = script(1)
    spec = parse_spec(SPEC.format(name="shops"), source="shops.yaml")
    files = {f"shops/{name}": made.content[name] for name in made.usable}
    assert model_of(files, spec) == model_of(dict(reversed(files.items())), spec)


@pytest.fixture
async def proxy() -> AsyncIterator[tuple[FaultProxy, list[str]]]:
    """A proxy before a server that answers 10,000 bytes, and the requests that reached that server."""
    reached: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        reached.append(f"{request.method} {request.path} {len(await request.read())}")
        return web.Response(body=b"x" * 10_000)

    front, back = free_ports(2)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", back).start()
    with FaultProxy(front, back) as made:
        yield made, reached
    await runner.cleanup()


async def ask(proxy: FaultProxy, data: bytes | None = None) -> int:
    """Bytes of the answer. Raises what urllib raises."""

    def asked() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{proxy.port}/a", data=data, timeout=2) as response:
            return len(response.read())

    return await asyncio.to_thread(asked)


async def test_in_fair_weather_the_proxy_changes_nothing(proxy: tuple[FaultProxy, list[str]]) -> None:
    made, reached = proxy
    assert await ask(made) == 10_000
    assert await ask(made, b"y" * 100_000) == 10_000
    assert reached == ["GET /a 0", "POST /a 100000"]
    assert made.take(b"").total() == 0


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "hang"])
async def test_every_fault_is_what_it_says(proxy: tuple[FaultProxy, list[str]], fault: str) -> None:
    made, reached = proxy
    made.weather = Weather(seed=1, shares={fault: 1.0})  # type: ignore[dict-item]
    if fault == "slow":
        assert await ask(made) == 10_000
    else:
        with pytest.raises((OSError, HTTPException)) as caught:
            await ask(made)
        status = caught.value.code if isinstance(caught.value, urllib.error.HTTPError) else None
        if isinstance(caught.value, urllib.error.HTTPError):
            caught.value.close()
        assert status == {"busy": 503, "error": 500, "lost error": 500}.get(fault)
    assert bool(reached) == (fault not in {"busy", "error", "reset"})
    assert made.take(b"") == {fault: 1}


async def test_a_name_has_weather_of_its_own(proxy: tuple[FaultProxy, list[str]]) -> None:
    made, reached = proxy
    made.local = {b"one": Weather(shares={"busy": 1.0}), b"other": Weather()}
    for data in (b"an other", b"neither"):
        assert await ask(made, data) == 10_000
    with pytest.raises(urllib.error.HTTPError) as caught:
        await ask(made, b"only one")
    caught.value.close()
    assert len(reached) == 2
    assert (made.take(b"other"), made.take(b"one")) == ({}, {"busy": 1})


async def test_a_connection_that_the_server_closes_is_closed_for_the_client(
    proxy: tuple[FaultProxy, list[str]],
) -> None:
    """Else the client's next request on it fails, which is a fault that nobody asked for."""
    made, _ = proxy

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    (port,) = free_ports(1)
    async with await asyncio.start_server(close, "127.0.0.1", port):
        made.upstream = port
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(b"GET /a HTTP/1.1\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), 10) == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        writer.close()
        await writer.wait_closed()


async def test_a_server_that_is_down_answers_nobody(proxy: tuple[FaultProxy, list[str]]) -> None:
    made, reached = proxy
    made.weather = Weather(down=True)
    with pytest.raises((OSError, HTTPException)):
        await ask(made)
    assert reached == []


@pytest.mark.parametrize("after", [False, True])
async def test_a_trap_springs_once(proxy: tuple[FaultProxy, list[str]], *, after: bool) -> None:
    made, reached = proxy
    sprung: list[int] = []
    made.trap = Trap(re.compile(b"^GET /a"), after, lambda: sprung.append(len(reached)))
    with pytest.raises((OSError, HTTPException)):
        await ask(made)
    assert await ask(made) == 10_000
    assert sprung == [int(after)]


def test_the_same_request_has_the_same_fate_whatever_the_run_is_called() -> None:
    weather = Weather(seed=3, shares={"busy": 0.5})
    one, other = (
        b"PUT /devstoreaccount1/features/p/steps/%s/plan.json HTTP/1.1" % run
        for run in (b"20261124T104313-c51abc27", b"20251224T114313-051abc27")
    )
    fates = [weather.fault(one, repetition) for repetition in range(50)]
    assert fates == [weather.fault(other, repetition) for repetition in range(50)]
    assert {"busy", None} == set(fates)


class Struck(Customer):
    """A customer whose requests have these problems, in turn; at each of the first `kills` a worker dies."""

    def __init__(self, *problems: str, kills: int) -> None:
        self.arena: Any = SimpleNamespace(strikes=0, down=threading.Event())
        super().__init__(cast(Arena, self.arena))
        self.problems, self.kills = list(problems), kills

    def _problem(self, pipeline: str) -> str:
        if self.kills:
            self.kills -= 1
            self.arena.strikes += 2
        return self.problems.pop(0)

    def met(self) -> Met:
        self._served.add("shops")
        self._ask("shops")
        return self.take("shops")


def test_a_request_that_two_kills_hit_is_made_a_third_time() -> None:
    assert Struck("500: ", "500: ", "", kills=2).met() == Met(answers=1, repeated=2)


def test_an_error_that_no_kill_explains_counts() -> None:
    met = Struck("500: ", "500: ", kills=1).met()
    assert (met.answers, met.repeated, dict(met.errors)) == (0, 1, {"500: ": 1})
