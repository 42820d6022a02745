"""The sweep's timer."""

from __future__ import annotations

from typing import cast

import azure.durable_functions as df
import pytest

from activities.dependencies import Dependencies
from activities.sweep import Findings
from adapters.ledger import LedgerError
from tests.activities.world import World
from triggers.timers import sweep_all


async def test_one_pipelines_trouble_is_not_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    swept: list[str] = []

    def looking(pipeline: str, _: Dependencies) -> Findings:
        swept.append(pipeline)
        raise LedgerError("", f"no ledger for {pipeline}")

    (world.pipelines / "other.yaml").write_text("name: other")
    monkeypatch.setattr("triggers.timers.look_over", looking)
    with pytest.raises(ExceptionGroup) as caught:
        await sweep_all(client=cast(df.DurableOrchestrationClient, None))
    assert swept == ["other", "shops"]
    assert len(caught.value.exceptions) == 2
