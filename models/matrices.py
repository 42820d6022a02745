"""One partition's rows as the trainer takes them: features, labels, times and the fold that picks validation rows."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from models.partitions import LABEL, TIME

if TYPE_CHECKING:
    import polars as pl

_MAGIC = b"RATCHET-MATRIX-1\n"
_DTYPES = {"x": np.float32, "y": np.uint8, "time": np.float64, "fold": np.float64}
_FOLD_BITS = 53
"""What a float64 holds exactly."""


@dataclass(frozen=True, slots=True, eq=False)
class MatrixPart:
    """`x` float32 [N, F], `y` uint8 [N] (0 or 1), `time` float64 [N] (seconds since 1970 UTC), `fold` float64 [N].

    `fold` is uniform in [0, 1) and belongs to the row for good: rows below `validation.fraction` validate.
    """

    x: np.ndarray[Any, np.dtype[np.float32]]
    y: np.ndarray[Any, np.dtype[np.uint8]]
    time: np.ndarray[Any, np.dtype[np.float64]]
    fold: np.ndarray[Any, np.dtype[np.float64]]

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != (2 if name == "x" else 1) or len(array) != len(self.x):
                raise ValueError(f"{name} is {array.dtype} {array.shape}; it takes {np.dtype(dtype)} for every row")

    def to_bytes(self) -> bytes:
        """The four arrays as .npy, back to back after a magic line; equal parts give equal bytes."""
        buffer = io.BytesIO()
        buffer.write(_MAGIC)
        for name in _DTYPES:
            array = np.ascontiguousarray(getattr(self, name))
            np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The part that `to_bytes` wrote. Raises ValueError when `data` is something else or cut off."""
        buffer = io.BytesIO(data)
        if buffer.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("this is no matrix part: it starts with something else")
        arrays = {name: np.lib.format.read_array(buffer, allow_pickle=False) for name in _DTYPES}
        if buffer.read(1):
            raise ValueError("this is no matrix part: something follows its arrays")
        return cls(**arrays)


def matrix_part(x: np.ndarray[Any, np.dtype[np.float32]], frame: pl.DataFrame, *, key: str) -> MatrixPart:
    """A clean frame's rows with their features `x`. `key` names the partition (for example its path and eTag)."""
    return MatrixPart(x=x, y=frame[LABEL].to_numpy(), time=frame[TIME].to_numpy(), fold=folds(key, frame.height))


def folds(key: str, rows: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """float64 [rows] in [0, 1): a hash of (`key`, row number), whatever else is in the dataset.

    SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014) seeded with SHA-256 of `key`.
    """
    seed = np.uint64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
    # uint64 arithmetic on arrays wraps around, as the algorithm wants.
    z = np.arange(1, rows + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + seed
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(64 - _FOLD_BITS)).astype(np.float64) * 2.0**-_FOLD_BITS
