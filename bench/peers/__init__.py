"""Servers that Ratchet's is compared with: how each gets its environment, is started, and is asked.

Each lives in an environment of its own in `.bench/`, from pinned requirements beside this file, and answers from the
same graph on one thread in one worker process (`programs/`). None of them is among Ratchet's requirements.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.trees import PLACE, Trees
from devhost.probes import http_probe
from devhost.supervisor import Part

HERE = Path(__file__).resolve().parent
PROGRAMS = HERE / "programs"
SLOW_START_SECONDS = 120.0
PYTHON_312 = "3.12"
"""MLServer 1.7 does not run on 3.13."""


class PeerUnavailable(RuntimeError):
    """The environment of a peer cannot be made. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Peer:
    """`command` starts it on a port; `path` is asked, with what `body` makes of rows; `read` finds P(late) per row."""

    name: str
    label: str
    command: Callable[[int, Path], Sequence[str]]
    probe: str
    path: str
    body: Callable[[Trees, Sequence[Mapping[str, Any]]], bytes]
    read: Callable[[Any], list[float]]
    python: str = "3.13"

    @property
    def environment(self) -> Path:
        return PLACE / f"env-{self.name}"

    @property
    def packages(self) -> Path:
        return HERE / f"{self.name}.txt"

    def version(self) -> str:
        """Of its first requirement: the peer's own."""
        first = next(line for line in (HERE / f"{self.name}.in").read_text().splitlines() if line[:1].isalpha())
        name = first.split("[")[0].split(">")[0].split("=")[0].strip()
        pinned = next(line for line in self.packages.read_text().splitlines() if line.startswith(f"{name}=="))
        return pinned.partition("==")[2].split(" ")[0]


def tensors(trees: Trees, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Columns as the Open Inference Protocol has them."""
    inputs = [
        {
            "name": column.name,
            "datatype": "BYTES" if column.kind == "category" else "FP64",
            "shape": [len(rows)],
            "data": [_typed(row[column.name], text=column.kind == "category") for row in rows],
        }
        for column in trees.signature.inputs
    ]
    return json.dumps({"inputs": inputs}).encode()


def _typed(value: Any, *, text: bool) -> Any:
    return value if value is None or text else float(value)


def _columns(trees: Trees, rows: Sequence[Mapping[str, Any]]) -> bytes:
    names = [column.name for column in trees.signature.inputs]
    return json.dumps({"columns": {name: [row[name] for row in rows] for name in names}}).encode()


def _frame(trees: Trees, rows: Sequence[Mapping[str, Any]]) -> bytes:
    columns = trees.signature.inputs
    data = [[_typed(row[c.name], text=c.kind == "category") for c in columns] for row in rows]
    return json.dumps({"dataframe_split": {"columns": [c.name for c in columns], "data": data}}).encode()


def _flat(document: Any) -> list[float]:
    data: list[float] = document["outputs"][0]["data"]
    return data[1::2]


def _nested(document: Any) -> list[float]:
    return [row[1] for row in document["probability"]]


def _mlflow(document: Any) -> list[float]:
    """MLflow flattens [N, 2] into 2 N records of one value each."""
    return [value for record in document["predictions"] for value in record.values()][1::2]


def _uvicorn(port: int, python: Path) -> Sequence[str]:
    options = ["--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools"]
    return [str(python), "-m", "uvicorn", "floor:app", "--host", "127.0.0.1", "--port", str(port), *options]


def _bentoml(port: int, python: Path) -> Sequence[str]:
    return [str(python), "-m", "bentoml", "serve", "bento:Flights", "--host", "127.0.0.1", "--port", str(port)]


def _mlflow_serve(port: int, python: Path) -> Sequence[str]:
    command = [str(python), "-m", "mlflow", "models", "serve", "--model-uri", str(PLACE / "serve" / "mlflow")]
    return [*command, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]


FLOOR = Peer("floor", "floor (starlette, orjson)", _uvicorn, "/health", "/columns", _columns, _nested)
MLSERVER = Peer(
    "mlserver",
    "MLServer",
    lambda port, python: [str(python), "-m", "mlserver.cli.main", "start", str(PLACE / "serve" / "mlserver")],
    "/v2/health/ready",
    "/v2/models/flights/infer",
    tensors,
    _flat,
    PYTHON_312,
)
PEERS = (
    MLSERVER,
    Peer("bentoml", "BentoML", _bentoml, "/readyz", "/predict", _columns, _nested),
    Peer(
        "litserve",
        "LitServe",
        lambda port, python: [str(python), str(PROGRAMS / "lit.py")],
        "/health",
        "/predict",
        _columns,
        _nested,
    ),
    Peer("mlflow", "mlflow models serve", _mlflow_serve, "/ping", "/invocations", _frame, _mlflow),
)


def prepare(peer: Peer) -> Path:
    """The peer's interpreter, in an environment that is made when it is missing. Raises PeerUnavailable."""
    python = peer.environment / "bin" / "python"
    mark = peer.environment / ".requirements"
    wanted = peer.packages.read_text()
    if mark.exists() and mark.read_text() == wanted:
        return python
    uv = str(Path(sys.executable).with_name("uv"))
    try:
        subprocess.run(
            [uv, "venv", "--quiet", "--clear", "--python", interpreter(peer.python), peer.environment], check=True
        )
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "-r", peer.packages], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PeerUnavailable(f"the environment of {peer.label} could not be made: {error}") from error
    mark.write_text(wanted)
    return python


