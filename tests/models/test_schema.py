from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from models.schema import EXAMPLE, pipeline_schema, schema_text
from models.spec import PipelineSpec, SpecError, parse_spec
from tests.models.flights import PIPELINE, ROOT

SCHEMA = pipeline_schema()
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
OF_OBJECTS = {"required", "minProperties", "propertyNames", "properties", "additionalProperties"}


def fits(value: Any, schema: Any) -> bool:
    """Whether the value fits the schema: the keywords that ours uses, and an error for any other."""
    known = {"title", "description", "default", "examples", "$schema", "$defs"}
    return all(_fits(value, keyword, schema) for keyword in schema if keyword not in known)


def _fits(value: Any, keyword: str, schema: Any) -> bool:  # noqa: PLR0912
    rule = schema[keyword]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if keyword in OF_OBJECTS and not isinstance(value, dict):
        return True
    match keyword:
        case "$ref":
            return fits(value, SCHEMA["$defs"][rule.removeprefix("#/$defs/")])
        case "type":
            return isinstance(value, TYPES[rule]) and (rule == "boolean" or not isinstance(value, bool))
        case "const":
            return bool(value == rule)
        case "enum":
            return value in rule
        case "anyOf":
            return any(fits(value, choice) for choice in rule)
        case "oneOf":
            return sum(fits(value, choice) for choice in rule) == 1
        case "not":
            return not fits(value, rule)
        case "required":
            return set(rule) <= set(value)
        case "minimum":
            return not number or bool(value >= rule)
        case "maximum":
            return not number or bool(value <= rule)
        case "exclusiveMinimum":
            return not number or bool(value > rule)
        case "exclusiveMaximum":
            return not number or bool(value < rule)
        case "pattern":
            return re.search(rule, value) is not None
        case "minProperties":
            return bool(len(value) >= rule)
        case "items":
            return all(fits(item, rule) for item in value)
        case "propertyNames":
            return all(fits(name, rule) for name in value)
        case "properties":
            return all(fits(value[name], part) for name, part in rule.items() if name in value)
        case "additionalProperties":
            others = [item for name, item in value.items() if name not in schema.get("properties", {})]
            return not others if rule is False else rule is True or all(fits(item, rule) for item in others)
    raise AssertionError(f"this test does not know the keyword {keyword}")


def test_the_committed_schema_is_the_generated_one() -> None:
    made = subprocess.run([sys.executable, "-m", "models.schema"], capture_output=True, cwd=ROOT, check=True)

    committed = (ROOT / "pipelines" / "schema.json").read_text(encoding="utf-8")
    assert made.stdout.decode() == committed == schema_text(), "run `make schema`"


def test_pipelines_and_examples_fit_and_parse() -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "pipelines").glob("*.yaml"))]
    for text in [*texts, PIPELINE, yaml.safe_dump(EXAMPLE)]:
        assert fits(yaml.safe_load(text), SCHEMA)
        assert isinstance(parse_spec(text, source="x.yaml"), PipelineSpec)


MISTAKES = [
    ("time: when", "times: when"),
    ("time: when", "time: [when]"),
    ("name: small", "name: Small Pipeline"),
    ("delay > 15}", "delay > 15, column: delay}"),
    ("{expression: delay > 15}", "{positive: late}"),
    ("when: timestamp", "when: moment"),
    ("when: timestamp", "when: {minimum: 3}"),
    ("hour: {type: integer, required: true}", "hour: {type: integer, required: 1}"),
    ("minimum_count: 2", "minimum_count: 0"),
    ("maximum_bad_rows: 1", "maximum_bad_rows: 1.5"),
    ("time: when", "time: when\ntask: ranking"),
    ("time: when", "time: when\ntraining: {parameters: {linear_tree: true}}"),
    ("time: when", "time: when\nvalidation: {fraction: 0.5}"),
]


@pytest.mark.parametrize(("part", "by"), MISTAKES, ids=[row[1] for row in MISTAKES])
def test_editors_see_the_mistakes_that_the_parser_sees(part: str, by: str) -> None:
    assert part in PIPELINE
    text = PIPELINE.replace(part, by)

    assert not fits(yaml.safe_load(text), SCHEMA)
    with pytest.raises(SpecError):
        parse_spec(text, source="x.yaml")


def test_every_field_at_the_top_is_explained_or_named_like_its_part() -> None:
    for name, field in SCHEMA["properties"].items():
        part = field.get("$ref", "").removeprefix("#/$defs/")
        explained = field.get("description") or SCHEMA["$defs"].get(part, {}).get("description")
        assert explained or name in {"description", "task", "promotion"}, name
