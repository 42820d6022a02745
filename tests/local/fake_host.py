"""Stands in for the functions host: `fake_host.py PORT RECORD` answers its status, and records events as JSON lines.

It has two worker processes of its own, which do nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from aiohttp import web

WORKERS = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(2)]


async def status(request: web.Request) -> web.Response:
    return web.json_response({"state": "Running", "workers": [worker.pid for worker in WORKERS]})


def record(events: list[dict[str, object]]) -> None:
    with Path(sys.argv[2]).open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


async def event_grid(request: web.Request) -> web.Response:
    body = json.loads(await request.read())
    if request.headers["aeg-event-type"] == "SubscriptionValidation":
        return web.json_response({"validationResponse": body[0]["data"]["validationCode"]})
    record(body)
    return web.Response(status=202)


if __name__ == "__main__":
    application = web.Application()
    application.router.add_get("/admin/host/status", status)
    application.router.add_post("/runtime/webhooks/EventGrid", event_grid)
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), access_log=None)
