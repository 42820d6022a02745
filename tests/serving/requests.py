"""Requests as clients write them, and answers as they read them."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from hypothesis import strategies as st

from serving.answers import Answer

NAMES = (
    *("distance", "carrier", "at", "records", "inputs", "outputs", "parameters", "name", "datatype", "shape", "data"),
    *("binary_data_size", "binary_data", "binary_data_output", "ready"),
)
"""Words that mean something in a request."""
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
    | st.sampled_from(["2013-01-01", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00+23:59"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
ROW = {"distance": 100.0, "carrier": "AA", "at": "2013-01-01T05:00:00Z"}


def body(document: Any) -> bytes:
    return json.dumps(document).encode()


def read(answer: Answer) -> Any:
    """A JSON answer. NaN and Infinity, which are not JSON, fail."""
    return json.loads(answer.body, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


def packed(texts: list[bytes]) -> bytes:
    """A raw BYTES tensor."""
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def binary(inputs: list[tuple[str, str, int, bytes]], **fields: Any) -> tuple[bytes, dict[str, str]]:
    """(body, headers) of an inference request with raw tensors (name, datatype, rows, bytes)."""
    tensors = [
        {"name": name, "datatype": datatype, "shape": [rows], "parameters": {"binary_data_size": len(raw)}}
        for name, datatype, rows, raw in inputs
    ]
    head = body({"inputs": tensors, **fields})
    return head + b"".join(raw for *_, raw in inputs), {"inference-header-content-length": str(len(head))}


def outputs(answer: Answer) -> dict[str, Any]:
    """The outputs of an answer by name, from JSON or raw bytes, as lists."""
    length = int(answer.headers.get("inference-header-content-length", len(answer.body)))
    found, rest = {}, answer.body[length:]
    for output in json.loads(answer.body[:length])["outputs"]:
        if "data" in output:
            found[output["name"]] = output["data"]
            continue
        size = output["parameters"]["binary_data_size"]
        raw, rest = rest[:size], rest[size:]
        found[output["name"]] = _texts(raw) if output["datatype"] == "BYTES" else np.frombuffer(raw, "<f8").tolist()
    assert not rest
    return found


def _texts(raw: bytes) -> list[str]:
    texts = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        texts.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return texts
