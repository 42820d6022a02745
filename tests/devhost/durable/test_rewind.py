"""Rewinding: what failed is done again, and only that."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import pytest

from tests.devhost.durable.sdk import App, Hub, hub

pytestmark = pytest.mark.filterwarnings("ignore:azure.functions df_loads was called without expected_type")
type Steps = Generator[Any, Any, Any]
RETRY = df.RetryOptions(first_retry_interval_in_milliseconds=1, max_number_of_attempts=3)


class World:
    """What the activity `breakable` finds: how often it still fails."""

    def __init__(self) -> None:
        self.failures = 10**6


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def app(world: World) -> App:
    app = App()

    @app.activity
    def double(number: Any) -> Any:
        return number * 2

    @app.activity
    def breakable(_: Any) -> Any:
        world.failures -= 1
        if world.failures >= 0:
            raise OSError("down")
        return "up"

    @app.orchestrator
    def child(context: Any) -> Steps:
        return (yield context.call_activity("breakable", None))

    @app.orchestrator
    def patient(context: Any) -> Steps:
        first = yield context.call_activity_with_retry("breakable", RETRY, None)
        second = yield context.call_activity("double", 2)
        return [first, second]

    @app.orchestrator
    def patient_parent(context: Any) -> Steps:
        first = yield context.call_sub_orchestrator_with_retry("child", RETRY, None)
        second = yield context.call_activity("double", 2)
        return [first, second]

    @app.orchestrator
    def late(context: Any) -> Steps:
        first = yield context.call_activity_with_retry("breakable", RETRY, None)
        second = yield context.call_activity("breakable", None)
        return [first, second]

    @app.orchestrator
    def parent(context: Any) -> Steps:
        return (yield context.call_sub_orchestrator("child", None, "the-child"))

    return app


async def _rewound(running: Hub) -> Any:
    assert (await running.ask("POST", "instances/one/rewind", reason="mended"))[0] == 202
    return await running.until(lambda there: there["runtimeStatus"] in {"Completed", "Failed"})


@pytest.mark.parametrize("name", ["patient", "patient_parent"])
async def test_what_failed_after_its_retries_is_tried_again(app: App, world: World, tmp_path: Path, name: str) -> None:
    async with hub(app, tmp_path / "hub.db") as running:
        assert (await running.run(name))["runtimeStatus"] == "Failed"
        again = await _rewound(running)
        assert again["runtimeStatus"] == "Failed"
        assert "OSError: down" in again["output"]
        world.failures = 0
        there = await _rewound(running)
    assert (there["runtimeStatus"], there["output"]) == ("Completed", ["up", 4])


async def test_a_failure_that_a_retry_made_good_stays_as_it_was(app: App, tmp_path: Path) -> None:
    @app.activity
    def breakable(_: Any) -> Any:
        if app.calls.count("breakable") in {1, 3}:
            raise OSError("down")
        return "up"

    async with hub(app, tmp_path / "hub.db") as running:
        assert (await running.run("late"))["runtimeStatus"] == "Failed"
        there = await _rewound(running)
    assert (there["runtimeStatus"], there["output"]) == ("Completed", ["up", "up"])
    assert app.calls.count("breakable") == 4


@pytest.mark.parametrize("lost", ["terminated", "purged"])
async def test_a_child_that_is_no_longer_there_to_rewind_is_started_anew(
    app: App, world: World, tmp_path: Path, lost: str
) -> None:
    """Else its parent would wait for it for ever."""
    app.holding.add("breakable")
    async with hub(app, tmp_path / "hub.db") as running:
        await running.start("parent")
        await app.held.wait()
        if lost == "terminated":
            await running.ask("POST", "instances/the-child/terminate", reason="no more")
        world.failures = 1
        app.holding.clear()
        app.released.set()
        assert (await running.ended())["runtimeStatus"] == "Failed"
        if lost == "purged":
            assert (await running.ask("DELETE", "instances/the-child"))[0] == 200
        world.failures = 0
        there = await _rewound(running)
    assert (there["runtimeStatus"], there["output"]) == ("Completed", "up")
