"""What serving costs a worker: its start, its imports, its handler, its packages. Each in a process of its own."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peers import tensors
from bench.report import Row
from bench.stack import Stack
from bench.trees import PLACE, ROOT, Trees

STARTS = 7
REQUIREMENTS = ROOT / "requirements-serve.txt"

IMPORT = """
import time
begun = time.perf_counter()
import function_app
function_app.app.get_functions()
print(time.perf_counter() - begun)
"""
HANDLER = """
import asyncio, inspect, json, statistics, sys, time
import azure.functions as func
from serving.session import Session
from triggers import inference

body = sys.stdin.buffer.read()
handler = inference.infer._function.get_user_function()
inside = []
run = Session.run

def timed(self, feed):
    begun = time.perf_counter()
    try:
        return run(self, feed)
    finally:
        inside.append(time.perf_counter() - begun)

Session.run = timed

async def main():
    beyond = []
    for _ in range(6_000):
        request = func.HttpRequest(
            method="POST", url="http://x/", headers={"content-type": "application/json"},
            params={}, route_params={"pipeline": "flight-delays"}, body=body,
        )
        begun = time.perf_counter()
        answer = handler(request)
        if inspect.isawaitable(answer):
            answer = await answer
        taken = time.perf_counter() - begun
        assert answer.status_code == 200, answer.get_body()
        beyond.append(taken - inside[-1])
    print(json.dumps([statistics.median(beyond[1_000:]), statistics.median(inside[-5_000:])]))

asyncio.run(main())
"""
FIRST_PREDICTION = """
import asyncio, sys, time
from devhost import runtime
from devhost.protocol import Invocation

async def main():
    functions = {f.name: f.id for f in runtime.index(sys.argv[1])}
    request = ("http", ("POST", "http://x/", {"content-type": "application/json"}, sys.stdin.buffer.read(),
                        {"pipeline": "flight-delays"}, {}))
    invocation = Invocation(function_id=functions["infer"], inputs=(("req", request),), metadata={})
    outcome = await runtime.invoke("first", invocation)
    assert outcome.ok and outcome.value[1][0] == 200, outcome
    print(time.time())

asyncio.run(main())
"""


def measure(stack: Stack, model: Trees, one: Sequence[Mapping[str, Any]]) -> list[Row]:
    """All of them. The stack is up, with a champion."""
    body = tensors(model, one)
    return [_handler(stack, body), _first_prediction(stack, body), _import(), _size()]


def _python(code: str, *arguments: str, settings: Mapping[str, str], stdin: bytes = b"") -> str:
    environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env=environment,
        input=stdin,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode().strip())
    return done.stdout.decode()


def _handler(stack: Stack, body: bytes) -> Row:
    beyond, inside = (1e6 * seconds for seconds in json.loads(_python(HANDLER, settings=stack.settings(), stdin=body)))
    measured = f"{beyond:.0f} us (session.run {inside:.0f} us)"
    return Row("work in the handler beyond session.run, 1 row", "at most 60 us", measured, beyond <= 60)


def _first_prediction(stack: Stack, body: bytes) -> Row:
    taken = []
    for _ in range(STARTS):
        begun = time.time()
        # The process tells when it has the answer: how it ends is not counted.
        taken.append(float(_python(FIRST_PREDICTION, str(ROOT), settings=stack.settings(), stdin=body)) - begun)
    seconds = statistics.median(taken)
    return Row("worker start to first prediction", "under 1 s", f"{seconds:.2f} s", seconds < 1)


def _import() -> Row:
    seconds = statistics.median(float(_python(IMPORT, settings={"RATCHET_ROLE": "serve"})) for _ in range(STARTS))
    return Row("import of the serving role", "under 0.4 s", f"{seconds:.2f} s", seconds < 0.4)


def _size() -> Row:
    """Of what `requirements-serve.txt` puts into an empty environment."""
    environment, uv = PLACE / "env-serve", str(Path(sys.executable).with_name("uv"))
    mark = environment / ".requirements"
    if not mark.exists() or mark.read_text() != REQUIREMENTS.read_text():
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment], check=True)
        python = environment / "bin" / "python"
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "-r", REQUIREMENTS], check=True)
        mark.write_text(REQUIREMENTS.read_text())
    files = (path for path in (environment / "lib").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    shown = f"{megabytes:.0f} MB"
    return Row("installed size of the serving role's packages", "under 250 MB", shown, megabytes < 250)
