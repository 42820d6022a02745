"""A state directory has one host at a time: durable state must not have two writers that think themselves alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from devhost.errors import StateDirectoryInUse, StateUnusable

LOCK_FILE = "devhost.lock"


@contextlib.contextmanager
def held(state_dir: Path) -> Iterator[None]:
    """Holds the directory, which is made if need be. The kernel lets go when we die.

    Raises StateDirectoryInUse and StateUnusable.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)  # not inherited by the workers
    except OSError as error:
        raise StateUnusable(state_dir, error.strerror or str(error)) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise StateDirectoryInUse(state_dir, owner) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
