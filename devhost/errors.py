"""The root of every error that devhost raises on purpose."""

from __future__ import annotations


class DevhostError(Exception):
    """Base of devhost's errors. The text is one or two sentences for the person who can act on it."""
