"""How long the Event Grid trigger takes, as Event Grid sees it: from its delivery to the host's answer."""

from __future__ import annotations

import http.client
import json
import time
from urllib.parse import urlsplit

FUNCTION = "on_training_blob"
WARM_UP = 30
ACCOUNT = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/devstoreaccount1"


def trigger_times(app_url: str, pipeline: str, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each delivery, sorted: of `count` events about new blobs, and of the same events once more.

    One connection, one event after the other, after `WARM_UP` events that do not count.
    """
    connection = http.client.HTTPConnection(urlsplit(app_url).netloc, timeout=30)
    try:
        for number in range(WARM_UP):
            _deliver(connection, pipeline, f"warm-{number}.csv")
        first = [_deliver(connection, pipeline, f"{number:05}.csv") for number in range(count)]
        again = [_deliver(connection, pipeline, f"{number:05}.csv") for number in range(count)]
    finally:
        connection.close()
    return sorted(first), sorted(again)


def _deliver(connection: http.client.HTTPConnection, pipeline: str, name: str) -> float:
    body = json.dumps([_event(pipeline, name)])
    started = time.perf_counter()
    headers = {"aeg-event-type": "Notification", "Content-Type": "application/json"}
    connection.request("POST", f"/runtime/webhooks/EventGrid?functionName={FUNCTION}", body, headers)
    answer = connection.getresponse()
    answer.read()
    milliseconds = (time.perf_counter() - started) * 1000
    if answer.status != http.HTTPStatus.ACCEPTED:
        raise RuntimeError(f"the trigger answered {answer.status}")
    return milliseconds


def _event(pipeline: str, name: str) -> dict[str, object]:
    return {
        "id": f"{pipeline}-{name}",
        "topic": ACCOUNT,
        "subject": f"/blobServices/default/containers/training/blobs/{pipeline}/{name}",
        "eventType": "Microsoft.Storage.BlobCreated",
        "eventTime": "2026-01-01T00:00:00Z",
        "data": {"api": "PutBlob", "eTag": f"0x{abs(hash(name)):x}", "contentLength": 100, "sequencer": f"{1:032x}"},
        "dataVersion": "",
        "metadataVersion": "1",
    }
