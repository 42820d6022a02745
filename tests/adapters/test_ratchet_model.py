"""A registered version, asked as people ask it: mlflow.pyfunc, `mlflow models serve`, mlflow.onnx."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException
from onnx import TensorProto, helper

from adapters.mlflow_registry import MlflowRegistry
from adapters.registry import Submission
from devhost.ports import LOOPBACK, free_port
from devhost.probes import http_probe
from devhost.supervisor import Part, Supervisor
from models.manifest import InputColumn, InputKind, Signature

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(180),
    # MLflow warns of itself when it is imported.
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
]

NAME = "kinds"
KINDS: dict[str, InputKind] = {
    "price": "number",
    "town": "category",
    "visits": "integer",
    "member": "boolean",
    "seen": "timestamp",
}
CLASSES = tuple(f"class of {name}" for name in KINDS)
TOWNS = ["", "Ghent", "Porto", "5", "true"]
MOMENT = datetime(2026, 1, 3, 4, 5, 6, 789_012, tzinfo=UTC)


def graph() -> bytes:
    """What comes out are the inputs themselves, DOUBLE [N, 5], so that nothing on the way to them stays unseen."""
    inputs, nodes = [], []
    for name, kind in KINDS.items():
        element = TensorProto.STRING if kind == "category" else TensorProto.DOUBLE
        inputs.append(helper.make_tensor_value_info(name, element, ["N"]))
        source = name
        if kind == "category":
            keys = helper.make_tensor("keys", TensorProto.STRING, [len(TOWNS)], [town.encode() for town in TOWNS])
            codes = helper.make_tensor("values", TensorProto.DOUBLE, [len(TOWNS)], list(range(len(TOWNS))))
            other = helper.make_tensor("default", TensorProto.DOUBLE, [1], [-1.0])
            tensors = {"keys_tensor": keys, "values_tensor": codes, "default_tensor": other}
            nodes.append(helper.make_node("LabelEncoder", [name], ["code"], domain="ai.onnx.ml", **tensors))
            source = "code"
        nodes.append(helper.make_node("Unsqueeze", [source, "axis"], [f"{name} as a column"]))
    nodes.append(helper.make_node("Concat", [f"{name} as a column" for name in KINDS], ["probability"], axis=1))
    output = helper.make_tensor_value_info("probability", TensorProto.DOUBLE, ["N", len(KINDS)])
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    made = helper.make_graph(nodes, "inputs", inputs, [output], initializer=[axis])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 4)]
    return bytes(helper.make_model(made, opset_imports=opsets, ir_version=10).SerializeToString())


def answers_to(feed: dict[str, list[Any]]) -> np.ndarray[Any, Any]:
    """The answers of `graph` to values where None is missing and times are seconds, float64 [N, 5]."""
    codes = [float(TOWNS.index(town or "")) if (town or "") in TOWNS else -1.0 for town in feed["town"]]
    columns = [codes if name == "town" else [math.nan if v is None else v for v in feed[name]] for name in KINDS]
    return np.array(columns, dtype=np.float64).T


@dataclass(frozen=True, slots=True)
class Registered:
    """A version with the alias champion on a server."""

    url: str
    uri: str = f"models:/{NAME}@champion"


@pytest.fixture(scope="module")
def registered(mlflow_url: str) -> Registered:
    signature = Signature(tuple(InputColumn(name, kind) for name, kind in KINDS.items()), CLASSES, CLASSES[0])
    registry = MlflowRegistry(mlflow_url)
    submission = Submission(NAME, "r", "r", graph(), signature, "It is.", "2026-01-02T03:04:05Z", example=FEED)
    registry.set_alias(NAME, "champion", registry.register(submission))
    mlflow.set_tracking_uri(mlflow_url)
    return Registered(mlflow_url)


@pytest.fixture(scope="module")
def model(registered: Registered) -> Any:
    return mlflow.pyfunc.load_model(registered.uri)


SECONDS = MOMENT.timestamp()
FEED: dict[str, list[Any]] = {
    "price": [10.0, None, 3.0, 40.25],
    "town": ["Ghent", "nowhere", None, "Porto"],
    "visits": [3.0, 4.0, None, 5.0],
    "member": [1.0, 0.0, None, 1.0],
    "seen": [SECONDS, SECONDS + 0.5, None, SECONDS],
}
TIMES = [None if value is None else datetime.fromtimestamp(value, UTC) for value in FEED["seen"]]
FRAMES = {
    "as lists": pd.DataFrame(FEED),
    "as records": pd.DataFrame([dict(zip(FEED, row, strict=True)) for row in zip(*FEED.values(), strict=True)]),
    "objects": pd.DataFrame(FEED).astype(object).where(pd.DataFrame(FEED).notna(), None),
    "pandas' own types": pd.DataFrame(FEED).convert_dtypes(),
    "categories and text of pandas 2": pd.DataFrame(FEED).astype({"town": "category", "price": object}),
    "text as objects": pd.DataFrame({**FEED, "town": np.array(FEED["town"], dtype=object)}),
    "times with a zone": pd.DataFrame({**FEED, "seen": TIMES}),
    "times without one": pd.DataFrame({**FEED, "seen": TIMES}).assign(seen=lambda f: f["seen"].dt.tz_convert(None)),
    "times as text": pd.DataFrame({**FEED, "seen": [time and time.isoformat() for time in TIMES]}),
    "truths": pd.DataFrame({**FEED, "member": [True, False, None, True]}),
    "other columns, other order, an index": pd.DataFrame(
        {"more": [1] * 4, **dict(reversed(FEED.items()))}, index=[7, 8, 9, 7]
    ),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_pyfunc_gives_the_graphs_numbers_bit_for_bit(model: Any, frame: pd.DataFrame) -> None:
    answers = model.predict(frame)
    assert list(answers.columns) == list(CLASSES)
    assert answers.index.equals(frame.index)
    assert answers.to_numpy().tobytes() == answers_to(FEED).tobytes()


ROW = {"price": 10.0, "town": "Ghent", "visits": 3.0, "member": 1.0, "seen": SECONDS}
RECORDS: dict[str, dict[str, Any]] = {
    "whole numbers": {"price": 10, "visits": 3, "member": 1, "seen": int(SECONDS)},
    "truth": {"member": True},
    **{f"no {column}": {column: None} for column in ROW},
    **{f"NaN for {column}": {column: float("nan")} for column in ROW},
    "nothing": dict.fromkeys(ROW),
}


@pytest.mark.parametrize("changed", RECORDS.values(), ids=RECORDS)
def test_a_single_record_as_people_type_it(model: Any, changed: dict[str, Any]) -> None:
    record = {**ROW, **changed}
    expected = answers_to({name: [None if pd.isna(value) else value] for name, value in record.items()})
    assert model.predict(pd.DataFrame([record])).to_numpy().tobytes() == expected.tobytes()
    assert model.predict(record).to_numpy().tobytes() == expected.tobytes()


def test_no_rows_give_no_answers(model: Any) -> None:
    assert model.predict(pd.DataFrame(FEED).head(0)).shape == (0, len(CLASSES))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"price": "cheap"}, "row 0: price is not a number: 'cheap'"),
        ({"town": 1.5}, "row 0: town is not a text: 1.5"),
        ({"seen": "yesterday"}, "seen is not a time in ISO 8601"),
    ],
)
def test_a_mistake_is_named(model: Any, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(MlflowException, match=message) as caught:
        model.predict(pd.DataFrame([{**ROW, **changed}]))
    assert caught.value.get_http_status_code() == 400


def test_a_column_that_is_not_there_is_named(model: Any) -> None:
    with pytest.raises(MlflowException, match="needs the columns visits, seen"):
        model.predict(pd.DataFrame([{name: value for name, value in ROW.items() if name not in {"visits", "seen"}}]))


@pytest.fixture(scope="module")
def server(registered: Registered, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `mlflow models serve`, as people start it."""
    port, folder = free_port(), tmp_path_factory.mktemp("serve")
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", registered.uri, "--env-manager", "local"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    part = Part(
        name="models serve",
        command=[*command, "--port", str(port)],
        probe=http_probe(f"http://{LOOPBACK}:{port}/ping"),
        url=f"http://{LOOPBACK}:{port}",
        env={"MLFLOW_TRACKING_URI": registered.url, "PATH": path},
        cwd=folder,
        ready_within=120.0,
    )
    with Supervisor(folder / "logs") as supervisor:
        supervisor.start(part)
        yield part.url


