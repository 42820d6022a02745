from __future__ import annotations

import logging

import pytest

from devhost.durable import trying


async def test_a_failure_that_goes_on_is_told_once_and_so_is_its_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trying, "RETRY_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    failures = iter([OSError("no space"), OSError("no space"), OSError("no space"), ValueError("other"), None])

    async def work() -> None:
        failure = next(failures)
        if failure is not None:
            raise failure

    await trying.until_it_works(work, "an episode")
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR", "INFO"]
    assert "an episode has worked now" in caplog.text


async def test_what_works_at_once_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def work() -> None: ...

    await trying.until_it_works(work, "an episode")
    assert not caplog.records
