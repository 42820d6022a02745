"""Every example of docs/protocols.md, against a running stack: commands answer with 200, programs end well."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from adapters.pointer import LivePointer, LiveVersion, pointer_path
from local.stack import LocalStack
from models.features import signature
from models.manifest import GoldenRows, Lineage, Manifest
from serving.session import Session, golden_feed
from tests.integration.shop import Shop
from tests.models.flights import flight_delays

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

PAGE = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text(encoding="utf-8")
PIPELINE, ADDRESS = "flight-delays", "127.0.0.1:7071"
COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def _graph(inputs: dict[str, str]) -> bytes:
    """P(late) grows with the hour. The other columns are there to be sent."""
    constants = [("day", TensorProto.DOUBLE, 24.0), ("none", TensorProto.DOUBLE, 0.0), ("one", TensorProto.DOUBLE, 1.0)]
    nodes = [
        helper.make_node("IsNaN", ["hour"], ["missing"]),
        helper.make_node("Where", ["missing", "none", "hour"], ["known"]),
        helper.make_node("Div", ["known", "day"], ["late"]),
        helper.make_node("Sub", ["one", "late"], ["early"]),
        helper.make_node("Unsqueeze", ["late", "axis"], ["late_column"]),
        helper.make_node("Unsqueeze", ["early", "axis"], ["early_column"]),
        helper.make_node("Concat", ["early_column", "late_column"], ["probability"], axis=1),
    ]
    types = {"category": TensorProto.STRING}
    graph = helper.make_graph(
        nodes,
        "hours",
        [
            helper.make_tensor_value_info(name, types.get(kind, TensorProto.DOUBLE), ["N"])
            for name, kind in inputs.items()
        ],
        [helper.make_tensor_value_info("probability", TensorProto.DOUBLE, ["N", 2])],
        [helper.make_tensor(name, dtype, [1], [value]) for name, dtype, value in constants]
        + [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def stack_with_flights(stack: LocalStack) -> LocalStack:
    """The stack with a champion of flight-delays, which nobody trained."""
    shape = signature(flight_delays())
    kinds = {column.name: str(column.kind) for column in shape.inputs}
    model = _graph(kinds)
    rows: dict[str, Any] = {name: ("AA",) if kind == "category" else (1.0,) for name, kind in kinds.items()}
    answers = Session(model).run(golden_feed(shape, GoldenRows(rows, ())))
    folder = f"models/{PIPELINE}/versions/1"
    manifest = Manifest(
        pipeline=PIPELINE,
        version=1,
        run="by-hand",
        created="2026-01-01T00:00:00+00:00",
        model_path=f"{folder}/model.onnx",
        model_sha256=hashlib.sha256(model).hexdigest(),
        model_bytes=len(model),
        signature=shape,
        golden=GoldenRows(rows, tuple(tuple(row) for row in answers.tolist())),
        lineage=Lineage("dataset", "spec", 0.0, ()),
    )
    live = LiveVersion(1, "by-hand", f"{folder}/model.json", manifest.model_sha256)
    pointer = LivePointer(PIPELINE, 1, live, (), manifest.created, "a test", "because")
    with Shop.of(stack, PIPELINE) as shop:
        for path, data in (
            (manifest.model_path, model),
            (live.manifest_path, json.dumps(manifest.to_dict()).encode()),
            (pointer_path(PIPELINE), json.dumps(pointer.to_dict()).encode()),
        ):
            container, _, name = path.partition("/")
            with shop.blobs.get_blob_client(container, name) as blob:
                blob.upload_blob(data, overwrite=True)
        shop.eventually(lambda: shop.predict({"hour": 1}).status == 200)
    return stack


def _run(command: str) -> bytes:
    """What a curl command of the page would be answered. curl itself may not be there."""
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:2] == ["curl", "-s"]
    data, method, url = None, None, ""
    rest = iter(words[2:])
    for word in rest:
        if word == "-d":
            data = next(rest).encode()
        elif word == "-X":
            method = next(rest)
        else:
            assert word.startswith("http://")
            url = word
    request = urllib.request.Request(url, data=data, method=method)
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: bytes = response.read()
    return answer


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split(ADDRESS)[1][:40].strip())
def test_a_command_is_answered(stack_with_flights: LocalStack, command: str) -> None:
    assert _run(command.replace(f"http://{ADDRESS}", stack_with_flights.app_url))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.splitlines()[-1][:40])
def test_a_program_ends_well(stack_with_flights: LocalStack, program: str) -> None:
    program = program.replace(ADDRESS, stack_with_flights.app_url.removeprefix("http://"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_page_has_examples_of_all_protocols() -> None:
    text = "".join(COMMANDS + PROGRAMS)
    assert all(word in text for word in ("/predict", "/infer", "/repository/index", "tritonclient", "/invocations"))
