"""MLflow's scoring protocol beside `mlflow models serve`, on the same registered version."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devhost.ports import free_ports
from tests.integration.served import FIELDS, NAME, RECORDS
from tests.integration.shop import Shop

pytestmark = [pytest.mark.integration, pytest.mark.timeout(450)]

START_SECONDS = 90.0
R, S, T = RECORDS
COLUMNS = {name: [record[name] for record in RECORDS] for name in FIELDS}
ROWS = [list(record.values()) for record in RECORDS]
type Reply = tuple[int, str, Any]


@pytest.fixture(scope="module")
def peer(served: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `mlflow models serve` with version 1."""
    (port,) = free_ports(1)
    log = tmp_path_factory.mktemp("peer") / "serve.log"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", f"models:/{NAME}/1"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    # With pandas 3 and its own texts, MLflow 3.17 refuses columns of texts.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {"MLFLOW_TRACKING_URI": served.stack.mlflow_url, "PANDAS_FUTURE_INFER_STRING": "0", "PATH": path}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env={**os.environ, **env}, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                if ask(f"http://127.0.0.1:{port}/ping")[0] == 200:
                    break
            except urllib.error.URLError:
                time.sleep(0.1)
        else:
            pytest.fail(f"mlflow models serve did not come up: {log.read_text()[-2000:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def ours(served: Shop) -> str:
    return f"{served.stack.app_url}/mlflow/{NAME}"


def ask(url: str, body: bytes | None = None, content_type: str = "application/json") -> Reply:
    """(status, media type, body)."""
    request = urllib.request.Request(url, data=body, headers={"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            status, kind, text = response.status, response.headers.get_content_type(), response.read()
    except urllib.error.HTTPError as exc:
        with exc:
            status, kind, text = exc.code, exc.headers.get_content_type(), exc.read()
    return status, kind, json.loads(text) if text.startswith(b"{") else text


def split(*rows: Any, **fields: Any) -> Any:
    return {"dataframe_split": {"columns": list(FIELDS), "data": list(rows), **fields}}


ANSWERED: list[Any] = [
    {"dataframe_records": RECORDS},
    {"dataframe_records": [R]},
    {"dataframe_records": [{**R, "price": 10, "member": 1}]},
    {"dataframe_records": [dict(reversed(R.items())), {**S, "extra": "x"}]},
    {"dataframe_records": [{**R, "price": None, "town": None}, S]},
    {"dataframe_records": [R, {"price": 3.5}]},
    {"dataframe_records": [{**R, "price": "10.5", "visits": 2.5, "member": 0.5}]},
    {"dataframe_records": [{**R, "town": "nowhere"}, {**R, "town": ""}, {**R, "town": 5}]},
    split(*ROWS),
    split(*ROWS, index=[7, 8, 9]),
    split(ROWS[0], [3.5]),
    split(),
    {"dataframe_split": {"columns": ["x", *reversed(FIELDS)], "data": [[1, *reversed(row)] for row in ROWS]}},
    {"instances": RECORDS},
    {"instances": [{**R, "extra": 1, "price": None}]},
    {"instances": COLUMNS},
    {"inputs": COLUMNS},
    {"inputs": R},
    {"inputs": {**COLUMNS, "visits": 4, "extra": [1, 2, 3]}},
    {"inputs": RECORDS},
    {"inputs": {**COLUMNS, "price": [None, "1.5", 2]}},
    {"dataframe_records": [R], "params": {"threshold": 0.5}},
    {"dataframe_records": [R], "params": None, "other": 1},
]
REFUSED: list[Any] = [
    {"dataframe_records": [{"price": 1.0}]},
    {"dataframe_records": []},
    {"dataframe_records": {"a": 1}},
    {"dataframe_records": [R, 5]},
    {"dataframe_records": "text"},
    {"dataframe_records": [{**R, "price": "cheap"}]},
    {"dataframe_records": [{**R, "price": [1]}]},
    {"dataframe_records": [{**R, "price": ""}]},
    {"dataframe_split": {"columns": list(FIELDS)}},
    {"dataframe_split": {"data": ROWS}},
    {"dataframe_split": {"columns": ["price"], "data": ROWS}},
    {"dataframe_split": {"columns": "price", "data": ROWS}},
    {"dataframe_split": [1]},
    split(ROWS[0][:3]),
    split(*ROWS, other=1),
    split(5),
    {"instances": [R, {"price": 1.0}]},
    {"instances": [R, 5]},
    {"instances": []},
    {"inputs": {name: [] for name in FIELDS}},
    {"inputs": {**COLUMNS, "price": [1.0]}},
    {"inputs": {"price": [1.0]}},
    {"inputs": {**COLUMNS, "price": ["cheap", 1, 2]}},
    {"inputs": {}},
    {"inputs": []},
    {"dataframe_records": [R], "inputs": COLUMNS},
    {"other": 1},
    {},
    [R],
    5,
]


def shape(reply: Reply) -> Any:
    """What has to be equal: an answer with every bit of its numbers, an error but for its words."""
    status, kind, body = reply
    if status == 200:
        return status, kind, body
    if kind == "text/plain":
        return status, kind
    return status, kind, {name: value for name, value in body.items() if name not in {"message", "stack_trace"}}


@pytest.mark.parametrize("document", ANSWERED + REFUSED, ids=lambda document: json.dumps(document)[:60])
def test_json_is_answered_alike(peer: str, ours: str, document: Any) -> None:
    body = json.dumps(document).encode()
    theirs, mine = ask(f"{peer}/invocations", body), ask(f"{ours}/invocations", body)
    assert shape(mine) == shape(theirs)
    assert (theirs[0] == 200) == (document in ANSWERED)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        "application/json; charset=UTF-8",
        "application/json; charset=utf-16",
        "application/json; format=pandas-split",
        "text/csv; header=present",
        "text/plain",
        "application/x-www-form-urlencoded",
        "TEXT/CSV",
    ],
)
def test_content_types_are_taken_alike(peer: str, ours: str, content_type: str) -> None:
    body = json.dumps({"dataframe_records": [R]}).encode()
    theirs = ask(f"{peer}/invocations", body, content_type)
    assert shape(ask(f"{ours}/invocations", body, content_type)) == shape(theirs)


def test_what_is_no_json_is_refused_alike(peer: str, ours: str) -> None:
    for body in (b"{", b"\xff\xfe", b""):
        assert shape(ask(f"{ours}/invocations", body)) == shape(ask(f"{peer}/invocations", body))


def test_many_rows_of_chance_are_answered_alike(peer: str, ours: str) -> None:
    rng = random.Random(7)
    towns = ["Ghent", "Lille", "Porto", "Turin", "Oslo", "", "NA", None]
    for _ in range(30):
        rows = [
            [rng.choice([None, rng.uniform(-5, 120)]), rng.choice(towns), rng.randrange(20), rng.random() < 0.5]
            for _ in range(rng.randrange(1, 40))
        ]
        records = [dict(zip(FIELDS, row, strict=True)) for row in rows]
        documents = [split(*rows), {"dataframe_records": records}, {"instances": records}]
        requests = [(json.dumps(document).encode(), "application/json") for document in documents]
        for body, kind in requests:
            theirs = ask(f"{peer}/invocations", body, kind)
            assert theirs[0] == 200
            assert ask(f"{ours}/invocations", body, kind) == theirs


def test_the_small_addresses_answer_alike(peer: str, ours: str) -> None:
    for path in ("ping", "health", "version"):
        assert ask(f"{ours}/{path}") == ask(f"{peer}/{path}"), path


def test_what_mlflow_has_no_words_for(served: Shop) -> None:
    url, body = served.stack.app_url, json.dumps({"dataframe_records": [R]}).encode()
    status, _, document = ask(f"{url}/mlflow/nothing/invocations", body)
    assert (status, document["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    status, _, document = ask(f"{url}/mlflow/many/invocations", body)
    assert (status, document["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    for path in ("invocations", "ping"):
        status, _, document = ask(f"{url}/{path}", body if path == "invocations" else None)
        assert status == 404, "there are several pipelines"
        assert "/mlflow/{pipeline}/" in document["message"]