def ask(server: str, document: Any) -> tuple[int, Any]:
    body = json.dumps(document).encode()
    request = urllib.request.Request(f"{server}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


def written(answer: Any) -> str:
    """As JSON, where a float64 is to the last bit and NaN is like NaN."""
    return json.dumps(answer, sort_keys=True)


def test_mlflow_models_serve_gives_the_same_numbers(server: str) -> None:
    columns, lists = list(FEED), [list(row) for row in zip(*FEED.values(), strict=True)]
    records = [dict(zip(FEED, row, strict=True)) for row in lists]
    expected = [dict(zip(CLASSES, row, strict=True)) for row in answers_to(FEED).tolist()]
    for document in (
        {"dataframe_split": {"columns": columns, "data": lists}},
        {"dataframe_records": records},
        {"inputs": FEED},
        {"instances": records},
    ):
        assert written(ask(server, document)) == written((200, {"predictions": expected})), document
    for record, answer in zip(records, expected, strict=True):
        assert written(ask(server, {"dataframe_records": [record]})) == written((200, {"predictions": [answer]}))


def test_mlflow_models_serve_names_a_mistake(server: str) -> None:
    status, answer = ask(server, {"dataframe_records": [{**ROW, "price": "cheap"}]})
    assert status == 400
    assert "row 0: price is not a number: 'cheap'" in answer["message"]


def test_the_example_that_goes_along_can_be_asked(registered: Registered, server: str, model: Any) -> None:
    place = mlflow.artifacts.download_artifacts(f"{registered.uri}/serving_input_example.json")
    status, answer = ask(server, json.loads(Path(place).read_text()))
    assert status == 200
    assert written(answer["predictions"]) == written(model.predict(model.input_example).to_dict("records"))


def test_mlflow_onnx_has_the_graph_itself(registered: Registered) -> None:
    loaded = mlflow.onnx.load_model(registered.uri)
    assert loaded.SerializeToString(deterministic=True) == graph()


def test_an_environment_can_be_built_for_it(registered: Registered) -> None:
    """With `--env-manager` uv, virtualenv (which needs the recipe for conda too) or conda."""
    needed = {f"{name}=={metadata.version(name)}" for name in ("mlflow", "numpy", "onnx", "onnxruntime")}
    pip = Path(mlflow.pyfunc.get_model_dependencies(registered.uri)).read_text()
    conda = yaml.safe_load(Path(mlflow.pyfunc.get_model_dependencies(registered.uri, format="conda")).read_text())
    python, _, packages = conda["dependencies"]
    assert set(pip.split()) == set(packages["pip"]) == needed
    assert python == f"python={platform.python_version()}"
    recipe = Path(mlflow.artifacts.download_artifacts(f"{registered.uri}/python_env.yaml")).read_text()
    assert yaml.safe_load(recipe) == {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}


def test_the_signature_names_inputs_and_classes(registered: Registered) -> None:
    signature = mlflow.models.get_model_info(registered.uri).signature
    assert signature.inputs.input_names() == list(KINDS)
    assert signature.outputs.input_names() == list(CLASSES)


def test_a_version_is_registered_without_pandas_and_the_rest_of_mlflow(mlflow_url: str) -> None:
    program = """
import sys
for name in ("pandas", "flask", "sqlalchemy", "alembic", "mlflow.onnx", "mlflow.models.utils"):
    sys.modules[name] = None
from adapters.mlflow_registry import MlflowRegistry
from adapters.registry import Submission
from models.manifest import InputColumn, Signature
signature = Signature((InputColumn("price", "number"),), ("no", "yes"), "yes")
made = Submission("skinny", "r", "r", b"graph", signature, "It is.", started="2026-01-01T00:00:00+00:00")
print(MlflowRegistry(sys.argv[1]).register(made))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", program, mlflow_url],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
