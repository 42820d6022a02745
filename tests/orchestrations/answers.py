"""An app with the real orchestrations, whose activities only answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from activities.contracts import Claimed, Done, Fitted, Judged, Settled, Uploads
from orchestrations.retrain import fan_out, retrain
from tests.devhost.durable.sdk import App

NOW = "2026-01-01T00:00:00+00:00"


class Answers(App):
    """An app whose activities give fixed answers and remember what they were asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.uploads = [Uploads(1, NOW, NOW, 0, 0)]
        self.orchestrator(retrain)
        self.orchestrator(fan_out)
        self.answer("look", lambda _: self.uploads[0] if len(self.uploads) == 1 else self.uploads.pop(0))
        self.answer("claim", lambda _: Claimed(todo=1, batches=1))
        self.answer("validate", lambda _: Done())
        self.answer("fit", lambda _: Fitted(todo=1, batches=1))
        self.answer("judge", lambda _: Judged(promote=True, sentence="Promoted: it is better."))
        self.answer("settle", lambda _: Settled(pending=0))
        self.answer("abandon", lambda _: Settled(pending=1))
        for name in ("transform", "train", "export", "evaluate", "register", "promote", "align", "illustrate"):
            self.answer(name, lambda _: Done())

    def answer(self, name: str, function: Callable[[dict[str, Any]], Any]) -> None:
        def activity(payload: dict[str, Any]) -> Any:
            self.asked.append((name, payload))
            return {"result": function(payload).to_dict(), "seconds": 0.5}

        self.activities[name] = activity

    def count(self, name: str) -> int:
        return [asked for asked, _ in self.asked].count(name)


def failing(app: Answers, name: str, text: str, *, times: int = 10**6) -> None:
    """Makes an activity fail with this text, the first so many times."""
    answer = app.activities[name]
    left = [times]

    def activity(payload: dict[str, Any]) -> Any:
        if left[0]:
            left[0] -= 1
            app.asked.append((name, payload))
            raise RuntimeError(text)
        return answer(payload)

    app.activities[name] = activity
