"""Sets the app's clock wrong by CHAOS_CLOCK_SKEW_SECONDS, once the module that reads it is imported."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import ModuleType

CLOCK = "activities.dependencies"


class _Loader(importlib.abc.Loader):
    def __init__(self, inner: importlib.abc.Loader) -> None:
        self._inner = inner

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._inner.exec_module(module)
        skew = timedelta(seconds=float(os.environ["CHAOS_CLOCK_SKEW_SECONDS"]))

        def wrong_now() -> datetime:
            return datetime.now(UTC) + skew

        # The dataclass took the right clock as its default; __init__ reads it from here.
        module.utc_now = wrong_now  # type: ignore[attr-defined]
        module.Dependencies.__init__.__kwdefaults__ = None
        defaults = module.Dependencies.__init__.__defaults__
        module.Dependencies.__init__.__defaults__ = (*defaults[:-1], wrong_now)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != CLOCK:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


if "CHAOS_CLOCK_SKEW_SECONDS" in os.environ:
    sys.meta_path.insert(0, _Finder())
