"""Starting a run, or being content that there is one."""

from __future__ import annotations

from enum import Enum
from typing import Any, cast

import azure.durable_functions as df
import pytest

from triggers.runs import ensure_run, run_status


class Runtime(Enum):
    Running = 1
    Failed = 2


class Status:
    def __init__(self, runtime: Runtime | None) -> None:
        self.runtime_status, self.custom_status, self.output = runtime, {"step": "train"}, "why"


class Client:
    """Starts once, then refuses as the platform does."""

    def __init__(self, runtime: Runtime | None, *, refuses: bool) -> None:
        self.runtime, self.refuses = runtime, refuses
        self.started: list[Any] = []

    async def start_new(self, name: str, instance: str, payload: Any) -> str:
        if self.refuses:
            raise RuntimeError("An Orchestration instance already exists.")
        self.started.append((name, instance, payload))
        return instance

    async def get_status(self, instance: str) -> Status:
        assert instance == "retrain-shops"
        return Status(self.runtime)


def client(runtime: Runtime | None = None, *, refuses: bool = False) -> df.DurableOrchestrationClient:
    return cast(df.DurableOrchestrationClient, Client(runtime, refuses=refuses))


async def test_a_run_is_started_under_the_pipelines_one_name() -> None:
    platform = client()
    assert await ensure_run(platform, "shops", force=True)
    assert cast(Client, platform).started == [
        ("retrain", "retrain-shops", {"pipeline": "shops", "force": True, "stale": False, "hub": ""}),
    ]


async def test_a_run_under_way_is_success() -> None:
    assert not await ensure_run(client(Runtime.Running, refuses=True), "shops")


@pytest.mark.parametrize("runtime", [None, Runtime.Failed])
async def test_a_start_that_failed_for_another_reason_is_an_error(runtime: Runtime | None) -> None:
    with pytest.raises(Exception, match="already exists"):
        await ensure_run(client(runtime, refuses=True), "shops")


async def test_the_status_of_an_instance_that_never_ran_is_none() -> None:
    assert await run_status(client(None), "shops") is None
    assert await run_status(client(Runtime.Failed), "shops") == {
        "runtime": "Failed",
        "progress": {"step": "train"},
        "output": "why",
    }
