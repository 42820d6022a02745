"""Faults on request, end to end: what a subscriber sees of them."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from azure.core.messaging import CloudEvent

from devhost.eventgrid.cli import main
from devhost.eventgrid.faults import DUPLICATE_WITHIN_SECONDS, REORDER_WITHIN_SECONDS, Faults
from devhost.eventgrid.server import Configuration, running
from devhost.eventgrid.store import Accepted, Store
from devhost.eventgrid.subscriptions import MAX_ATTEMPTS, Subscription
from devhost.ports import free_port
from tests.devhost.topics import KEY, QUICK, event_grid_process, lines, send
from tests.devhost.webhook import Webhook, eventually

IDS = [f"event-{number}" for number in range(40)]


@pytest.fixture
async def webhook() -> AsyncIterator[Webhook]:
    hook = Webhook()
    async with hook.listening():
        yield hook


def grid(
    folder: Path, hook: Webhook, faults: Faults, *, max_attempts: int = MAX_ATTEMPTS, ttl_minutes: int = 60
) -> Configuration:
    subscription = Subscription(
        "sub", hook.url, source="topics/models", max_attempts=max_attempts, ttl_minutes=ttl_minutes
    )
    return Configuration(folder, 0, (subscription,), topic_key=KEY, back_off=QUICK, faults=faults)


def events(*ids: str) -> list[CloudEvent[object]]:
    return [CloudEvent(source="ratchet", type="Test.Happened", subject=f"/{one}", id=one) for one in ids]


def received(hook: Webhook) -> Counter[str]:
    return Counter(event["id"] for event in hook.events)


async def any_of(ids: list[str], hook: Webhook) -> None:
    await eventually(lambda: received(hook).keys() & set(ids))


async def test_what_is_duplicated_comes_twice_and_all_the_rest_once(
    tmp_path: Path, webhook: Webhook, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = Faults(seed=7, duplicate=0.3)
    expected = Counter({one: len(faults.fate("sub", one).waits) for one in IDS})
    async with running(grid(tmp_path, webhook, faults)) as port:
        await send(port, events(*IDS))
        await eventually(lambda: received(webhook) == expected)
    assert expected.total() > len(IDS)
    assert "Faults on request, with seed 7: duplicate 0.3\n" in capsys.readouterr().out


async def test_what_is_dropped_never_comes_and_is_named(
    tmp_path: Path, webhook: Webhook, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = Faults(seed=7, drop=0.3)
    lost = [one for one in IDS if faults.fate("sub", one).dropped]
    async with running(grid(tmp_path, webhook, faults)) as port:
        await send(port, events(*IDS))
        await eventually(lambda: received(webhook) == Counter(set(IDS) - set(lost)))
    printed = capsys.readouterr().out.splitlines()
    named = [f"sub: dropped on request: Test.Happened /{one} (event {one})" for one in lost]
    assert lost
    assert [line for line in printed if "dropped" in line] == named
    assert [event["id"] for event in lines(tmp_path / "events.jsonl")] == IDS  # published they were


async def test_a_delay_is_as_long_as_it_says(tmp_path: Path, webhook: Webhook) -> None:
    async with running(grid(tmp_path, webhook, Faults(delay=1.0, delay_seconds=0.4))) as port:
        before = time.monotonic()
        await send(port, events("late"))
        await eventually(lambda: received(webhook))
        assert time.monotonic() - before >= 0.4


async def test_what_is_reordered_comes_after_a_later_event(tmp_path: Path, webhook: Webhook) -> None:
    faults = Faults(seed=7, reorder=0.3)
    held = [one for one in IDS if faults.fate("sub", one).overtaken]
    async with running(grid(tmp_path, webhook, faults)) as port:
        await send(port, events(*IDS))
        await eventually(lambda: received(webhook) == Counter(IDS))
    order = [IDS.index(event["id"]) for event in webhook.events]
    assert held
    for one in map(IDS.index, held):
        if one < max(set(range(len(IDS))) - set(map(IDS.index, held))):
            assert any(later > one for later in order[: order.index(one)]), one


async def test_what_nothing_overtakes_comes_by_itself(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devhost.eventgrid.store.REORDER_WITHIN_SECONDS", 0.3)
    async with running(grid(tmp_path, webhook, Faults(reorder=1.0))) as port:
        await send(port, events("only"))
        await eventually(lambda: received(webhook) == Counter(["only"]))


async def test_faults_use_up_neither_attempts_nor_lifetime(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(duplicate=1.0, reorder=1.0, delay=1.0, delay_seconds=3_600.0)
    fate = faults.fate("sub", "one")
    copies = [Accepted("sub", {"specversion": "1.0", "id": "one"}, wait, fate.overtaken) for wait in fate.waits]
    published = time.time() - 3_600 - DUPLICATE_WITHIN_SECONDS - REORDER_WITHIN_SECONDS
    with contextlib.closing(Store(tmp_path)) as store, monkeypatch.context() as past:
        past.setattr("devhost.eventgrid.store.time.time", lambda: published)
        store.accept(copies)
    webhook.answers = [500, 500]
    async with running(grid(tmp_path, webhook, faults, ttl_minutes=1, max_attempts=3)):
        await eventually(lambda: received(webhook) == Counter({"one": 4}))
    assert lines(tmp_path / "deadletter.jsonl") == []


async def test_retry_and_dead_letters_work_as_ever_under_faults(
    tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devhost.eventgrid.store.REORDER_WITHIN_SECONDS", 0.3)
    webhook.answers = [500] * 6
    async with running(grid(tmp_path, webhook, Faults(duplicate=1.0, reorder=1.0), max_attempts=3)) as port:
        await send(port, events("one"))
        await eventually(lambda: len(lines(tmp_path / "deadletter.jsonl")) == 2)
        await send(port, events("two"))
        await eventually(lambda: received(webhook) == Counter({"one": 6, "two": 2}))


async def test_all_faults_and_kill_9_lose_only_what_is_dropped(tmp_path: Path) -> None:
    hook, port = Webhook(), free_port()
    options = ["--port", str(port), "--state", str(tmp_path), "--webhook", hook.url, "--source", "topics/models"]
    for fault in ("duplicate=0.3", "delay=0.5:200ms", "reorder=0.3", "drop=0.2"):
        options += ["--fault", fault]
    options += ["--seed", "11"]
    faults = Faults(seed=11, duplicate=0.3, delay=0.5, delay_seconds=0.2, reorder=0.3, drop=0.2)
    fates = {one: faults.fate("webhook", one) for one in IDS}
    async with hook.listening():
        for life in range(4):  # killed while deliveries are on their way
            async with event_grid_process(*options) as printed:
                batch = IDS[life * 10 : life * 10 + 10]
                await send(port, events(*batch))
                await any_of(batch, hook)
            assert f"Faults on request, with seed 11: {faults}" in printed
        expected = {one: len(fate.waits) for one, fate in fates.items() if not fate.dropped}
        async with event_grid_process(*options):
            await eventually(lambda: all(received(hook)[one] >= copies for one, copies in expected.items()))
    assert received(hook).keys() == expected.keys()
    assert len(expected) < len(IDS)


def test_a_fault_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--state", str(tmp_path), "--fault", "loss=1"]) == 2
    assert "Fault loss=1: write KIND=SHARE" in capsys.readouterr().err
