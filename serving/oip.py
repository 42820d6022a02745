"""Open Inference Protocol v2 (REST, JSON tensors): requests to columns, probabilities to tensors.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.errors import bounded
from models.manifest import InputKind, Manifest, Signature
from serving.errors import BadRequest

INTEGERS = tuple(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))
DATATYPES = frozenset({"BYTES", "BOOL", "FP16", "FP32", "FP64", *INTEGERS})
"""The protocol's. Values are checked against the model's signature, which is stricter than any of these names."""
SHOWN = 60
"""How many characters of a request's own words an error repeats."""
DATATYPE_OF: dict[InputKind, str] = {
    "number": "FP64",
    "integer": "FP64",
    "boolean": "FP64",
    "category": "BYTES",
    "timestamp": "FP64",
}
"""What metadata says of a column. Missing is null in a JSON tensor, which integer tensors cannot say: hence FP64."""


def read_columns(request: Any) -> tuple[dict[str, Sequence[Any]], int]:
    """(columns, rows) of an inference request. Tensors are [N] or [N, 1], flat or nested. Raises BadRequest."""
    inputs = request.get("inputs") if isinstance(request, dict) else None
    if not isinstance(inputs, list) or not inputs:
        raise BadRequest("an inference request is an object with a list of `inputs`, one tensor per column")
    columns: dict[str, Sequence[Any]] = {}
    rows = -1
    for tensor in inputs:
        name, values = _tensor(tensor)
        if name in columns:
            raise BadRequest(f"input {bounded(name, SHOWN)} is given twice", column=name)
        if rows not in {-1, len(values)}:
            message = f"input {bounded(name, SHOWN)} has {len(values)} rows; others have {rows}"
            raise BadRequest(message, column=name)
        rows = len(values)
        columns[name] = values
    return columns, rows


def _tensor(tensor: Any) -> tuple[str, Sequence[Any]]:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise BadRequest("every input is an object with name, datatype, shape and data")
    name, datatype, shape, data = tensor["name"], tensor.get("datatype"), tensor.get("shape"), tensor.get("data")

    def wrong(what: str) -> BadRequest:
        return BadRequest(f"input {bounded(name, SHOWN)}: {what}", column=name)

    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise wrong(f"datatype {bounded(repr(datatype), SHOWN)} is none of {', '.join(sorted(DATATYPES))}")
    if not isinstance(data, list):
        raise wrong("data is not a list")
    if not isinstance(shape, list) or not _is_column(shape):
        raise wrong(f"shape {bounded(repr(shape), SHOWN)} is not [N] or [N, 1]")
    values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in data]
    if len(values) != shape[0]:
        raise wrong(f"shape says {shape[0]} rows, data has {len(values)}")
    return name, values


def _is_column(shape: list[Any]) -> bool:
    return (
        len(shape) in {1, 2}
        and all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape)
        and (len(shape) == 1 or shape[1] == 1)
    )


def model_metadata(manifest: Manifest) -> dict[str, Any]:
    """The answer to GET v2/models/{name}."""
    inputs = [{"name": c.name, "datatype": DATATYPE_OF[c.kind], "shape": [-1]} for c in manifest.signature.inputs]
    signature = manifest.signature
    outputs = [{"name": signature.output, "datatype": "FP64", "shape": [-1, signature.width]}]
    if signature.classes:
        outputs.append({"name": "label", "datatype": "BYTES", "shape": [-1]})
    return {
        "name": manifest.pipeline,
        "versions": [str(manifest.version)],
        "platform": "onnxruntime_onnx",
        "inputs": inputs,
        "outputs": outputs,
        "parameters": {"run": manifest.run, "classes": list(manifest.signature.classes)},
    }


def requested_outputs(request: Any, signature: Signature) -> frozenset[str]:
    """Names of the outputs asked for; all that the model has when none is named. Raises BadRequest."""
    known = frozenset({signature.output, "label"} if signature.classes else {signature.output})
    outputs = request.get("outputs")
    if not outputs:
        return known
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise BadRequest("outputs is a list of objects with a name")
    names = frozenset(str(output.get("name")) for output in outputs)
    if unknown := names - known:
        shown = bounded(repr(sorted(unknown)[0]), SHOWN)
        raise BadRequest(f"the model has no output {shown}; it has {' and '.join(sorted(known, reverse=True))}")
    return names
