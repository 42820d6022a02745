"""An ONNX graph, ready to answer: raw columns in, class probabilities (or a regression's values) out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models.errors import bounded
from models.manifest import GoldenRows, Signature
from serving.errors import ModelRefused

if TYPE_CHECKING:
    import numpy as np

DETAIL_CHARACTERS = 200
"""How much of onnxruntime's own words a refusal repeats."""
WARM_UP_ROWS = (1, 100)
"""Batch sizes that a new session runs before it serves: the first run of a size allocates."""

type Feed = Mapping[str, np.ndarray[Any, Any]]


class Session:
    """One onnxruntime session on one thread: workers scale by processes, so threads here would only fight."""

    def __init__(self, model: bytes) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            self._output = [self._session.get_outputs()[0].name]
        except Exception as exc:  # onnxruntime raises a family of unrelated classes for a file that it cannot load
            raise ModelRefused(f"the model cannot be loaded: {bounded(exc, DETAIL_CHARACTERS)}") from exc

    def run(self, feed: Feed) -> np.ndarray[Any, Any]:
        """The graph's one output: probabilities, float64 [N, K], or a regression's values, [N, 1]."""
        result: np.ndarray[Any, Any] = self._session.run(self._output, feed)[0]
        return result


def golden_feed(signature: Signature, golden: GoldenRows) -> dict[str, np.ndarray[Any, Any]]:
    """The golden rows as graph inputs, each of shape [N]. Raises ModelRefused."""
    import numpy as np

    feed: dict[str, np.ndarray[Any, Any]] = {}
    for column in signature.inputs:
        values = golden.inputs.get(column.name)
        if values is None:
            raise ModelRefused(f"model.json has no golden values for the input {bounded(column.name, 60)!r}")
        if column.kind == "category":
            feed[column.name] = np.array(["" if value is None else value for value in values], dtype=object)
        else:
            feed[column.name] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return feed


def prove(session: Session, signature: Signature, golden: GoldenRows) -> None:
    """Runs the golden rows: every answer has to equal the recorded one bit for bit. Raises ModelRefused."""
    import numpy as np

    classes = signature.classes
    _check_classes(signature)
    answers = _answers(session, golden_feed(signature, golden))
    expected = np.array(golden.probabilities, dtype=np.float64)
    if not expected.size:
        raise ModelRefused("model.json has no golden rows: nothing says what the model has to answer")
    if answers.shape[1:] != (signature.width,) or answers.dtype != np.float64:
        raise ModelRefused(f"the model answers {answers.dtype} {list(answers.shape)} for {len(classes)} classes")
    # Bytes, so that -0.0 is not 0.0. A NaN among them would be no probability, even as recorded.
    if answers.tobytes() != expected.tobytes() or answers.shape != expected.shape or not np.isfinite(answers).all():
        raise ModelRefused("the model answers its golden rows differently than when it was made")


def _check_classes(signature: Signature) -> None:
    """Whether the task has such classes. Raises ModelRefused."""
    classes, positive = signature.classes, signature.positive
    fits = {
        "binary": positive in classes,
        "multiclass": bool(classes) and not positive,
        "regression": not classes and not positive,
    }
    if not fits[signature.task] or len(set(classes)) < len(classes):
        raise ModelRefused(
            f"model.json has classes {bounded(list(classes))} and {bounded(positive, 60)!r} as the positive one, "
            f"for the task {signature.task}"
        )


def warm_up(session: Session, signature: Signature, golden: GoldenRows) -> None:
    """Runs real batch sizes once. Raises ModelRefused when the model takes only some."""
    import numpy as np

    feed = golden_feed(signature, golden)
    for rows in WARM_UP_ROWS:
        answers = _answers(session, {name: np.resize(values, rows) for name, values in feed.items()})
        if len(answers) != rows:
            raise ModelRefused(f"the model gives {len(answers)} answers to {rows} rows")


def _answers(session: Session, feed: Feed) -> np.ndarray[Any, Any]:
    try:
        return session.run(feed)
    except Exception as exc:  # a graph with other inputs fails in onnxruntime's own ways
        raise ModelRefused(f"the model does not run on its golden rows: {bounded(exc, DETAIL_CHARACTERS)}") from exc
