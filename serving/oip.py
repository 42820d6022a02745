"""Open Inference Protocol v2 (REST), with the binary tensor data extension: requests in, tensors out.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.errors import bounded
from models.manifest import InputKind, Manifest, Signature
from serving.answers import JSON, Answer, dumps
from serving.errors import BadRequest
from serving.feeds import SHOWN, Values
from serving.plain import load_json
from serving.tensors import BINARY_SIZE, RawData, raw_choices, read_tensor

if TYPE_CHECKING:
    import numpy as np

DATATYPE_OF: dict[InputKind, str] = {
    "number": "FP64",
    "integer": "FP64",
    "boolean": "FP64",
    "category": "BYTES",
    "timestamp": "FP64",
}
"""What metadata says of a column. Missing is NaN in raw bytes and null in JSON, which integers cannot say: hence FP64.
Requests may use other datatypes."""
JSON_LENGTH = "inference-header-content-length"
"""The header that tells how many bytes of a body are JSON. The rest are raw tensors."""
BINARY = {"content-type": "application/octet-stream"}
LABEL = "label"
EXTENSIONS = ("binary_tensor_data", "parameters", "model_repository(index)")
NOT_SUPPORTED = {"classification": "ask for the output label instead", "shared_memory_region": "read the answer"}
"""Parameters of a requested output that would change its meaning, and what to do instead."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """What was asked. `outputs` are the wanted ones in order, and whether each is to come as raw bytes."""

    id: str | None
    columns: Mapping[str, Values]
    rows: int
    outputs: tuple[tuple[str, bool], ...]


def split(body: bytes, headers: Mapping[str, str]) -> tuple[Any, memoryview | None]:
    """A request's JSON document, and what follows it where a header says where it ends. Raises BadRequest."""
    if JSON_LENGTH not in headers:
        return load_json(body), None
    size, view = _json_length(headers[JSON_LENGTH], len(body)), memoryview(body)
    return load_json(view[:size]), view[size:]


def read_request(document: Any, data: memoryview | None, signature: Signature) -> InferenceRequest:
    """An inference request, from its JSON and the raw tensors behind that. Raises BadRequest."""
    raw = RawData(data or memoryview(b""))
    columns, rows = _columns(document, raw)
    raw.finish()
    identifier = document.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise BadRequest(f"id {bounded(repr(identifier), SHOWN)} is not a text")
    return InferenceRequest(identifier, columns, rows, _wanted(document, output_names(signature)))


def write_answer(
    asked: InferenceRequest, manifest: Manifest, answers: np.ndarray[Any, Any], headers: Mapping[str, str]
) -> Answer:
    """The wanted outputs for `answers`, float64 [N, K]: as JSON, as raw bytes behind it, or some of each."""
    outputs, parts = [], []
    for name, binary in asked.outputs:
        output, values = _output(name, manifest.signature, answers, binary=binary)
        if binary:
            output["parameters"] = {BINARY_SIZE: len(values)}
            parts.append(values)
        else:
            output["data"] = values
        outputs.append(output)
    document: dict[str, Any] = {
        "model_name": manifest.pipeline,
        "model_version": str(manifest.version),
        "outputs": outputs,
        "parameters": {"run": manifest.run},
    }
    if asked.id is not None:
        document["id"] = asked.id
    head = dumps(document)
    if not any(binary for _, binary in asked.outputs):
        return Answer(200, head, {**JSON, **headers})
    return Answer(200, b"".join((head, *parts)), {**BINARY, JSON_LENGTH: str(len(head)), **headers})


def model_metadata(manifest: Manifest) -> dict[str, Any]:
    """The answer to GET v2/models/{name}."""
    inputs = [{"name": c.name, "datatype": DATATYPE_OF[c.kind], "shape": [-1]} for c in manifest.signature.inputs]
    signature = manifest.signature
    outputs: list[dict[str, Any]] = [{"name": signature.output, "datatype": "FP64", "shape": [-1, signature.width]}]
    if LABEL in output_names(signature):
        outputs.append({"name": LABEL, "datatype": "BYTES", "shape": [-1]})
    return {
        "name": manifest.pipeline,
        "versions": [str(manifest.version)],
        "platform": "onnxruntime_onnx",
        "inputs": inputs,
        "outputs": outputs,
        "parameters": {"run": manifest.run, "classes": list(manifest.signature.classes)},
    }


def _json_length(value: str, total: int) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > len(str(total)) or int(value) > total:
        message = f"the header {JSON_LENGTH} says {bounded(value, SHOWN)!r}; the body has {total:,} bytes"
        raise BadRequest(message)
    return int(value)


def _columns(document: Any, raw: RawData) -> tuple[dict[str, Values], int]:
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list) or not inputs:
        raise BadRequest("an inference request is an object with a list of `inputs`, one tensor per column")
    columns: dict[str, Values] = {}
    rows = -1
    for tensor in inputs:
        name, values = read_tensor(tensor, raw)
        if name in columns:
            raise BadRequest(f"input {bounded(name, SHOWN)} is given twice", column=name)
        if rows not in {-1, len(values)}:
            message = f"input {bounded(name, SHOWN)} has {len(values)} rows; others have {rows}"
            raise BadRequest(message, column=name)
        rows = len(values)
        columns[name] = values
    return columns, rows


def output_names(signature: Signature) -> tuple[str, ...]:
    """Names: probabilities and the likeliest class, or a regression's values alone."""
    return (signature.output, LABEL) if signature.classes else (signature.output,)


def _wanted(document: dict[str, Any], known: tuple[str, ...]) -> tuple[tuple[str, bool], ...]:
    """Names of the outputs that are asked for, all when none is, and whether as raw bytes. Raises BadRequest."""
    parameters = document.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadRequest("parameters is not an object")
    binary = _flag(parameters, "binary_data_output", default=False)
    outputs = document.get("outputs")
    if not outputs:
        return tuple((name, binary) for name in known)
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise BadRequest("outputs is a list of objects with a name")
    wanted: dict[str, bool] = {}
    for output in outputs:
        name = output.get("name")
        if name not in known:
            shown = bounded(repr(name), SHOWN)
            raise BadRequest(f"the model has no output {shown}; it has {' and '.join(known)}")
        if name in wanted:
            raise BadRequest(f"output {name} is asked for twice")
        wanted[name] = _binary(name, output.get("parameters") or {}, default=binary)
    return tuple(wanted.items())


def _binary(name: str, parameters: Any, *, default: bool) -> bool:
    if not isinstance(parameters, dict):
        raise BadRequest(f"output {name}: parameters is not an object")
    for parameter, instead in NOT_SUPPORTED.items():
        if parameters.get(parameter):
            raise BadRequest(f"output {name}: the parameter {parameter} is not supported; {instead}")
    return _flag(parameters, "binary_data", default=default)


def _flag(parameters: dict[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"the parameter {name} is {bounded(repr(value), SHOWN)}; it has to be true or false")
    return value


def _output(
    name: str, signature: Signature, answers: np.ndarray[Any, Any], *, binary: bool
) -> tuple[dict[str, Any], Any]:
    """What the JSON says of an output, and its values: for JSON, or as raw bytes."""
    if name == signature.output:
        described = {"name": name, "datatype": "FP64", "shape": list(answers.shape)}
        return described, answers.tobytes() if binary else answers.ravel()
    classes, choices = signature.classes, answers.argmax(axis=1).tolist()
    described = {"name": name, "datatype": "BYTES", "shape": [len(choices)]}
    return described, raw_choices(classes, choices) if binary else [classes[choice] for choice in choices]
