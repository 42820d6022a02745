from __future__ import annotations

import itertools
import json
from pathlib import Path

from local.events import described, events_file, follow

EVENT = {
    "type": "Ratchet.ModelPromoted",
    "subject": "shops",
    "time": "2026-11-24T09:00:00.5Z",
    "data": {"version": 2, "who": "ann", "former": None, "why": "looks right"},
}


def test_an_event_is_a_line_that_people_can_read() -> None:
    assert described(EVENT) == ("2026-11-24 09:00:00  Ratchet.ModelPromoted     shops  version 2, who ann. looks right")


def test_events_are_followed_from_the_first_and_never_in_halves(tmp_path: Path) -> None:
    file = events_file(tmp_path)
    file.parent.mkdir(parents=True)
    whole = json.dumps(EVENT)
    file.write_text(f"{whole}\n{whole[:20]}", encoding="utf-8")
    coming = follow(file)
    assert next(coming) == EVENT
    with file.open("a", encoding="utf-8") as more:
        more.write(f"{whole[20:]}\n{whole}\n")
    assert list(itertools.islice(coming, 2)) == [EVENT, EVENT]
