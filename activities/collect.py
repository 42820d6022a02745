"""Caches that nothing can use any more are deleted: by age, and by whether the present data can still reach them.

Only below features/, where everything can be computed again. A mistake here costs time, never data.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from datetime import datetime, timedelta

from activities.dependencies import Dependencies
from activities.judged import read_judged
from activities.workspace import existing_keys, partition_key
from adapters.blobs import BlobNotFound

EVERY = timedelta(hours=24)
"""How often a pipeline's caches are looked through: a listing of all of them."""


def collect(pipeline: str, to: Dependencies) -> int:
    """Deletes old caches that are out of reach, at most once a day; how many blobs."""
    if not _is_time(pipeline, to):
        return 0
    limit = (to.clock() - timedelta(days=to.cache_days)).timestamp()
    reachable = _reachable(pipeline, to)
    prefix = f"features/{pipeline}/"

    def delete(below: str, *, but: Container[str] = ()) -> int:
        infos = (info for info in to.blobs.list(f"{prefix}{below}") if info.modified < limit)
        names = (info.path.removeprefix(prefix) for info in infos)
        return sum(to.blobs.delete(prefix + name) for name in names if name not in but and not reachable(name))

    # An outcome promises clean rows, also to a run that comes back to an older contract: it may not outlive them.
    deleted = delete("outcomes/")
    promised = {f"clean/{key}.parquet" for key in existing_keys(to.blobs, f"{prefix}outcomes/")}
    deleted += delete("", but=promised)
    done = json.dumps({"at": to.now(), "deleted": deleted}).encode()
    to.blobs.put(_mark(pipeline), done, content_type="application/json")
    return deleted


def _reachable(pipeline: str, to: Dependencies) -> Callable[[str], bool]:
    """Whether a name below the pipeline's prefix is of use: made from contents that the ledger has, or the last run's.

    The latest settled run's work files name the graph whose matrices the next run starts from.
    """
    fingerprint = to.specs.load(pipeline).data_fingerprint
    rows = [row for row in to.ledger.rows(pipeline) if row.state != "removed"]
    keys = {partition_key(row.path, row.etag, contract) for row in rows for contract in (fingerprint, row.contract)}
    runs = {row.run for row in rows if row.state == "claimed"} | {read_judged(to.blobs, pipeline).run}
    graphs = {graph for run in runs if (graph := _graph_of(pipeline, run, to))}

    def reachable(name: str) -> bool:
        kind, _, rest = name.partition("/")
        if kind in {"outcomes", "clean"}:
            return rest.partition(".")[0] in keys
        if kind == "graphs":
            return rest.partition(".")[0] in graphs
        if kind == "matrices":
            graph, _, key = rest.partition("/")
            return graph in graphs and key.partition(".")[0] in keys
        if kind == "steps":
            return rest.partition("/")[0] in runs
        return kind != "challengers"  # judged.json and the other marks stay

    return reachable


def _graph_of(pipeline: str, run: str, to: Dependencies) -> str:
    """The feature graph of a run, or '' when it has come to none."""
    try:
        dataset = to.workspace(pipeline, run).read("dataset.json")
    except BlobNotFound:
        return ""
    return str(dataset["graph"])


def _is_time(pipeline: str, to: Dependencies) -> bool:
    try:
        last = json.loads(to.blobs.get(_mark(pipeline)).data)["at"]
    except BlobNotFound:
        return True
    return to.clock() - datetime.fromisoformat(last) >= EVERY


def _mark(pipeline: str) -> str:
    return f"features/{pipeline}/collected.json"
