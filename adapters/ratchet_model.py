"""How MLflow asks a Ratchet model. A copy of this file lies in the `code` folder of every registered version.

`mlflow.pyfunc.load_model` and `mlflow models serve` load it from there, where nothing else of Ratchet is: it imports
numpy, onnxruntime, pandas and MLflow alone.

MLflow's own ONNX wrapper would hand pandas' text columns to onnxruntime, which refuses them, and would put the
probabilities of all classes into one column. MLflow's check of column types, were they in the model's signature, would
refuse whole numbers where fractions may come and a column in which every value is missing. So the signature leaves the
types open, and they are read here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import onnxruntime

if TYPE_CHECKING:
    import pandas as pd

BATCH_ROWS = 65_536
MAX_SHOWN_CHARACTERS = 60
MODEL, SIGNATURE = "model.onnx", "signature.json"


def _load_pyfunc(path: str) -> RatchetModel:
    """What MLflow calls with the model's folder."""
    folder = Path(path)
    signature = json.loads((folder / SIGNATURE).read_text(encoding="utf-8"))
    return RatchetModel((folder / MODEL).read_bytes(), signature)


class RatchetModel:
    """A graph with its signature: `inputs` (name and kind of each column) and `classes`, as model.json has them."""

    def __init__(self, model: bytes, signature: Mapping[str, Any]) -> None:
        options = onnxruntime.SessionOptions()
        # One thread, as where the model is served: more of them would add up the trees in another order.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._kinds = {column["name"]: column["kind"] for column in signature["inputs"]}
        self._outputs = list(signature["classes"]) or [self._session.get_outputs()[0].name]

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """The graph's answers, bit for bit: a row for each row of `data`, with its index, and a column for each class.

        Numbers may be of any numeric type, times are ISO 8601 texts, datetimes (UTC when they name no zone) or seconds
        since 1970 UTC, categories are texts; None, NaN and NA are missing. Columns that the model does not have are
        ignored. Raises MlflowException, as a client's mistake, for a column that is not there or cannot be read.
        """
        import pandas as pd

        absent = [name for name in self._kinds if name not in data]
        if absent:
            _refuse(f"the model needs the columns {', '.join(absent)}, which are not there; None in them is missing")
        answers = np.empty((len(data), len(self._outputs)), np.float64)
        for start in range(0, len(data), BATCH_ROWS):
            rows = data.iloc[start : start + BATCH_ROWS]
            feed = {name: READERS.get(kind, _numbers)(rows[name]) for name, kind in self._kinds.items()}
            answers[start : start + BATCH_ROWS] = self._session.run(None, feed)[0]
        return pd.DataFrame(answers, columns=self._outputs, index=data.index)

    def get_raw_model(self) -> onnxruntime.InferenceSession:
        """What `model.get_raw_model()` gives."""
        return self._session


def _numbers(column: pd.Series) -> np.ndarray[Any, Any]:
    if column.dtype.kind in "iufb":
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    return _each(column, _number, np.float64)


def _number(value: Any) -> float:
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return float(value.strip().lower() == "true")
    return float(value)


def _times(column: pd.Series) -> np.ndarray[Any, Any]:
    """Seconds since 1970 UTC, from whole microseconds, as in training."""
    import pandas as pd

    if column.dtype.kind in "iufb" or all(isinstance(value, int | float) for value in column.dropna()):
        return _numbers(column)
    try:
        moments = pd.to_datetime(column, utc=True, format="ISO8601").dt.as_unit("us")
    except (ValueError, TypeError, OverflowError) as exc:
        _refuse(f"{column.name} is not a time in ISO 8601: {str(exc)[: 2 * MAX_SHOWN_CHARACTERS]}", exc)
    seconds = moments.to_numpy("datetime64[us]").astype(np.int64) / 1e6
    return np.where(moments.isna(), np.nan, seconds)


def _texts(column: pd.Series) -> np.ndarray[Any, Any]:
    return _each(column, _text, object)


def _text(value: Any) -> str:
    if isinstance(value, bool | np.bool):
        return str(value).lower()
    if isinstance(value, int | np.integer):
        return str(value)
    if not isinstance(value, str):
        raise TypeError("a category is a text")
    return value


def _each(column: pd.Series, read: Callable[[Any], Any], dtype: Any) -> np.ndarray[Any, Any]:
    """One value at a time, with what stands for a missing one; a mistake is named with its row and column."""
    missing = "" if dtype is object else math.nan
    result = np.full(len(column), missing, dtype)
    for row in np.flatnonzero(column.notna()):
        value = column.iat[row]
        try:
            result[row] = read(value)
        except (TypeError, ValueError, OverflowError) as exc:
            what = "a text" if dtype is object else "a number"
            value = value.item() if isinstance(value, np.generic) else value
            _refuse(f"row {row}: {column.name} is not {what}: {repr(value)[:MAX_SHOWN_CHARACTERS]}", exc)
    return result


READERS: Mapping[str, Callable[[pd.Series], np.ndarray[Any, Any]]] = {"category": _texts, "timestamp": _times}
"""By kind of column; all others are numbers."""


def _refuse(message: str, cause: Exception | None = None) -> NoReturn:
    from mlflow.exceptions import MlflowException

    raise MlflowException.invalid_parameter_value(message) from cause
