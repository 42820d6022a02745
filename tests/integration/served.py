"""The pipeline that the tests of the protocols share, and rows to ask it about."""

from __future__ import annotations

from typing import Any

from local.stack import LocalStack
from tests.activities.world import rows
from tests.integration.shop import Shop

NAME = "protocols"
FIELDS = ("price", "town", "visits", "member")
RECORDS: list[dict[str, Any]] = [
    {"price": 10.0, "town": "Ghent", "visits": 3, "member": True},
    {"price": 90.5, "town": "Zürich", "visits": 0, "member": False},
    {"price": 55.25, "town": "Porto", "visits": 12, "member": True},
]


FIRST_RUN_SECONDS = 150.0
"""The first run of a stack imports everything that trains, in cold processes."""


def bring_live(shop: Shop, stack: LocalStack) -> None:
    """Uploads what teaches the pipeline, and waits until its first model is live in every worker."""
    lines = rows(0).decode().splitlines()
    wider = [f"{lines[0]},visits,member", *(f"{line},{n % 13},{n % 2}" for n, line in enumerate(lines[1:]))]
    record = shop.record_of(shop.upload("a.csv", "\n".join(wider).encode()), patience=FIRST_RUN_SECONDS)
    assert record["outcome"] == "promoted", record["sentence"]
    workers, seen = {str(pid) for pid in stack.worker_pids()}, set()

    def in_every_worker() -> bool:
        reply = shop.predict(RECORDS[0])
        if reply.status == 200:
            seen.add(reply.headers["x-ratchet-worker"])
        return seen == workers

    assert shop.eventually(in_every_worker)
