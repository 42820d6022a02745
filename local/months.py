"""One month of the demo: upload it, follow its run, see its model go live everywhere, send the next month to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus

import numpy as np

from local.client import (
    AppClient,
    AppUnavailable,
    NoModelYet,
    Partition,
    PipelineStatus,
    RequestRefused,
    RunProgress,
    RunRecord,
    ServedBy,
)
from local.flights import PIPELINE, broken_csv, features_and_labels, month_csv
from local.journal import ServedMonth
from local.scoring import FrozenModel, auc, score_over_http
from local.uploads import TRAINING_CONTAINER, Storage
from models.errors import RatchetError

BROKEN_MONTH = 2
"""The month that comes with a broken file: not the first, so that the champion can be seen to stay."""
BROKEN = "-broken"
ASKS_PER_WORKER = 2
"""Concurrent requests per worker and round: the host gives each to its least busy worker, so that all are met."""


type Follow = Callable[[RunProgress | None], None]


class DemoStopped(RatchetError):
    """The demo cannot go on."""


class RunNotFinished(DemoStopped):
    """No finished run names the blobs in time. `paths` are within the training container."""

    def __init__(self, paths: Sequence[str], seconds: float, doing: str) -> None:
        blobs = " and ".join(paths)
        super().__init__(f"No finished run names {blobs} {seconds:g} s after the upload; the app {doing}")
        self.paths = tuple(paths)


class HostGone(DemoStopped):
    """The app stopped answering."""

    def __init__(self, seconds: float, problem: str) -> None:
        super().__init__(f"The host has given no good answer for {seconds:g} s: {problem}")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the demo waits, in seconds: for a run, for all workers, for a host that is away, between two looks."""

    run: float = 180
    live: float = 60
    host: float = 15
    look: float = 0.2


@dataclass(frozen=True, slots=True)
class Brought:
    """A month that is in the training data, or should be. `uploaded` is the number of rows in its file.

    `seconds_to_live` runs from the upload to the answer of the last worker process with the new version; None when the
    champion stayed, or when the month was uploaded by an earlier demo (`earlier`). `live` is the version that should
    serve, and `all_live` whether all `workers` answer with it. `broken` is what became of the month's broken file.
    """

    month: int
    uploaded: int
    record: RunRecord
    broken: Partition | None
    earlier: bool
    live: int | None
    all_live: bool
    workers: int
    seconds_to_live: float | None


@dataclass(slots=True)
class RunLog:
    """The records of all finished runs, each fetched once. `records` is oldest first."""

    client: AppClient
    records: dict[str, RunRecord] = field(default_factory=dict)

    def refresh(self) -> None:
        """Fetches the records of runs that finished since. Raises ClientError."""
        for run in self.client.runs():
            if run.id not in self.records:
                self.records[run.id] = self.client.record(run.id)

    def naming(self, path: str, *, but: Collection[str] = ()) -> RunRecord | None:
        """The newest record that claimed `path`, among the runs that are not in `but`."""
        newest_first = reversed(self.records.values())
        return next((record for record in newest_first if record.run not in but and record.partition(path)), None)

    def first_live(self) -> int | None:
        """The version that went live first."""
        promoted = (record for record in self.records.values() if record.outcome == "promoted")
        return next((record.challenger.version for record in promoted if record.challenger), None)


class LiveProbe:
    """Asks the predict endpoint until every worker process of the host has answered with a version."""

    def __init__(self, client: AppClient) -> None:
        self._client = client
        self._record = features_and_labels(1).features.row(0, named=True)
        self._answered: dict[int, int] = {}
        self.workers: frozenset[int] = frozenset()

    def ask(self) -> None:
        """One round of concurrent requests, enough for each worker to get some. Raises ClientError."""
        self.workers = self._client.workers()
        asks = max(1, len(self.workers)) * ASKS_PER_WORKER
        with ThreadPoolExecutor(asks) as pool:
            for answer in pool.map(self._ask_once, range(asks)):
                if answer:
                    self._answered[answer.worker] = answer.version

    def _ask_once(self, _: int) -> ServedBy | None:
        try:
            return self._client.predict(self._record)
        except NoModelYet:
            return None

    def all_live(self, version: int) -> bool:
        """Whether the latest answer of each worker came from `version`."""
        return bool(self.workers) and all(self._answered.get(worker) == version for worker in self.workers)


@dataclass(frozen=True, slots=True)
class Site:
    """The running system, as the demo reaches it."""

    client: AppClient
    storage: Storage
    runs: RunLog
    patience: Patience = Patience()


def blob_name(month: int, suffix: str = "") -> str:
    """A month's blob within the training container, as the ledger and the records name it."""
    return f"{PIPELINE}/2013-{month:02d}{suffix}.csv"


