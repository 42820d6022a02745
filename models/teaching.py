"""Which rows of a dataset teach, which only stop the training, and what each of them counts.

Many rows go to LightGBM in batches, straight from the parts' arrays, which may be memory-mapped files: what training
holds in memory is LightGBM's own binned copy and a few numbers for each row. Rows that fit easily are copied, which is
faster and gives the same model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import lightgbm as lgb
import numpy as np

if TYPE_CHECKING:
    from models.manifest import HoldoutRule
    from models.spec import PipelineSpec

SECONDS_A_DAY = 86_400.0
BATCH_ROWS = 16_384
"""Rows that are copied for LightGBM at once when there are many: some megabytes."""
COPIED_BYTES = 256 * 2**20
"""Largest matrix that is copied as a whole."""


class TrainingRows(Protocol):
    """One partition's rows, as models.matrices.MatrixPart describes them."""

    @property
    def x(self) -> np.ndarray[Any, np.dtype[np.float32]]: ...
    @property
    def y(self) -> np.ndarray[Any, np.dtype[np.float64]]: ...
    @property
    def time(self) -> np.ndarray[Any, np.dtype[np.float64]]: ...
    @property
    def fold(self) -> np.ndarray[Any, np.dtype[np.float64]]: ...
    @property
    def weight(self) -> np.ndarray[Any, np.dtype[np.float32]]: ...
    def release(self) -> None: ...


class PartRows(lgb.Sequence):  # type: ignore[misc]
    """The chosen rows of one part, as LightGBM asks for them."""

    batch_size = BATCH_ROWS

    def __init__(self, part: TrainingRows, rows: np.ndarray[Any, Any]) -> None:
        self._part, self._x, self._rows = part, part.x, rows

    def __getitem__(self, index: int | slice | list[int]) -> np.ndarray[Any, Any]:
        rows: np.ndarray[Any, Any] = self._x[self._rows[index]]
        if not isinstance(index, slice):
            # LightGBM wants the single rows that it samples as float64.
            return rows.astype(np.float64)
        if index.stop is None or index.stop >= len(self._rows):
            self._part.release()
        return rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows as one matrix."""
        return int(len(self._rows) * self._x.shape[1] * self._x.itemsize)


@dataclass(frozen=True, slots=True)
class Taken:
    """Rows with one purpose: where they are in each part, their labels (float32 [N]) and their weights, if any."""

    x: list[PartRows] | list[np.ndarray[Any, Any]]
    y: np.ndarray[Any, np.dtype[np.float32]]
    weight: np.ndarray[Any, np.dtype[np.float32]] | None


def split(parts: Sequence[TrainingRows], spec: PipelineSpec, holdout: HoldoutRule) -> tuple[Taken, Taken]:
    """The rows that teach and those that validate, part after part."""
    ours = [~holdout.holds(part.time, part.fold) for part in parts]
    newest = max(
        (float(part.time[rows].max(initial=-np.inf)) for part, rows in zip(parts, ours, strict=True)), default=0.0
    )
    end = holdout.since if holdout.by == "time" else newest
    begin = end - spec.window.days * SECONDS_A_DAY if spec.window.days is not None else -np.inf
    teaching, validating = [], []
    for part, rows in zip(parts, ours, strict=True):
        usable = rows & (part.time >= begin)
        stopping = _validates(part, spec, holdout, end)
        teaching.append(np.flatnonzero(usable & ~stopping).astype(np.int32))
        validating.append(np.flatnonzero(usable & stopping).astype(np.int32))
    class_weights = _class_weights(parts, teaching, spec)
    taken = tuple(_taken(parts, rows, spec, newest, class_weights) for rows in (teaching, validating))
    for part in parts:
        # From here on only the features are read.
        part.release()
    return taken  # type: ignore[return-value]


def _validates(part: TrainingRows, spec: PipelineSpec, holdout: HoldoutRule, end: float) -> np.ndarray[Any, Any]:
    if spec.validation.days is not None:
        return np.asarray(part.time >= end - spec.validation.days * SECONDS_A_DAY)
    # Where the holdout takes the folds below its fraction, those above it are spread over [0, 1) again.
    taken = 0.0 if holdout.by == "time" else holdout.fraction
    return np.asarray((part.fold - taken) < spec.validation.fraction * (1.0 - taken))


def _taken(
    parts: Sequence[TrainingRows],
    chosen: Sequence[np.ndarray[Any, Any]],
    spec: PipelineSpec,
    newest: float,
    class_weights: np.ndarray[Any, Any] | None,
) -> Taken:
    places = list(zip(parts, chosen, strict=True))
    y = np.concatenate([part.y[rows].astype(np.float32) for part, rows in places] or [np.empty(0, np.float32)])
    weight = None
    if spec.weight is not None or spec.training.half_life_days is not None or class_weights is not None:
        weight = np.concatenate([part.weight[rows] for part, rows in places] or [np.empty(0, np.float32)])
        if spec.training.half_life_days is not None:
            age = np.concatenate([newest - part.time[rows] for part, rows in places]) / SECONDS_A_DAY
            weight = weight * np.exp2(-age / spec.training.half_life_days).astype(np.float32)
        if class_weights is not None:
            weight = weight * class_weights[y.astype(np.intp)]
    chosen_rows = [PartRows(part, rows) for part, rows in places if len(rows)]
    if sum(rows.nbytes for rows in chosen_rows) > COPIED_BYTES:
        return Taken(chosen_rows, y, weight)
    return Taken([rows[:] for rows in chosen_rows], y, weight)


def _class_weights(
    parts: Sequence[TrainingRows], teaching: Sequence[np.ndarray[Any, Any]], spec: PipelineSpec
) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """float32 [K], or None when classes count as they come."""
    given = spec.training.class_weights
    if given is None:
        return None
    if isinstance(given, Mapping):
        return np.array([given.get(name, 1.0) for name in spec.classes], np.float32)
    counts = np.zeros(len(spec.classes))
    for part, rows in zip(parts, teaching, strict=True):
        counts += np.bincount(part.y[rows].astype(np.intp), minlength=len(counts))
    present = int((counts > 0).sum())
    return np.where(counts > 0, counts.sum() / (present * np.maximum(counts, 1.0)), 1.0).astype(np.float32)
