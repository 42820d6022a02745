"""What goes wrong in a task hub.

DevhostError
├── InvalidAction    an orchestrator or a client asks for something that cannot be done
├── NotFound         no instance of that id
├── Gone             the instance has ended
└── AlreadyRunning   an instance of that id is running
"""

from __future__ import annotations

from devhost.errors import DevhostError


class InvalidAction(DevhostError):
    """Something was asked for that cannot be done. An orchestrator that asks for it fails with this text."""


class NotFound(DevhostError):
    """No instance of that id."""


class Gone(DevhostError):
    """The instance has ended."""


class AlreadyRunning(DevhostError):
    """An instance of that id is running."""
