from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from models.schema import EXAMPLE, pipeline_schema, schema_text
from models.spec import PipelineSpec, SpecError, parse_spec
from models.spec_lines import Loader
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
            kinds = rule if isinstance(rule, list) else [rule]
            return any(isinstance(value, TYPES[k]) and (k == "boolean" or not isinstance(value, bool)) for k in kinds)
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
        case "minItems":
            return not isinstance(value, list) or len(value) >= rule
        case "maxItems":
            return not isinstance(value, list) or len(value) <= rule
        case "prefixItems":
            return not isinstance(value, list) or all(fits(item, part) for item, part in zip(value, rule, strict=False))
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


RICH = """
name: rich
task: multiclass
columns:
  at: timestamp
  kind: category
  a: number
  b: {type: number, minimum: 0}
  w: number
  shop: text
label: {column: kind, classes: [1, true, other]}
time: at
filter: a > 0
weight: w
features:
  - a
  - {column: b, clip: [null, 5], name: capped}
  - {ratio: [a, b], name: speed}
  - {difference: [a, b]}
  - {column: at, parts: [hour, weekday, month, day_of_year]}
  - {column: at, age_at: 2026-01-31}
window: {partitions: 3}
holdout: {by: group, column: shop, fraction: 0.3}
validation: {days: 3}
slices: [shop]
training:
  objective: multiclass
  boosting: dart
  half_life_days: 30
  class_weights: {other: 2}
  monotone: {a: increasing}
  parameters: {eta: 0.1}
gate: {metric: macro_f1, minimum: {accuracy: 0.5}, maximum: {log_loss: 2}, slice_loss: 0.1}
"""


def test_everything_that_a_pipeline_may_say_fits() -> None:
    assert fits(yaml.load(RICH, Loader=Loader), SCHEMA)  # noqa: S506 (it is a SafeLoader)
    assert parse_spec(RICH, source="rich.yaml").inputs == ("a", "b", "at")


MISTAKES = [
    ("time: when", "time: when\nfeatures: [[hour]]"),
    ("time: when", "time: when\nfeatures: [{column: hour, clip: [1]}]"),
    ("time: when", "time: when\nfeatures: [{ratio: [hour, distance, delay]}]"),
    ("time: when", "time: when\nfeatures: [{column: when, parts: [second]}]"),
    ("time: when", "time: when\nholdout: {by: day}"),
    ("time: when", "time: when\ngate: {metric: accurate}"),
    ("time: when", "time: when\ntraining: {class_weights: equal}"),
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
