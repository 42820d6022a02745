"""More rows than a process should hold in memory: written as matrices, trained on in a process of its own.

`python -m bench.huge FOLDER TREES THREADS` prints the peak of its resident memory in MB, and seconds.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from local.flights import pipeline_spec
from models.features import feature_names
from models.folds import folds
from models.manifest import HoldoutRule
from models.matrices import MatrixPart
from models.training import train

FEATURES = 17
PARTS = 10


def write(folder: Path, rows: int) -> None:
    """Made up rows in PARTS files: numbers with a missing tenth, and a label that hangs on three of them."""
    each = rows // PARTS
    for number in range(PARTS):
        rng = np.random.default_rng(number)
        x = rng.normal(size=(each, FEATURES)).astype(np.float32)
        chance = 1 / (1 + np.exp(-(x[:, 0] + x[:, 1] * x[:, 2])))
        x[rng.random(each) < 0.1, 3] = np.nan
        part = MatrixPart(
            x=x,
            y=(rng.random(each) < chance).astype(np.float64),
            time=np.arange(each, dtype=np.float64) + number * each,
            fold=folds(str(number), each),
            weight=np.ones(each, np.float32),
        )
        (folder / f"{number:02d}.bin").write_bytes(part.to_bytes())


def main() -> None:
    folder, trees, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    begin = time.perf_counter()
    parts: list[Any] = [MatrixPart.open(path) for path in sorted(folder.glob("*.bin"))]
    spec = pipeline_spec()
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"rounds": trees})})
    rows = sum(len(part.time) for part in parts)
    holdout = HoldoutRule("time", rows * 0.98)
    train(parts, spec=spec, feature_names=feature_names(spec), threads=threads, holdout=holdout)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{peak:.0f} {time.perf_counter() - begin:.1f}")  # noqa: T201


if __name__ == "__main__":
    main()
