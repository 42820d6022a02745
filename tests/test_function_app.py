"""The app as the host sees it: it imports with nothing set, it imports fast, and each role has its functions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = (
    *("lightgbm", "sklearn", "scipy", "pandas", "mlflow", "polars", "onnx"),
    *("onnxruntime", "pyarrow", "numpy", "pydantic", "yaml", "skl2onnx", "onnxmltools"),
)
SERVE = {
    *("predict", "infer", "infer_version", "model_metadata", "model_ready"),
    *("server_metadata", "server_live", "server_ready", "warmup"),
}
TRAIN = {
    *("on_training_blob", "sweep", "retrain", "fan_out", "look", "claim", "validate", "fit", "transform"),
    *("train", "export", "evaluate", "judge", "register", "promote", "align", "settle", "abandon"),
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
