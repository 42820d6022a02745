"""The request that servers get most, with as little code as can be: one row, every column, in JSON tensors.

The Python before and after a run of the trees finds its code and its data thrown out of the CPU's caches, so that its
time is the number of different things that it touches. What is here is a loop and a few calls; `oip` and `feeds` take
every request, and say what is wrong with one. Anything but the plainest is left to them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from models.manifest import InputKind, Manifest
from serving import oip
from serving.answers import Answer, dumps
from serving.feeds import CHECKS, PLAIN
from serving.tensors import DATATYPES

if TYPE_CHECKING:
    import numpy as np

FIELDS = frozenset({"inputs", "id"})
TENSOR_FIELDS = 4
"""name, datatype, shape, data."""
TYPES: Mapping[InputKind, frozenset[type]] = {**PLAIN, "category": frozenset({str, type(None)})}
FLAGS = frozenset({0, 1, None})


class _Inputs(threading.local):
    """Arrays that each request of a thread is written into: to make them anew takes as long as the rest of reading."""

    def __init__(self, numbers: Sequence[str], categories: Sequence[str]) -> None:
        import numpy as np

        self.numbers = np.empty((len(numbers), 1), np.float64)
        self.texts = {name: np.empty(1, object) for name in categories}
        self.feed = {**dict(zip(numbers, self.numbers, strict=True)), **self.texts}


class OneRow:
    """Reads and answers such requests for one model. Made once per model."""

    def __init__(self, manifest: Manifest, headers: Mapping[str, str]) -> None:
        import numpy as np

        signature = manifest.signature
        self._types = {column.name: TYPES[column.kind] for column in signature.inputs}
        names = {kind: [column.name for column in signature.inputs if column.kind == kind] for kind in TYPES}
        self._integers, self._booleans = names["integer"], names["boolean"]
        self._numbers = [name for kind in CHECKS for name in names[kind]]
        self._inputs = _Inputs(self._numbers, names["category"])
        # What `oip` writes, around the values: the same for all answers with the same likeliest class.
        outputs = oip.output_names(signature)
        asked = oip.InferenceRequest(None, {}, 1, tuple((name, False) for name in outputs))
        self._tails = []
        for answers in np.eye(signature.width):
            answer = oip.write_answer(asked, manifest, answers.reshape(1, -1), headers)
            self._head, _, tail = answer.body.partition(dumps(answers))
            self._headers = answer.headers
            self._tails.append(tail.removesuffix(b"}"))

    def read(self, document: Any) -> dict[str, np.ndarray[Any, Any]] | None:
        """The feed, or None for a request that is not like that, or not right. `document` is from orjson, which lets no
        infinity through. The feed is this thread's, and holds until it reads the next request."""
        types, columns = self._types, {}
        try:
            if not document.keys() <= FIELDS or type(document.get("id", "")) is not str:
                return None
            for tensor in document["inputs"]:
                name, data = tensor["name"], tensor["data"]
                (rows,), (value,) = tensor["shape"], data
                if (
                    type(value) not in types[name]
                    or type(data) is not list
                    or type(rows) is not int
                    or rows != 1
                    or tensor["datatype"] not in DATATYPES
                    or len(tensor) != TENSOR_FIELDS
                    or name in columns
                ):
                    return None
                columns[name] = value
            for name in self._integers:
                if (value := columns[name]) is not None and value % 1:
                    return None
            for name in self._booleans:
                if columns[name] not in FLAGS:
                    return None
            inputs = self._inputs
            inputs.numbers[:, 0] = [columns[name] for name in self._numbers]
            for name, text in inputs.texts.items():
                text[0] = columns[name] or ""
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        return inputs.feed

    def write(self, identifier: str | None, answers: np.ndarray[Any, Any]) -> Answer:
        """The answer to such a request for `answers`, float64 [1, K]."""
        end = b"}" if identifier is None else b',"id":%b}' % dumps(identifier)
        body = b"".join((self._head, dumps(answers.ravel().tolist()), self._tails[answers.argmax()], end))
        return Answer(200, body, self._headers)
