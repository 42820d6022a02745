"""Tells when an app's code or settings have changed, for `--watch`. Built on watchfiles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

SETTINGS = frozenset({"host.json", "local.settings.json"})
IGNORED = frozenset({"__pycache__", "node_modules"})
QUIET_MS = 100
"""A change counts once nothing more has changed for this long: editors and version control write file after file."""


async def next_change(app_dir: Path) -> list[Path]:
    """Waits until Python files, host.json or local.settings.json have changed, and returns which.

    Only folders that may hold code are watched, each by itself, so that an environment with thousands of folders inside
    the app costs nothing. A folder that is new is watched, too.
    """
    from watchfiles import Change, awatch

    while True:
        folders = list(_folders(app_dir))
        known = set(folders)

        def counts(change: Change, name: str, known: set[Path] = known) -> bool:
            path = Path(name)
            is_new_folder = change == Change.added and path.is_dir() and not _ignored(path) and path not in known
            return is_new_folder or path.suffix == ".py" or path.name in SETTINGS

        async for changes in awatch(*folders, watch_filter=counts, step=QUIET_MS, recursive=False):
            changed = sorted({Path(name) for _, name in changes})
            code = [path for path in changed if not path.is_dir()]
            # What a new folder holds already was written before anybody watched it.
            code += [path for folder in changed if folder.is_dir() for path in folder.rglob("*.py")]
            if code:
                return code
            break


def _folders(app_dir: Path) -> Iterator[Path]:
    """The app's folders, without hidden ones, environments and caches."""
    for folder, inside, _ in os.walk(app_dir):
        inside[:] = [name for name in inside if not _ignored(Path(folder, name))]
        yield Path(folder)


def _ignored(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name in IGNORED or (folder / "pyvenv.cfg").exists()