def interpreter(version: str) -> str:
    """A Python of that version. Raises PeerUnavailable, with how to get one."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    name = f"python{version}"
    candidates = [os.environ.get("BENCH_PYTHON_312", ""), shutil.which(name) or ""]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path) for path in sorted(pyenv.glob(f"{version}*/bin/{name}"), reverse=True)]
    for candidate in filter(None, candidates):
        # A shim of pyenv is on the path, and runs nothing when another version is chosen here.
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    raise PeerUnavailable(
        f"MLServer needs Python {version}, and none was found as {name}. Install it (`pyenv install {version}`, or "
        f"`uv python install {version}`) or say where it is: BENCH_PYTHON_312=/path/to/{name} make bench-serving"
    )


def part(peer: Peer, port: int, trees: Trees) -> Part:
    """The peer as a process, answering from `trees`. Raises PeerUnavailable."""
    python = prepare(peer)
    folder = PLACE / "serve"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(trees.model)
    (folder / "signature.json").write_text(json.dumps(asdict(trees.signature)))
    if peer.name == "mlflow":
        _save_for_mlflow(folder / "mlflow", trees)
    environment = {
        "BENCH_MODEL": str(folder),
        "BENCH_PORT": str(port),
        "PYTHONPATH": str(PROGRAMS),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",  # some start others by name
        "BENTOML_DO_NOT_TRACK": "true",
        "BENTOML_HOME": str(folder / "bentoml"),
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PANDAS_FUTURE_INFER_STRING": "0",  # or mlflow refuses columns of texts
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    if peer is MLSERVER:
        _configure_mlserver(folder / "mlserver", port)
    url = f"http://127.0.0.1:{port}"
    return Part(
        name=peer.label,
        command=list(peer.command(port, python)),
        probe=http_probe(f"{url}{peer.probe}"),
        url=url,
        env=environment,
        cwd=PROGRAMS,
        ready_within=SLOW_START_SECONDS,
        log_name=peer.name,
    )


def _configure_mlserver(folder: Path, port: int) -> None:
    from devhost.ports import free_ports

    grpc, metrics = free_ports(2)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"debug": False, "host": "127.0.0.1", "http_port": port, "grpc_port": grpc, "metrics_port": metrics}
    settings |= {"parallel_workers": 0, "use_structured_logging": False}  # no pool: faster with a model this small
    (folder / "settings.json").write_text(json.dumps(settings))
    model = {"name": "flights", "implementation": "mlserver_runtime.Flights"}
    (folder / "model-settings.json").write_text(json.dumps(model))


def _save_for_mlflow(folder: Path, trees: Trees) -> None:
    """The model as it is registered: the same graph, in MLflow's format for ONNX."""
    import mlflow.onnx
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    shutil.rmtree(folder, ignore_errors=True)
    columns = [ColSpec("string" if c.kind == "category" else "double", c.name) for c in trees.signature.inputs]
    mlflow.onnx.save_model(
        onnx.load_from_string(trees.model),
        str(folder),
        signature=ModelSignature(Schema(columns)),
        onnx_session_options={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
        pip_requirements=[],
        save_as_external_data=False,
    )
