"""The OpenAPI description of the inference routes: GET openapi.json. Tests check it against the app."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from serving.tables import JSON_LAYOUTS
from serving.tensors import DATATYPES

type Schema = dict[str, Any]

JSON, CSV, RAW, TEXT = "application/json", "text/csv", "application/octet-stream", "text/plain"
NUMBER: Schema = {"type": ["number", "null"]}
TEXTS: Schema = {"type": "string"}
MISSING_MODEL = {404: "There is no such pipeline, or not that version.", 503: "There is no model yet: see Retry-After."}
REFUSED = {
    400: "The request cannot be answered; the message names row and column.",
    413: "More bytes or rows than one request may have.",
    415: "A content encoding or type that is not read.",
    504: "It took longer than a request may take.",
}


def describe(pipelines: Iterable[str]) -> Schema:
    """The description for a server with these pipelines."""
    names = sorted(pipelines)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ratchet",
            "version": "0.1.0",
            "description": "Predictions from the models that are live. Every answer of a model names its version.",
        },
        "paths": {**_plain_paths(), **_oip_paths(), **_mlflow_paths()},
        "components": {
            "schemas": SCHEMAS,
            "parameters": {
                "pipeline": _in_path("pipeline", {"type": "string", "enum": names} if names else TEXTS),
                "version": _in_path("version", {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"}),
                "jsonLength": {
                    "name": "Inference-Header-Content-Length",
                    "in": "header",
                    "description": "How many bytes of the body are JSON. The rest are raw tensors.",
                    "schema": {"type": "integer", "minimum": 0},
                },
            },
            "securitySchemes": {
                "header": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
                "query": {"type": "apiKey", "in": "query", "name": "code"},
            },
        },
        "security": [{"header": []}, {"query": []}],
    }


def _plain_paths() -> dict[str, Schema]:
    predict = _operation(
        "Label and probabilities of some rows",
        {JSON: _ref("PredictAnswer")},
        error="PlainError",
        body={JSON: _ref("PredictRequest")},
        parameters=["pipeline"],
        failures={**REFUSED, **MISSING_MODEL},
    )
    description = _operation("This description", {JSON: {"type": "object"}}, error="PlainError")
    return {"/api/pipelines/{pipeline}/predict": {"post": predict}, "/openapi.json": {"get": description}}


def _oip_paths() -> dict[str, Schema]:
    def get(summary: str, schema: str, *parameters: str, failures: Mapping[int, str] | None = None) -> Schema:
        answers = {JSON: _ref(schema)}
        return {"get": _operation(summary, answers, error="OipError", parameters=parameters, failures=failures or {})}

    paths = {
        "/v2": get("What the server is", "ServerMetadata"),
        "/v2/health/live": get("Whether the process runs", "ServerLive"),
        "/v2/health/ready": get("Whether it can answer", "ServerReady", failures={503: "Its settings are wrong."}),
        "/v2/repository/index": {
            "post": _operation(
                "Every pipeline and its version",
                {JSON: {"type": "array", "items": _ref("IndexEntry")}},
                error="OipError",
                body={JSON: _ref("IndexRequest")},
                body_required=False,
                failures=REFUSED,
            )
        },
    }
    for model, parameters in (
        ("/v2/models/{pipeline}", ("pipeline",)),
        ("/v2/models/{pipeline}/versions/{version}", ("pipeline", "version")),
    ):
        paths[model] = get("Inputs and outputs", "ModelMetadata", *parameters, failures=MISSING_MODEL)
        paths[f"{model}/ready"] = get("Whether it would answer", "ModelReady", *parameters, failures=MISSING_MODEL)
        paths[f"{model}/infer"] = {
            "post": _operation(
                "Probabilities and labels as tensors",
                {JSON: _ref("InferenceAnswer"), RAW: {}},
                error="OipError",
                body={JSON: _ref("InferenceRequest"), RAW: {}},
                parameters=[*parameters, "jsonLength"],
                failures={**REFUSED, **MISSING_MODEL},
            )
        }
    return paths


def _mlflow_paths() -> dict[str, Schema]:
    paths = {}
    for prefix, parameters, which in (("/mlflow/{pipeline}", ["pipeline"], ""), ("", [], " of the only pipeline")):
        paths[f"{prefix}/invocations"] = {
            "post": _operation(
                f"What `mlflow models serve` answers for the model{which}",
                {JSON: _ref("MlflowAnswer")},
                error="MlflowError",
                body={JSON: _ref("MlflowRequest"), CSV: TEXTS},
                parameters=parameters,
                failures={**REFUSED, **MISSING_MODEL},
                texts=[415],
            )
        }
        for name in ("ping", "health"):
            alive = _operation(
                f"Whether the model{which} would answer",
                {JSON: {}},
                error="MlflowError",
                parameters=parameters,
                failures=MISSING_MODEL,
            )
            paths[f"{prefix}/{name}"] = {"get": alive}
        version = _operation(
            "The version of MLflow that is followed",
            {JSON: {}},
            error="MlflowError",
            parameters=parameters,
            failures={404: MISSING_MODEL[404]} if parameters else {},
        )
        paths[f"{prefix}/version"] = {"get": version}
    return paths


def _operation(
    summary: str,
    answers: Mapping[str, Schema],
    *,
    error: str,
    body: Mapping[str, Schema] | None = None,
    body_required: bool = True,
    parameters: Iterable[str] = (),
    failures: Mapping[int, str] | None = None,
    texts: Iterable[int] = (),
) -> Schema:
    responses: dict[str, Schema] = {"200": {"description": "The answer", "content": _content(answers)}}
    for status, description in sorted((failures or {}).items()):
        content = _content({TEXT: TEXTS} if status in texts else {JSON: _ref(error)})
        responses[str(status)] = {"description": description, "content": content}
    operation: Schema = {
        "summary": summary,
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in parameters],
        "responses": {**responses, "401": {"description": "The function key is missing or wrong."}},
    }
    if body is not None:
        operation["requestBody"] = {"required": body_required, "content": _content(body)}
    return operation


def _content(schemas: Mapping[str, Schema]) -> Schema:
    return {kind: {"schema": schema} if schema else {} for kind, schema in schemas.items()}


def _in_path(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(
    required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, *, more: bool = True
) -> Schema:
    """`more`: whether there may be other members."""
    properties = {**required, **(optional or {})}
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return schema if more else {**schema, "additionalProperties": False}


def _list(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


VALUE: Schema = {"type": ["number", "string", "boolean", "null"], "description": "null is missing"}
RECORD: Schema = {"type": "object", "additionalProperties": VALUE}
COLUMNS: Schema = {"type": "object", "additionalProperties": _list(VALUE), "minProperties": 1}
PARAMETERS: Schema = {"type": "object"}
SHAPE: Schema = _list({"type": "integer"}, minItems=1)


def _prediction(text: Schema, number: Schema) -> Schema:
    """Of a classification or a regression."""
    probabilities = {"type": "object", "additionalProperties": number}
    classified = _object({"label": text, "probability": number, "probabilities": probabilities})
    return {"anyOf": [classified, _object({"value": number})]}


TENSOR: Schema = _object(
    {"name": TEXTS, "datatype": {"enum": sorted(DATATYPES)}, "shape": SHAPE},
    {"data": {"type": "array"}, "parameters": PARAMETERS},
)
DESCRIBED: Schema = _list(_object({"name": TEXTS, "datatype": {"enum": sorted(DATATYPES)}, "shape": SHAPE}))
MODEL_STATUS: Schema = _object({"pipeline": TEXTS, "version": {"type": ["integer", "null"]}})
SCHEMAS: dict[str, Schema] = {
    "PredictRequest": {
        "anyOf": [
            RECORD,
            _list(RECORD, minItems=1),
            _object({"records": _list(RECORD, minItems=1)}, more=False),
            _object({"columns": COLUMNS}, more=False),
        ]
    },
    "PredictAnswer": _object(
        {
            "pipeline": TEXTS,
            "version": {"type": "integer"},
            "run": TEXTS,
            "predictions": {"anyOf": [_list(_prediction(TEXTS, NUMBER)), _prediction(_list(TEXTS), _list(NUMBER))]},
        }
    ),
    "PlainError": _object(
        {
            "error": _object(
                {"message": TEXTS, "code": TEXTS}, {"row": {"type": "integer", "minimum": 0}, "column": TEXTS}
            )
        }
    ),
    "ServerMetadata": _object({"name": TEXTS, "version": TEXTS, "extensions": _list(TEXTS)}),
    "ServerLive": _object({"live": {"const": True}}),
    "ServerReady": _object({"ready": {"const": True}, "models": _list(MODEL_STATUS)}),
    "ModelMetadata": _object(
        {"name": TEXTS, "versions": _list(TEXTS), "platform": TEXTS, "inputs": DESCRIBED, "outputs": DESCRIBED}
    ),
    "ModelReady": _object({"name": TEXTS, "ready": {"const": True}, "details": MODEL_STATUS}),
    "IndexRequest": _object({}, {"ready": {"type": "boolean"}}),
    "IndexEntry": _object(
        {"name": TEXTS, "version": TEXTS, "state": {"enum": ["READY", "UNAVAILABLE"]}, "reason": TEXTS}
    ),
    "InferenceRequest": _object(
        {"inputs": _list(TENSOR, minItems=1)},
        {
            "id": TEXTS,
            "parameters": PARAMETERS,
            "outputs": _list(
                _object({"name": {"enum": ["probability", "value", "label"]}}, {"parameters": PARAMETERS})
            ),
        },
    ),
    "InferenceAnswer": _object(
        {"model_name": TEXTS, "model_version": TEXTS, "outputs": _list(TENSOR)}, {"id": TEXTS, "parameters": PARAMETERS}
    ),
    "OipError": _object({"error": TEXTS}),
    "MlflowRequest": {"anyOf": [_object({name: {"type": ["object", "array"]}}) for name in JSON_LAYOUTS]},
    "MlflowAnswer": _object({"predictions": _list(_object({}, {"probability": NUMBER, "value": NUMBER}))}),
    "MlflowError": _object({"error_code": TEXTS, "message": TEXTS}, {"sqlstate": TEXTS, "error_class": TEXTS}),
}
