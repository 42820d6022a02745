"""Train the challenger on the matrices of the run's dataset."""

from __future__ import annotations

from activities.contracts import Done, RunRef
from activities.dependencies import Dependencies
from activities.workspace import in_parallel


def train(run: RunRef, to: Dependencies) -> Done:
    """Writes `booster.txt` and `training.json`. Data that cannot teach a model ends the run, with the reason."""
    from models.features import feature_names
    from models.matrices import MatrixPart
    from models.training import TrainingError
    from models.training import train as train_model

    workspace = to.workspace(run.pipeline, run.run)
    dataset, spec = workspace.read("dataset.json"), workspace.spec()

    def part(entry: dict[str, str]) -> MatrixPart:
        return MatrixPart.from_bytes(to.blobs.get(workspace.matrix_path(dataset["graph"], entry["key"])).data)

    parts = in_parallel(part, dataset["partitions"])
    try:
        trained = train_model(
            parts,
            spec=spec,
            feature_names=feature_names(spec),
            threads=to.threads,
            holdout_from=dataset["holdout_from"],
        )
    except TrainingError as exc:
        return Done("failed" if exc.code == "refused" else "nothing_to_do", str(exc))
    workspace.write_bytes("booster.txt", trained.booster_text.encode())
    workspace.write("training.json", trained.summary())
    return Done(sentence=f"{trained.best_iteration} trees on {trained.training_rows:,} rows")
