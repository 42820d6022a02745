"""Catching up: whatever happens to the log and to the process, a subscription hears of what storage holds."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Coroutine, Iterable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from devhost.eventgrid.storage import StorageAway
from devhost.eventgrid.store import Accepted, Progress, Store
from tests.devhost.fake_azurite import FakeAzurite, source, told

NAMES = st.sampled_from(["a.csv", "b.csv", "p/c d.csv"])


class Died(Exception):
    """In place of `kill -9`."""


class MortalStore(Store):
    """`dies`: the process ends in the next transaction, committed or not."""

    dies: bool | None = None

    def accept(self, deliveries: Iterable[Accepted], progress: Progress | None = None) -> None:
        if self.dies is not False:
            super().accept(deliveries, progress)
        if self.dies is not None:
            raise Died


class AnythingHappens(RuleBasedStateMachine):
    """Writes, deletions, logs that are truncated, moved and removed, deaths of the process, in any order.

    After all of it, one start is enough: the last write of whatever storage holds was told, and of whatever it no
    longer holds the deletion was told last.
    """

    @initialize()
    def prepare(self) -> None:
        self.life = contextlib.ExitStack()
        self.folder = Path(self.life.enter_context(tempfile.TemporaryDirectory()))
        self.azurite = FakeAzurite(self.folder / "azurite.log")
        self.opened = self.life.enter_context(contextlib.ExitStack())
        self._start()
        self._run(100)

    def teardown(self) -> None:
        if hasattr(self, "life"):
            with self.life:
                self.look_after_a_start()
                self.opened.close()

    @rule(name=NAMES)
    def write(self, name: str) -> None:
        self.azurite.put(name)

    @rule(name=NAMES, logged=st.booleans())
    def delete(self, name: str, logged: bool) -> None:
        if name in self.azurite.etags["training"]:
            self.azurite.delete(name, logged=logged)

    @rule(name=NAMES)
    def alter(self, name: str) -> None:
        if name in self.azurite.etags["training"]:
            self.azurite.metadata(name)

    @rule()
    def truncate_log(self) -> None:
        if self.azurite.log.exists():
            self.azurite.log.write_bytes(b"")

    @rule()
    def move_log_aside(self) -> None:
        if self.azurite.log.exists():
            self.azurite.log.rename(self.folder / "azurite.log.1")

    @rule()
    def remove_log(self) -> None:
        self.azurite.log.unlink(missing_ok=True)

    @rule(times=st.integers(1, 3))
    def work(self, times: int) -> None:
        self._run(times)

    @rule()
    def work_while_storage_is_away(self) -> None:
        self.azurite.away = True
        with contextlib.suppress(StorageAway):
            self._run(1)
        self.azurite.away = False

    @rule(committed=st.booleans())
    def die(self, committed: bool) -> None:
        """`kill -9`: at the worst moments, just before a transaction is committed and just after."""
        self.store.dies = committed
        with contextlib.suppress(Died):
            self._run(3)
        self._start()

    @rule()
    def look_after_a_start(self) -> None:
        self._start()
        self._run(100)
        last = {name: (kind, etag) for kind, name, etag in told(self.folder)}
        for name in self.azurite.etags["training"]:
            kind, etag = last[name]
            assert kind == "Created", name
            assert int(etag, 16) >= self.azurite.written[name], f"the last write of {name} was not told"
        for name in last.keys() - self.azurite.etags["training"].keys():
            assert last[name][0] == "Deleted", name

    def _start(self) -> None:
        self.opened.close()
        self.store = self.opened.enter_context(contextlib.closing(MortalStore(self.folder)))
        self.source = source(self.azurite, self.store)

    def _run(self, times: int) -> None:
        for _ in range(times):
            if not run(self.source.step()):
                return


def run(step: Coroutine[None, None, bool]) -> bool:
    with asyncio.Runner() as runner:
        return runner.run(step)


def test_nothing_is_missed_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("devhost.eventgrid.storage.LOG_LAG_SECONDS", 0.0)
    run_state_machine_as_test(
        AnythingHappens,
        settings=settings(max_examples=60, stateful_step_count=30, deadline=None),
    )
