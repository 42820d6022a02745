from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from devhost.watching import next_change
from tests.devhost.waiting import eventually

QUIET_LIMIT = 1.0
"""Seconds in which a change would long have been told."""


async def told(app_dir: Path, change: Callable[[int], object], limit: float = 15.0) -> list[str]:
    """Which files are told to have changed. Changes them again and again: when the watch begins, nobody sees."""
    waiting = asyncio.create_task(next_change(app_dir))
    counter = itertools.count()

    async def changed() -> bool:
        change(next(counter))
        return waiting.done()

    try:
        await eventually(changed, limit, pause=0.3)
        return [str(path.relative_to(app_dir)) for path in waiting.result()]
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})


def writes(path: Path) -> Callable[[int], object]:
    return lambda number: path.write_text(f"# {number}")


@pytest.mark.parametrize("name", ["function_app.py", "inside/deep/part.py", "host.json", "local.settings.json"])
async def test_code_and_settings_count(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    assert await told(tmp_path, writes(tmp_path / name)) == [name]


async def test_code_in_a_new_folder_counts(tmp_path: Path) -> None:
    def change(number: int) -> None:
        folder = tmp_path / f"part{number}"
        folder.mkdir()
        (folder / "new.py").write_text("")

    changed = await told(tmp_path, change)
    assert changed
    assert all(name.endswith("new.py") for name in changed)


async def test_a_deleted_file_counts(tmp_path: Path) -> None:
    def change(number: int) -> None:
        path = tmp_path / f"part{number}.py"
        path.write_text("")
        path.unlink()

    assert await told(tmp_path, change)


@pytest.mark.parametrize(
    "name", ["notes.txt", "data/part.csv", "__pycache__/part.py", ".hidden/part.py", "env/lib/part.py"]
)
async def test_other_files_do_not_count(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "env").mkdir(exist_ok=True)
    (tmp_path / "env" / "pyvenv.cfg").touch()
    with pytest.raises(AssertionError, match="not so within"):
        await told(tmp_path, writes(tmp_path / name), limit=QUIET_LIMIT)
