"""The machine that a benchmark ran on, in neutral words."""

from __future__ import annotations

import os
import platform


def machine() -> str:
    """CPUs and Python: what ratios may hang on."""
    return f"{os.cpu_count()} CPUs, Python {platform.python_version()}."
