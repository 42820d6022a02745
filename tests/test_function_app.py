"""The app as the host sees it: it imports with nothing set, it imports fast, and each role has its functions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request

from devhost.auth import Keys
from devhost.protocol import FunctionInfo

ROOT = Path(__file__).parents[1]
HEAVY = (
    *("lightgbm", "sklearn", "scipy", "pandas", "mlflow", "polars", "onnx"),
    *("onnxruntime", "pyarrow", "numpy", "pydantic", "yaml", "skl2onnx", "onnxmltools"),
)
SERVE = {
    *("predict", "infer", "infer_version", "model_metadata", "model_version_metadata"),
    *("model_ready", "model_version_ready", "repository_index"),
    *("mlflow_invocations", "mlflow_ping", "mlflow_health", "mlflow_version"),
    *("invocations", "ping", "health", "version", "openapi"),
    *("server_metadata", "server_live", "server_ready", "warmup"),
}
TRAIN = {
    *("on_training_blob", "sweep", "retrain", "fan_out", "look", "claim", "validate", "fit", "transform"),
    *("train", "export", "evaluate", "judge", "register", "promote", "align", "illustrate", "settle", "abandon"),
    *("list_pipelines", "show_pipeline", "list_runs", "show_run", "retrain_now", "cancel_run"),
    *("reconcile", "mlflow_webhook", "rollback", "answer_approval"),
}


def _python(code: str, **environ: str) -> str:
    """Runs code in a fresh interpreter with no environment but what is given."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_app_imports_nothing_heavy_and_needs_no_setting() -> None:
    code = f"import sys, function_app; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert _python(code) == "[]"


def test_the_serving_role_does_without_durable_functions() -> None:
    """An app that only serves does not install them (requirements-serve.txt), and starts without them."""
    code = (
        "import sys, function_app, serving.service, serving.session, adapters.azure_blobs;"
        "print([name for name in ('azure.durable_functions', 'azure.data', 'azure.eventgrid') if name in sys.modules])"
    )
    assert _python(code, RATCHET_ROLE="serve") == "[]"


def test_the_serving_role_has_the_same_versions_as_the_whole() -> None:
    whole = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    serving = (ROOT / "requirements-serve.txt").read_text(encoding="utf-8").splitlines()
    assert serving
    assert {line.partition(" ;")[0] for line in serving} <= {line.partition(" ;")[0] for line in whole}


@pytest.mark.parametrize(("role", "expected"), [("", TRAIN | SERVE), ("train", TRAIN), ("serve", SERVE)])
def test_each_role_has_its_functions(role: str, expected: set[str]) -> None:
    code = (
        "import json, function_app;print(json.dumps([f.get_function_name() for f in function_app.app.get_functions()]))"
    )
    names = json.loads(_python(code, RATCHET_ROLE=role))
    assert len(names) == len(set(names))
    assert set(names) == expected


def test_a_wrong_role_stops_the_app_with_its_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import function_app"],
        cwd=ROOT,
        env={"RATCHET_ROLE": "teach"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "RATCHET_ROLE is 'teach'" in done.stderr


def test_every_setting_that_a_binding_names_is_in_the_example() -> None:
    example = json.loads((ROOT / "local.settings.json.example").read_text())["Values"]
    code = (
        "import json, re, function_app;"
        "print(json.dumps([re.findall('%([^%]+)%', str(b.get_dict_repr()))"
        " for f in function_app.app.get_functions() for b in f.get_bindings()]))"
    )
    named = {name for names in json.loads(_python(code)) for name in names}
    assert named
    assert named <= set(example)


def _functions() -> list[FunctionInfo]:
    described = json.loads((ROOT / "tests/golden/functions.json").read_text(encoding="utf-8"))
    return [FunctionInfo(name, name, tuple(function["bindings"])) for name, function in described.items()]


def test_predictions_want_a_function_key_and_management_the_master_key() -> None:
    """By the host's own rules; what the language worker tells the host is compared with the file in the next test."""
    keys = Keys("master", host=("host",), functions={"predict": ("predict",)})
    management = set()
    for function in _functions():
        # MLflow sends no key: its webhook is checked by its signature.
        if function.trigger["type"] != "httpTrigger" or function.name == "mlflow_webhook":
            continue
        opens = {
            key: keys.allows_function(
                make_mocked_request("GET", "/", {"x-functions-key": key} if key else {}), function
            )
            for key in ("", "wrong", "predict", "host", "master")
        }
        if function.name in SERVE:
            own = function.name == "predict"
            assert opens == {"": False, "wrong": False, "predict": own, "host": True, "master": True}, function.name
        else:
            assert opens == {"": False, "wrong": False, "predict": False, "host": False, "master": True}, function.name
            management.add(function.name)
    assert management >= {"retrain_now", "show_pipeline", "rollback", "answer_approval"}


INDEX = """
import json, sys
from devhost import runtime
functions = {f.name: {"bindings": [dict(b) for b in f.bindings], "retry": f.retry} for f in runtime.index(sys.argv[1])}
print(json.dumps(functions, indent=1, sort_keys=True))
"""


def test_what_the_language_worker_tells_the_host_of_the_app() -> None:
    """A changed route, schedule or binding shows here. RATCHET_GOLDEN=write writes the file anew."""
    golden = ROOT / "tests/golden/functions.json"
    done = subprocess.run(
        [sys.executable, "-c", INDEX, str(ROOT)], cwd=ROOT, env={}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if os.environ.get("RATCHET_GOLDEN") == "write":
        golden.write_text(done.stdout, encoding="utf-8")
    assert json.loads(done.stdout) == json.loads(golden.read_text(encoding="utf-8"))
