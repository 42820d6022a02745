"""What every peer does for an answer: columns of one request through the same trees, on one thread."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort

FOLDER = Path(os.environ["BENCH_MODEL"])
CATEGORY = "category"


class Trees:
    """The graph that Ratchet serves."""

    def __init__(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(FOLDER / "model.onnx", options, providers=["CPUExecutionProvider"])
        inputs = json.loads((FOLDER / "signature.json").read_text())["inputs"]
        self._kinds = [(column["name"], column["kind"] == CATEGORY) for column in inputs]

    def probabilities(self, columns):
        """Column name to list of values (None for missing) -> float64 [N, 2]."""
        feed = {}
        for name, is_text in self._kinds:
            values = columns[name]
            if is_text:
                feed[name] = np.array(["" if value is None else value for value in values], dtype=object)
            else:
                feed[name] = np.array(values, dtype=np.float64)
        return self.run(feed)

    def run(self, feed):
        """Graph inputs -> float64 [N, 2]."""
        return self._session.run(["probability"], feed)[0]
