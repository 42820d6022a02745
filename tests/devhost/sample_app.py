"""A small function app with every kind of trigger but the durable ones, written where a test wants it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SOURCE = '''
import logging
import os
import time
from pathlib import Path

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)
NOTES = Path(os.environ["NOTES"])


def note(name: str, text: str = "") -> None:
    with (NOTES / name).open("a") as file:
        file.write(text + "\\n")


@app.route(route="hello/{name:alpha}", methods=["GET"])
def hello(req: func.HttpRequest) -> func.HttpResponse:
    logging.info("greeting %s", req.route_params["name"])
    greeting = f"hello {req.route_params['name']} {dict(req.params)}"
    return func.HttpResponse(greeting, headers={"x-pid": str(os.getpid())})


@app.route(route="echo", methods=["POST"])
async def echo(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(req.get_body(), status_code=201, mimetype="application/octet-stream")


@app.route(route="fail")
def fail(req: func.HttpRequest) -> func.HttpResponse:
    raise ValueError("as expected")


@app.route(route="leave")
def leave(req: func.HttpRequest) -> func.HttpResponse:
    raise SystemExit("done for today")


@app.route(route="once")
def once(req: func.HttpRequest) -> func.HttpResponse:
    """Hangs the first time that it runs, and answers after that."""
    first = not (NOTES / "once").exists()
    note("once", str(os.getpid()))
    while first:
        time.sleep(0.05)
    return func.HttpResponse(str(os.getpid()))


@app.route(route="fatal")
def fatal(req: func.HttpRequest) -> func.HttpResponse:
    note("fatal")
    os._exit(3)


@app.route(route="busy")
def busy(req: func.HttpRequest) -> func.HttpResponse:
    note("busy", str(os.getpid()))
    while True:
        sum(range(1000))


@app.route(route="wait")
def wait(req: func.HttpRequest) -> func.HttpResponse:
    note("waiting")
    while not (NOTES / "released").exists():
        time.sleep(0.01)
    time.sleep(0.3)  # so that a host that does not wait for it has the time to show that
    return func.HttpResponse("waited")


@app.event_grid_trigger(arg_name="event")
def on_event(event: func.EventGridEvent) -> None:
    note("events", event.id)


@app.timer_trigger(schedule="%TICK%", arg_name="timer", run_on_startup=False)
def tick(timer: func.TimerRequest) -> None:
    note("ticks", str(timer.past_due))


@app.warm_up_trigger("warmup_context")
def warmup(warmup_context) -> None:
    note("warm", str(os.getpid()))
'''


def write(folder: Path, source: str = SOURCE, **host_json: Any) -> Path:
    """Writes the app into `folder`/app and returns that. Its notes go to `folder`/notes."""
    app_dir, notes = folder / "app", folder / "notes"
    app_dir.mkdir()
    notes.mkdir()
    (app_dir / "function_app.py").write_text(source)
    (app_dir / "host.json").write_text(json.dumps({"version": "2.0", **host_json}))
    values = {"NOTES": str(notes), "TICK": "0 0 0 1 1 *"}
    (app_dir / "local.settings.json").write_text(json.dumps({"IsEncrypted": False, "Values": values}))
    return app_dir


def notes(folder: Path, name: str) -> list[str]:
    """What the app has noted under `name`."""
    path = folder / "notes" / name
    return path.read_text().split("\n")[:-1] if path.exists() else []
