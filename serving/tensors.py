"""Tensors of the Open Inference Protocol: JSON values, or raw bytes behind the JSON (binary tensor data extension).

Sources: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from models.errors import bounded
from serving.errors import BadRequest
from serving.feeds import SHOWN, Values

if TYPE_CHECKING:
    import numpy as np

NUMPY_TYPES = {
    "BOOL": "?",
    **{f"INT{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    "BF16": "<u2",
}
"""The little-endian element of a raw tensor by the protocol's datatype. numpy has no bfloat16: its bits are read."""
DATATYPES = frozenset({"BYTES", *NUMPY_TYPES})
"""The protocol's. Values are checked against the model's signature, which is stricter than any of these names."""
BINARY_SIZE = "binary_data_size"
LENGTH = struct.Struct("<I")
"""What stands before each element of a raw BYTES tensor."""
MAX_DIMENSIONS = 2


class RawData:
    """The bytes behind a request's JSON. Each raw tensor takes its part, in the order of the inputs."""

    __slots__ = ("_data", "_taken")

    def __init__(self, data: memoryview) -> None:
        self._data, self._taken = data, 0

    def take(self, size: int) -> memoryview:
        """The next `size` bytes. Raises BadRequest when there are not so many."""
        start, self._taken = self._taken, self._taken + size
        if self._taken > len(self._data):
            raise BadRequest(f"the inputs announce {self._taken:,} bytes of binary data; there are {len(self._data):,}")
        return self._data[start : self._taken]

    def finish(self) -> None:
        """Raises BadRequest when bytes are left that belong to no input."""
        if left := len(self._data) - self._taken:
            raise BadRequest(f"{left:,} bytes follow the JSON that belong to no input: see {BINARY_SIZE}")


def read_tensor(tensor: Any, raw: RawData) -> tuple[str, Values]:
    """(name, values [N]) of one input of shape [N] or [N, 1]. Numbers in raw bytes are not copied.

    Raises BadRequest.
    """
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
        raise BadRequest("every input is an object with name, datatype, shape and data")
    name, datatype, shape = tensor["name"], tensor.get("datatype"), tensor.get("shape")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        known = ", ".join(sorted(DATATYPES))
        raise wrong(name, f"datatype {bounded(repr(datatype), SHOWN)} is none of {known}")
    if not isinstance(shape, list) or not _is_column(shape):
        raise wrong(name, f"shape {bounded(repr(shape), SHOWN)} is not [N] or [N, 1]")
    parameters = tensor.get("parameters")
    if not parameters:
        return name, _json_values(name, shape[0], tensor.get("data"))
    if not isinstance(parameters, dict):
        raise wrong(name, "parameters is not an object")
    if "shared_memory_region" in parameters:
        raise wrong(name, "shared memory is not supported; send the values, as JSON or as binary data")
    if BINARY_SIZE in parameters:
        size = parameters[BINARY_SIZE]
        if "data" in tensor:
            raise wrong(name, f"it has data and {BINARY_SIZE}; one of them is enough")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise wrong(name, f"{BINARY_SIZE} {bounded(repr(size), SHOWN)} is not a number of bytes")
        return name, _raw_values(name, datatype, shape[0], raw.take(size))
    return name, _json_values(name, shape[0], tensor.get("data"))


def wrong(name: str, what: str) -> BadRequest:
    """An error about one input."""
    return BadRequest(f"input {bounded(name, SHOWN)}: {what}", column=name)


def raw_choices(texts: Sequence[str], choices: Iterable[int]) -> bytes:
    """A raw BYTES tensor whose elements are some of `texts`, by their places."""
    elements = [LENGTH.pack(len(text.encode())) + text.encode() for text in texts]
    return b"".join([elements[choice] for choice in choices])


def _is_column(shape: list[Any]) -> bool:
    if not 1 <= len(shape) <= MAX_DIMENSIONS:
        return False
    # What JSON has for a number is an int itself; a bool is another type.
    return type(shape[0]) is int and shape[0] >= 0 and (len(shape) == 1 or (type(shape[1]) is int and shape[1] == 1))


def _json_values(name: str, rows: int, data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise wrong(name, "data is not a list")
    values: list[Any] = data
    if list in map(type, data):
        values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in data]
    if len(values) != rows:
        raise wrong(name, f"shape says {rows} rows, data has {len(values)}")
    return values


def _raw_values(name: str, datatype: str, rows: int, data: memoryview) -> Values:
    import numpy as np

    if datatype == "BYTES":
        return _raw_texts(name, rows, bytes(data))
    dtype = np.dtype(NUMPY_TYPES[datatype])
    if len(data) != rows * dtype.itemsize:
        size = f"{dtype.itemsize} byte" + ("s" if dtype.itemsize > 1 else "")
        raise wrong(name, f"{rows} rows of {datatype} ({size} each) do not make {len(data)} bytes")
    values: np.ndarray[Any, Any] = np.frombuffer(data, dtype)
    if datatype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    # A byte of a BOOL tensor may have any value; what is not zero is true.
    return values.view(np.uint8) != 0 if datatype == "BOOL" else values


def _raw_texts(name: str, rows: int, data: bytes) -> list[str]:
    texts: list[str] = []
    position, length = 0, LENGTH.unpack_from
    try:
        for _ in range(rows):
            (size,) = length(data, position)
            start = position + LENGTH.size
            position = start + size
            texts.append(data[start:position].decode())
    except UnicodeDecodeError as exc:
        raise BadRequest(f"row {len(texts)}: {name} is not UTF-8", row=len(texts), column=name) from exc
    except struct.error as exc:
        raise wrong(name, f"shape says {rows} rows; the {len(data):,} bytes of binary data end before") from exc
    if position != len(data):
        raise wrong(name, f"{rows} rows make {position:,} bytes of binary data, not {len(data):,}")
    return texts
