"""More rows than a process should hold in memory, in a process of their own.

`python -m bench.huge matrices FOLDER TREES THREADS` trains on the matrices that `write_matrices` wrote.
`python -m bench.huge uploads FOLDER TREES THREADS` takes every CSV of a folder through a whole run of the pipeline of
flights: read, check, profile, features, train, export, evaluate.

Both print the peak of their resident memory in MB, and seconds.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from local.flights import month_csv, pipeline_spec
from models.features import feature_names
from models.folds import folds
from models.manifest import HoldoutRule
from models.matrices import MatrixPart
from models.training import train

ROOT = Path(__file__).resolve().parents[1]
FEATURES = 17
PARTS = 10
ROWS_OF_A_YEAR = 336_776
"""Flights of 2013; a few have no delay and are set aside."""


def write_matrices(folder: Path, rows: int) -> None:
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


def write_uploads(folder: Path, *, months: int, files: int) -> None:
    """`months` months of flights, the year again and again, in so many CSV files."""
    texts = [month_csv(month).partition(b"\n") for month in range(1, 13)]
    each = -(-months // files)
    numbers = islice(cycle(range(12)), months)
    for number in range(files):
        with (folder / f"{number:04d}.csv").open("wb") as file:
            file.write(texts[0][0] + b"\n")
            file.writelines(texts[month][2] for month in islice(numbers, each))


def train_on_matrices(folder: Path, trees: int, threads: int) -> None:
    parts: list[Any] = [MatrixPart.open(path) for path in sorted(folder.glob("*.bin"))]
    spec = pipeline_spec()
    spec = spec.model_copy(update={"training": spec.training.model_copy(update={"rounds": trees})})
    rows = sum(len(part.time) for part in parts)
    holdout = HoldoutRule("time", rows * 0.98)
    train(parts, spec=spec, feature_names=feature_names(spec), threads=threads, holdout=holdout)


def run_uploads(folder: Path, trees: int, threads: int, *, whole: bool = True) -> None:
    """A run over the folder's CSVs, from claim to evaluation; without `whole` only the two waves of the fan-out."""
    from activities.evaluate import evaluate
    from activities.export import export
    from activities.fit import fit
    from activities.train import train as train_
    from activities.transform import transform
    from activities.uploads import claim
    from activities.validate import validate
    from tests.activities.world import PIPELINE, World
    from tests.fakes.blobs import FolderBlobs

    text = (ROOT / "pipelines" / "flight-delays.yaml").read_text(encoding="utf-8")
    text = text.replace("name: flight-delays", f"name: {PIPELINE}").replace("rounds: 300", f"rounds: {trees}")
    # Beside the temporary files, so that they can be linked instead of copied.
    with tempfile.TemporaryDirectory() as blobs, tempfile.TemporaryDirectory() as pipelines:
        world = World(Path(pipelines), text, blobs=FolderBlobs(Path(blobs)))
        object.__setattr__(world.to, "threads", threads)
        for file in sorted(folder.glob("*.csv")):
            world.upload_file(file.name, file)
        run = world.start()
        world.fan_out(validate, run, claim(run, world.to).todo)
        world.fan_out(transform, run, fit(run, world.to).todo)
        for step in (train_, export, evaluate) if whole else ():
            ended = step(run, world.to)
            if ended.ended:
                raise AssertionError(ended.sentence)


def main() -> None:
    what, folder, trees, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    begin = time.perf_counter()
    (train_on_matrices if what == "matrices" else run_uploads)(folder, trees, threads)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{peak:.0f} {time.perf_counter() - begin:.1f}")  # noqa: T201


if __name__ == "__main__":
    main()