def bring(site: Site, month: int, *, follow: Follow) -> Brought:
    """Uploads the month unless it is there, and waits for its run and for the champion in every worker process.

    `follow` is told again and again how far the run is. Raises DemoStopped, ClientError, StorageUnavailable.
    """
    name, files = blob_name(month), _files(month)
    patiently(site, site.runs.refresh)
    record = site.runs.naming(name)
    probe = LiveProbe(site.client)
    live_at, started = None, None
    before = _champion(site)
    if record is None or not _included(record, name):
        waits = record is None and site.storage.has(f"{TRAINING_CONTAINER}/{name}")
        # A month that waits for its run was uploaded by an earlier demo: any record that names it is the one.
        earlier = frozenset() if waits else frozenset(site.runs.records)
        if not waits:
            started = _upload(site, files)
        record, live_at = _follow_run(site, tuple(files), earlier=earlier, before=before, probe=probe, follow=follow)
    live = _champion(site)
    if live is not None and live_at is None:
        live_at = _await_live(site, probe, live)
    promoted = record.outcome == "promoted"
    return Brought(
        month=month,
        uploaded=files[name].count(b"\n") - 1,
        record=record,
        broken=_broken(site, month),
        earlier=started is None,
        live=live,
        all_live=live_at is not None,
        workers=len(probe.workers),
        seconds_to_live=live_at - started if promoted and live_at is not None and started is not None else None,
    )


def serve(site: Site, month: int, live: int, frozen: FrozenModel) -> ServedMonth:
    """Sends the month's labelled flights to the served model, `live`, and runs the frozen one on the same rows.

    Raises ClientError.
    """
    rows = features_and_labels(month)
    scores = score_over_http(site.client, rows.features)
    answered = np.isfinite(scores.late)
    return ServedMonth(
        month=month,
        rows=len(rows.late),
        scored=int(answered.sum()),
        version=live,
        versions=tuple(sorted(scores.versions)),
        auc=auc(rows.late[answered], scores.late[answered]),
        frozen_version=frozen.version,
        frozen_auc=auc(rows.late[answered], frozen.late(rows.features)[answered]),
        requests=scores.requests,
        seconds=scores.seconds,
    )


def patiently[T](site: Site, ask: Callable[[], T]) -> T:
    """What `ask` gives. A host that is away or fails for a moment (a worker died) is asked again.

    Raises HostGone, ClientError.
    """
    deadline = time.monotonic() + site.patience.host
    while True:
        try:
            return ask()
        except (AppUnavailable, RequestRefused) as exc:
            if isinstance(exc, RequestRefused) and exc.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            if time.monotonic() > deadline:
                raise HostGone(site.patience.host, str(exc)) from exc
            time.sleep(site.patience.look)


def _files(month: int) -> dict[str, bytes]:
    """What is uploaded for a month, in order. The broken file goes first, so that both meet in one run."""
    month_file = {blob_name(month): month_csv(month)}
    return {blob_name(month, BROKEN): broken_csv(month)} | month_file if month == BROKEN_MONTH else month_file


def _upload(site: Site, files: Mapping[str, bytes]) -> float:
    """Uploads the files; gives the time at which the last one, the month's, began."""
    started = time.monotonic()
    for name, data in files.items():
        started = time.monotonic()
        site.storage.upload(f"{TRAINING_CONTAINER}/{name}", data)
    return started


def _included(record: RunRecord, name: str) -> bool:
    partition = record.partition(name)
    return partition is not None and partition.state == "included"


def _broken(site: Site, month: int) -> Partition | None:
    if month != BROKEN_MONTH:
        return None
    name = blob_name(month, BROKEN)
    record = site.runs.naming(name)
    return record.partition(name) if record else None


def _champion(site: Site) -> int | None:
    return _version(patiently(site, site.client.status))


def _version(status: PipelineStatus) -> int | None:
    return status.champion.version if status.champion else None


def _follow_run(
    site: Site,
    names: Sequence[str],
    *,
    earlier: Collection[str],
    before: int | None,
    probe: LiveProbe,
    follow: Follow,
) -> tuple[RunRecord, float | None]:
    """The record of the month (the last of `names`), once no run is under way and all names are in records.

    Also the time at which all workers had another champion than `before`, when that was before the record was there.
    """
    deadline = time.monotonic() + site.patience.run
    live_at: float | None = None
    while True:
        status = patiently(site, site.client.status)
        follow(status.run)
        champion = _version(status)
        if live_at is None and champion is not None and champion != before:
            patiently(site, probe.ask)
            live_at = time.monotonic() if probe.all_live(champion) else None
        if status.run is None:
            patiently(site, site.runs.refresh)
            records = [site.runs.naming(name, but=earlier) for name in names]
            if all(records) and (record := records[-1]):
                return record, live_at
        if time.monotonic() > deadline:
            raise RunNotFinished(names, site.patience.run, _doing(status))
        time.sleep(site.patience.look)


def _doing(status: PipelineStatus) -> str:
    if status.run:
        return f"is at step {status.run.step} of run {status.run.id or 'that is about to begin'}"
    if status.problem:
        return f"cannot run: {status.problem}"
    if status.last_run:
        last = status.last_run
        return f"runs nothing; its last run {last.id} ended as {last.outcome}: {last.sentence or 'no reason given'}"
    return "has not begun a run"


def _await_live(site: Site, probe: LiveProbe, version: int) -> float | None:
    """The time at which every worker had answered with the version; None when that took too long."""
    deadline = time.monotonic() + site.patience.live
    while time.monotonic() <= deadline:
        patiently(site, probe.ask)
        if probe.all_live(version):
            return time.monotonic()
        time.sleep(site.patience.look)
    return None
