"""What the local stack's app tells: the events of its topic, as people read them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.2
TYPE_COLUMNS = 26


def events_file(data: Path) -> Path:
    """Where the local Event Grid of a data directory keeps what was published."""
    return data / "eventgrid" / "events.jsonl"


def follow(file: Path) -> Iterator[dict[str, Any]]:
    """Every event in the file, and then each as it is written. Never ends by itself."""
    while not file.exists():
        time.sleep(POLL_SECONDS)
    with file.open(encoding="utf-8") as lines:
        unfinished = ""
        while True:
            line = lines.readline()
            if not line:
                time.sleep(POLL_SECONDS)
                continue
            unfinished += line
            if unfinished.endswith("\n"):
                yield json.loads(unfinished)
                unfinished = ""


def described(event: Mapping[str, Any]) -> str:
    """One line: when, what, which pipeline, and what it says."""
    inner = event.get("event", event)
    data = dict(inner.get("data") or {})
    when = str(inner.get("time", ""))[:19].replace("T", " ")
    said = data.pop("sentence", None) or data.pop("why", None) or data.pop("reason", None) or ""
    facts = ", ".join(f"{name} {value}" for name, value in data.items() if value not in (None, ""))
    kind = str(inner.get("type", inner.get("eventType", "")))
    return f"{when}  {kind:<{TYPE_COLUMNS}}{inner.get('subject', '')}  {facts}{'. ' if facts and said else ''}{said}"
