"""The folder that MLflow calls a model: the graph, and what its loaders need to find beside it.

Written by hand, because `mlflow.onnx.log_model` needs pandas and the whole of MLflow beside the app, and because its
wrapper does not take text columns (adapters/ratchet_model.py does).
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from adapters.registry import Submission

LOADER = Path(__file__).with_name("ratchet_model.py")
MODEL, SIGNATURE = "model.onnx", "signature.json"
"""Where the loader looks for them."""
ENVIRONMENTS = {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}
"""What MLflow can build to load the model in, each with its recipe; it asks for both, whichever it builds."""
NEEDED = ("numpy", "onnx", "onnxruntime")
"""Packages besides MLflow (which brings pandas) that a model is loaded with, in the versions it was made with: others
may add up numbers in another order."""


def model_files(submission: Submission, run_id: str) -> dict[str, bytes]:
    """Every file of the folder by its path in it."""
    rows = [list(row) for row in zip(*submission.example.values(), strict=True)]
    example = {"columns": list(submission.example), "data": rows}
    python, requirements = platform.python_version(), _requirements()
    files: dict[str, str | bytes] = {
        "MLmodel": yaml.safe_dump(_mlmodel(submission, run_id), sort_keys=False),
        MODEL: submission.model,
        SIGNATURE: json.dumps(asdict(submission.signature), indent=2),
        f"code/{LOADER.name}": LOADER.read_bytes(),
        "requirements.txt": "".join(f"{line}\n" for line in requirements),
        ENVIRONMENTS["virtualenv"]: yaml.safe_dump({"python": python, "dependencies": ["-r requirements.txt"]}),
        ENVIRONMENTS["conda"]: yaml.safe_dump(
            {
                "channels": ["conda-forge"],
                "dependencies": [f"python={python}", "pip", {"pip": requirements}],
                "name": "mlflow-env",
            }
        ),
        "input_example.json": json.dumps(example),
        "serving_input_example.json": json.dumps({"dataframe_split": example}),
    }
    return {name: data if isinstance(data, bytes) else data.encode() for name, data in files.items()}


def _mlmodel(submission: Submission, run_id: str) -> dict[str, Any]:
    inputs = [{"type": "any", "name": column.name, "required": False} for column in submission.signature.inputs]
    outputs = [{"type": "double", "name": name, "required": True} for name in submission.signature.classes]
    return {
        "artifact_path": "model",
        "flavors": {
            "onnx": {
                "code": None,
                "data": MODEL,
                "onnx_version": metadata.version("onnx"),
                "providers": ["CPUExecutionProvider"],
            },
            "python_function": {
                "code": "code",
                "env": ENVIRONMENTS,
                "loader_module": LOADER.stem,
                "python_version": platform.python_version(),
            },
        },
        "mlflow_version": _mlflow_version(),
        "model_size_bytes": len(submission.model),
        "run_id": run_id,
        "saved_input_example_info": {
            "artifact_path": "input_example.json",
            "pandas_orient": "split",
            "serving_input_path": "serving_input_example.json",
            "type": "dataframe",
        },
        "signature": {
            "inputs": json.dumps(inputs),
            "outputs": json.dumps(outputs) if outputs else None,
            "params": None,
        },
    }


def _requirements() -> list[str]:
    return [f"mlflow=={_mlflow_version()}", *(f"{name}=={metadata.version(name)}" for name in NEEDED)]


def _mlflow_version() -> str:
    import mlflow

    return str(mlflow.__version__)
