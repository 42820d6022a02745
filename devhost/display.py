"""What a supervisor tells whoever watches it, and two plain ways to show that."""

from __future__ import annotations

from typing import Protocol


class Display(Protocol):
    """Told what the supervisor does; shows it, or not."""

    def starting(self, name: str) -> None:
        """The part's process is about to be started."""
        ...

    def ready(self, name: str, url: str, seconds: float) -> None:
        """The part answered its probe, `seconds` after its start."""
        ...

    def failed(self, name: str) -> None:
        """The part did not come up; the error that follows says why."""
        ...

    def close(self) -> None:
        """Nothing more comes, perhaps because the start was interrupted. May be called again."""
        ...


class SilentDisplay:
    """Shows nothing."""

    def starting(self, name: str) -> None:
        """Nothing."""

    def ready(self, name: str, url: str, seconds: float) -> None:
        """Nothing."""

    def failed(self, name: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class LineDisplay:
    """One line for each part, when it is ready: for logs, pipes and other places that are no terminal."""

    def starting(self, name: str) -> None:
        """Nothing: the line comes when its outcome is known."""

    def ready(self, name: str, url: str, seconds: float) -> None:
        """Name, URL, seconds."""
        print(f"{name:<12} {url:<28} ready in {seconds:.1f} s", flush=True)

    def failed(self, name: str) -> None:
        """Name and the bare fact."""
        print(f"{name:<12} failed", flush=True)

    def close(self) -> None:
        """Nothing."""
