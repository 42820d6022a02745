"""The JSON Schema of a pipeline file, for editors. `python -m models.schema` prints it."""

from __future__ import annotations

import json
import sys
from typing import Any

from models.manifest import SLUG
from models.parameters import allowed_names
from models.spec import PipelineSpec

EXAMPLE: dict[str, Any] = {
    "name": "flight-delays",
    "columns": {
        "time_hour": "timestamp",
        "arr_delay": "number",
        "carrier": "category",
        "distance": {"type": "number", "minimum": 0},
    },
    "label": {"expression": "arr_delay > 15", "negative": "on time", "positive": "late"},
    "time": "time_hour",
}


FEATURES: list[Any] = [
    "carrier",
    {"column": "distance", "clip": [0, 3000]},
    {"ratio": ["distance", "air_time"], "name": "speed"},
    {"column": "time_hour", "parts": ["hour", "weekday"]},
]


def pipeline_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what `models.spec.parse_spec` accepts, as far as a schema can say it."""
    schema = PipelineSpec.model_json_schema()
    parts, fields = schema["$defs"], schema["properties"]
    short_form = {"enum": parts["Column"]["properties"]["type"]["enum"], "description": "Short for {type: ...}."}
    fields["columns"]["additionalProperties"] = {"anyOf": [short_form, {"$ref": "#/$defs/Column"}]}
    fields["columns"]["examples"] = [EXAMPLE["columns"]]
    fields["name"]["pattern"] = f"^{SLUG.pattern}$"
    fields["features"]["items"] = {
        "anyOf": [{"type": "string", "description": "Short for {column: ...}."}, {"$ref": "#/$defs/Feature"}]
    }
    fields["features"]["examples"] = [FEATURES]
    # A class may be called 1 or true, which YAML reads as a number or a truth.
    parts["ClassNames"]["items"] = {"type": ["string", "integer", "boolean"]}
    parts["Label"]["oneOf"] = [{"required": ["column"]}, {"required": ["expression"]}]
    parts["Label"]["examples"] = [EXAMPLE["label"]]
    parts["Training"]["properties"]["parameters"]["propertyNames"] = {"enum": allowed_names()}
    title = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Ratchet pipeline"}
    return {**title, **{key: value for key, value in schema.items() if key not in title}, "examples": [EXAMPLE]}


def schema_text() -> str:
    """The schema as it stands in `pipelines/schema.json`."""
    return json.dumps(pipeline_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
