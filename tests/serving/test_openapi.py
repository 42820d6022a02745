"""The OpenAPI description against the app. tests/integration/test_openapi.py checks it with schemathesis."""

from __future__ import annotations

import json
from pathlib import Path

from serving.openapi import describe

FUNCTIONS = json.loads((Path(__file__).parents[1] / "golden" / "functions.json").read_text(encoding="utf-8"))


def test_every_route_of_inference_is_described_and_no_other() -> None:
    """All HTTP functions but those of management, which the description leaves out."""
    described = {(path, method.upper()) for path, item in describe(())["paths"].items() for method in item}
    triggers = [f["bindings"][0] for f in FUNCTIONS.values() if f["bindings"][0]["type"] == "httpTrigger"]
    routes = {("/" + trigger["route"], method) for trigger in triggers for method in trigger["methods"]}
    management = {route for route in routes if route[0].startswith("/api/") and not route[0].endswith("/predict")}
    assert management
    assert described == routes - management


def test_the_description_names_the_pipelines() -> None:
    assert describe(["b", "a"])["components"]["parameters"]["pipeline"]["schema"]["enum"] == ["a", "b"]
    assert "enum" not in describe([])["components"]["parameters"]["pipeline"]["schema"]
