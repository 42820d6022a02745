"""Train the challenger on the matrices of the run's dataset."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activities.contracts import Done, RunRef
from activities.dependencies import Dependencies
from activities.workspace import Workspace, in_parallel
from models.manifest import HoldoutRule

if TYPE_CHECKING:
    from models.matrices import MatrixPart

PART_ROWS = 500_000
"""Rows whose memory is given back at once while LightGBM reads them: tens of megabytes."""


def train(run: RunRef, to: Dependencies) -> Done:
    """Writes `booster.txt` and `training.json`. Data that cannot teach a model ends the run, with the reason."""
    from models.features import feature_names
    from models.training import TrainingError
    from models.training import train as train_model

    workspace = to.workspace(run.pipeline, run.run)
    dataset, spec = workspace.read("dataset.json"), workspace.spec()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-", ignore_cleanup_errors=True)))
        parts = _parts(workspace, dataset, folder)
        try:
            trained = train_model(
                parts,
                spec=spec,
                feature_names=feature_names(spec),
                threads=to.threads,
                holdout=HoldoutRule(**dataset["holdout"]),
            )
        except TrainingError as exc:
            return Done("failed" if exc.code == "refused" else "nothing_to_do", str(exc))
        finally:
            # A mapped file cannot be removed everywhere while it is open.
            parts.clear()
    workspace.write_bytes("booster.txt", trained.booster_text.encode())
    workspace.write("training.json", trained.summary())
    return Done(sentence=f"{trained.best_iteration} trees on {trained.training_rows:,} rows")


def _parts(workspace: Workspace, dataset: dict[str, Any], folder: Path) -> list[MatrixPart]:
    """The dataset's matrices, by path, in files that are mapped into memory: they may be larger than it."""
    from models.matrices import MatrixPart, unpack

    def parts(entry: dict[str, str]) -> list[MatrixPart]:
        file, packed = folder / f"{entry['key']}.bin", folder / f"{entry['key']}.lz4"
        workspace.blobs.get_file(workspace.matrix_path(dataset["graph"], entry["key"]), packed)
        unpack(packed, file)
        packed.unlink()
        return MatrixPart.open(file).cut(PART_ROWS)

    return list(chain.from_iterable(in_parallel(parts, dataset["partitions"])))
