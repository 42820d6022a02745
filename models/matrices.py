"""One partition's rows as the trainer takes them: features, labels, times, folds and weights."""

from __future__ import annotations

import io
import math
import mmap
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
import pyarrow as pa

from models.folds import folds
from models.partitions import GROUP, LABEL, TIME, WEIGHT

if TYPE_CHECKING:
    import polars as pl

_MAGIC = b"RATCHET-MATRIX-2\n".rjust(64, b"#")
"""As long as the blocks that .npy headers fill, so that the arrays lie where the processor likes to read them."""
COPIED_BYTES = 2**20
_DTYPES = {"time": np.float64, "fold": np.float64, "y": np.float64, "x": np.float32, "weight": np.float32}
"""The wider numbers first: each array then begins at a multiple of its numbers' size."""


@dataclass(frozen=True, slots=True, eq=False)
class MatrixPart:
    """`x` float32 [N, F], `y` float64 [N] (the class's code, or the number), `time` float64 [N] (seconds since 1970
    UTC), `fold` float64 [N], `weight` float32 [N].

    `fold` is uniform in [0, 1) and belongs to the row (or its group) for good: holdouts by hash or group and validation
    rows are chosen by it.
    """

    x: np.ndarray[Any, np.dtype[np.float32]]
    y: np.ndarray[Any, np.dtype[np.float64]]
    time: np.ndarray[Any, np.dtype[np.float64]]
    fold: np.ndarray[Any, np.dtype[np.float64]]
    weight: np.ndarray[Any, np.dtype[np.float32]]
    mapped: mmap.mmap | None = None
    """The file that the arrays are a view of, if they are."""

    def __post_init__(self) -> None:
        for name, dtype in _DTYPES.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != (2 if name == "x" else 1) or len(array) != len(self.x):
                raise ValueError(f"{name} is {array.dtype} {array.shape}; it takes {np.dtype(dtype)} for every row")

    def to_bytes(self) -> bytes:
        """The five arrays as .npy, back to back after a magic line; equal parts give equal bytes."""
        buffer = io.BytesIO()
        MatrixWriter(buffer, rows=len(self.x), columns=self.x.shape[1]).add(self)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The part that `to_bytes` wrote. Raises ValueError when `data` is something else or cut off."""
        buffer = io.BytesIO(data)
        if buffer.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("this is no matrix part: it starts with something else")
        arrays: dict[str, Any] = {name: np.lib.format.read_array(buffer, allow_pickle=False) for name in _DTYPES}
        if buffer.read(1):
            raise ValueError("this is no matrix part: something follows its arrays")
        return cls(**arrays)

    @classmethod
    def open(cls, path: Path) -> Self:
        """The part in a file that `to_bytes` filled, memory-mapped: only what is read takes memory.

        Raises ValueError when the file holds something else or was cut off.
        """
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("this is no matrix part: it starts with something else")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            arrays: dict[str, Any] = {}
            for name in _DTYPES:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                count = math.prod(shape)
                empty = np.empty(shape, dtype)
                start = file.tell()
                arrays[name] = np.frombuffer(mapped, dtype, count, start).reshape(shape) if count else empty
                file.seek(arrays[name].nbytes, io.SEEK_CUR)
            if file.read(1):
                raise ValueError("this is no matrix part: something follows its arrays")
        return cls(**arrays, mapped=mapped)

    def cut(self, rows: int) -> list[Self]:
        """The same rows as parts of at most so many, which give their memory back one by one."""
        return [
            replace(self, **{name: getattr(self, name)[start : start + rows] for name in _DTYPES})
            for start in range(0, max(len(self.x), 1), rows)
        ]

    def release(self) -> None:
        """Gives the memory of a mapped part back until it is read again."""
        if self.mapped is None or not hasattr(mmap, "MADV_DONTNEED"):
            return
        base = _address(np.frombuffer(self.mapped, np.uint8))
        for name in _DTYPES:
            array = getattr(self, name)
            start = _address(array) - base
            # Whole pages: what is given back too much at the ends is read again when somebody needs it.
            first = start - start % mmap.PAGESIZE
            if array.nbytes:
                self.mapped.madvise(mmap.MADV_DONTNEED, first, start + array.nbytes - first)


class MatrixWriter:
    """Writes a part of `rows` rows and `columns` features into a stream, some rows at a time, as `open` reads it.

    Equal rows give equal bytes, however they are cut.
    """

    def __init__(self, stream: BinaryIO, *, rows: int, columns: int) -> None:
        self._stream = stream
        stream.write(_MAGIC)
        self._places: dict[str, int] = {}
        for name, dtype in _DTYPES.items():
            shape = (rows, columns) if name == "x" else (rows,)
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            self._places[name] = stream.tell()
            stream.seek(math.prod(shape) * np.dtype(dtype).itemsize, io.SEEK_CUR)
        stream.truncate()

    def add(self, part: MatrixPart) -> None:
        """Appends the rows of `part`."""
        for name, place in self._places.items():
            content = np.ascontiguousarray(getattr(part, name)).data
            self._stream.seek(place)
            self._stream.write(content)
            self._places[name] = place + content.nbytes


def pack(file: Path, packed: Path) -> None:
    """Writes the file, some of it at a time, as an LZ4 frame: a quarter of what flights take."""
    with file.open("rb") as source, pa.OSFile(str(packed), "wb") as sink, pa.CompressedOutputStream(sink, "lz4") as out:
        shutil.copyfileobj(source, out, COPIED_BYTES)


def unpack(packed: Path, file: Path) -> None:
    """Writes what `pack` was given. Raises OSError when `packed` is something else or cut off."""
    with pa.OSFile(str(packed)) as source, pa.CompressedInputStream(source, "lz4") as frame, file.open("wb") as out:
        shutil.copyfileobj(frame, out, COPIED_BYTES)


def _address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


def matrix_part(
    x: np.ndarray[Any, np.dtype[np.float32]], frame: pl.DataFrame, *, key: str, before: int = 0
) -> MatrixPart:
    """A clean frame's rows with their features `x`.

    `key` names the partition (for example its path), and `before` is how many of its rows come before the frame's.
    """
    ones = np.ones(frame.height, np.float32)
    return MatrixPart(
        x=x,
        y=frame[LABEL].to_numpy().astype(np.float64),
        time=frame[TIME].to_numpy(),
        fold=row_folds(frame, key=key, before=before),
        weight=frame[WEIGHT].to_numpy().astype(np.float32) if WEIGHT in frame.columns else ones,
    )


def row_folds(frame: pl.DataFrame, *, key: str, before: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """float64 [N] in [0, 1): of each row's group, if the frame has groups; else of the row in the partition `key`,
    where the frame begins behind `before` rows."""
    return frame[GROUP].to_numpy() if GROUP in frame.columns else folds(key, frame.height, before=before)
