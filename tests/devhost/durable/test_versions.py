"""Versions of orchestrations: which one an instance gets, and what a host does with one that it may not run."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from devhost.durable.versions import Versions
from tests.devhost.durable.sdk import App, hub

type Steps = Generator[Any, Any, Any]


@pytest.fixture
def app() -> App:
    app = App()

    @app.orchestrator
    def version(context: Any) -> Steps:
        yield context.create_timer(context.current_utc_datetime)
        return context.version

    @app.orchestrator
    def family(context: Any) -> Steps:
        usual = yield context.call_sub_orchestrator("version")
        older = yield context.call_sub_orchestrator("version", version="0.9")
        return [context.version, usual, older]

    return app


async def test_an_instance_keeps_the_version_that_it_was_started_with(app: App, tmp_path: Path) -> None:
    async with hub(app, tmp_path / "hub.db", Versions(default="1.2")) as running:
        assert (await running.run("version"))["output"] == "1.2"
        client = running.client()
        given = await client.start_new("version", "old", version="1.1")
        assert (await running.ended(given))["output"] == "1.1"
        assert (await running.run("family", instance="family"))["output"] == ["1.2", "1.2", "0.9"]


async def test_an_instance_of_a_newer_version_waits_for_a_host_that_may_run_it(app: App, tmp_path: Path) -> None:
    async with hub(app, tmp_path / "hub.db", Versions(default="2.0")) as running:
        app.holding.add("version")
        await running.start("version")
        await app.held.wait()
    app.holding.clear()
    async with hub(app, tmp_path / "hub.db", Versions(default="1.0")) as running:
        # Another instance ends meanwhile, so that this one would have had its turn.
        assert (await running.run("version", instance="other"))["output"] == "1.0"
        assert (await running.status())["runtimeStatus"] == "Running"
    async with hub(app, tmp_path / "hub.db", Versions(default="2.0")) as running:
        assert (await running.ended())["output"] == "2.0"


async def test_an_instance_of_another_version_fails_where_host_json_says_so(app: App, tmp_path: Path) -> None:
    strict = Versions(default="1.0", match="Strict", failure="Fail")
    async with hub(app, tmp_path / "hub.db", strict) as running:
        client = running.client()
        given = await client.start_new("version", "old", version="0.9")
        there = await running.ended(given)
    assert (there["runtimeStatus"], there["output"]) == (
        "Failed",
        "VersionMismatch: Orchestration version did not comply with Worker Versioning",
    )


@pytest.mark.parametrize(
    ("version", "default", "admitted"),
    [
        ("1.0.0", "1.0.0", True),
        ("1.9", "1.10", True),
        ("1.10", "1.9", False),
        ("1.0", "1.0.0", True),
        ("1.0.0", "1.0", False),
        ("", "1.0", True),
        ("beta", "ALPHA", False),
        ("alpha", "BETA", True),
        ("9.9", "", True),
    ],
)
def test_current_or_older(version: str, default: str, admitted: bool) -> None:
    assert Versions(default=default).admits(version) is admitted


def test_strict_and_none() -> None:
    assert not Versions(default="2.0", match="Strict").admits("1.0")
    assert Versions(default="2.0", match="Strict").admits("2.0")
    assert Versions(default="2.0", match="None").admits("3.0")
