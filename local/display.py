"""What the user sees while the stack starts: on a terminal a line that moves, elsewhere one plain line a part."""

from __future__ import annotations

from rich.console import Console

from devhost.display import Display, LineDisplay

NAME_WIDTH = 12
URL_WIDTH = 26


class TerminalDisplay:
    """One line for each part, and below them what is still awaited."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._waiting: list[str] = []
        self._status = console.status("")

    def starting(self, name: str) -> None:
        """Adds the part to what is awaited."""
        self._waiting.append(name)
        self._refresh()

    def ready(self, name: str, url: str, seconds: float) -> None:
        """The part's line."""
        self._waiting.remove(name)
        self._console.print(
            f"[green]✓[/] {name:<{NAME_WIDTH}} [cyan]{url:<{URL_WIDTH}}[/] [dim]{seconds:.1f} s[/]", highlight=False
        )
        self._refresh()

    def failed(self, name: str) -> None:
        """The part's line; nothing is awaited any more."""
        self._console.print(f"[red]✗[/] {name}", highlight=False)
        self.close()

    def close(self) -> None:
        """Takes the moving line away, which also gives the terminal its cursor back."""
        self._waiting.clear()
        self._refresh()

    def _refresh(self) -> None:
        if self._waiting:
            self._status.update(f"starting {', '.join(self._waiting)}")
            self._status.start()
        else:
            self._status.stop()


def display_for(console: Console) -> Display:
    """The display that suits where the output goes."""
    return TerminalDisplay(console) if console.is_terminal else LineDisplay()
