"""Whether everything that the demo is to show really happened: what did not, one plain sentence each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from local.journal import ServedMonth
from local.months import BROKEN_MONTH, Brought, blob_name

SAME_AUC = 1e-9
"""One model on the same rows gives the same AUC over HTTP and here, but for rounding in the last bits."""


def shortfalls(
    months: Sequence[int], brought: Mapping[int, Brought], to_serve: Sequence[int], served: Mapping[int, ServedMonth]
) -> tuple[str, ...]:
    """What did not happen. `months` were to be uploaded, `to_serve` to be sent to the live model; both 1 to 12."""
    found: list[str] = []
    for month in months:
        found += _month(month, brought.get(month), first=month == months[0])
    for month in to_serve:
        found += _served(month, served.get(month))
    if len(to_serve) >= 2 and len(served) == len(to_serve):  # noqa: PLR2004 - the first served month has one model
        live, frozen = mean_aucs(list(served.values()))
        if not live > frozen:
            found.append(f"The champion's mean AUC {live:.4f} is not above the frozen model's {frozen:.4f}.")
    return tuple(found)


def mean_aucs(served: Sequence[ServedMonth]) -> tuple[float, float]:
    """Mean AUC of the live champions and of the frozen model over one or more served months, each counting once."""
    return fmean(month.auc for month in served), fmean(month.frozen_auc for month in served)


def _month(month: int, brought: Brought | None, *, first: bool) -> list[str]:
    name = blob_name(month)
    if brought is None:
        return [f"{name} was not brought in: the demo did not get so far."]
    record, partition = brought.record, brought.record.partition(name)
    found: list[str] = []
    if record.outcome == "failed":
        found.append(f"The run of {name} failed: {record.sentence}")
    if partition is None or partition.state != "included":
        found.append(f"{name} was not included: {partition.reason if partition else 'no run claimed it'}")
    elif partition.rows + partition.rejected != brought.uploaded:
        counted = f"{partition.rows:,} rows and {partition.rejected:,} quarantined ones"
        found.append(f"{name} has {brought.uploaded:,} rows, but its run counted {counted}.")
    if record.challenger is None:
        found.append(f"The run of {name} registered no version.")
    if first and record.outcome != "promoted":
        found.append(f"The first model did not go live: {record.sentence or record.outcome}")
    return found + _live(name, brought) + _broken(month, brought)


def _live(name: str, brought: Brought) -> list[str]:
    record = brought.record
    if brought.live is None:
        return [f"After {name} the app had no champion."]
    found = [] if brought.all_live else [f"After {name} not every worker process answered with version {brought.live}."]
    promoted = record.challenger.version if record.outcome == "promoted" and record.challenger else None
    if not brought.earlier and promoted is not None and promoted != brought.live:
        found.append(f"The run of {name} promoted version {promoted}, but the app names {brought.live} as champion.")
    return found


def _broken(month: int, brought: Brought) -> list[str]:
    if month != BROKEN_MONTH:
        return []
    if brought.broken is None:
        return ["No run claimed the broken file."]
    if brought.broken.state != "quarantined":
        return [f"{brought.broken.path} is {brought.broken.state}; it should be quarantined."]
    return [] if brought.broken.reason else [f"{brought.broken.path} is in quarantine without a reason."]


def _served(month: int, served: ServedMonth | None) -> list[str]:
    name = blob_name(month)
    if served is None:
        return [f"The flights of {name} were not scored over HTTP."]
    found: list[str] = []
    if served.scored != served.rows:
        found.append(f"Of {served.rows:,} flights of {name}, {served.scored:,} were scored over HTTP.")
    if served.versions != (served.version,):
        answered = ", ".join(map(str, served.versions)) or "none"
        found.append(f"The flights of {name} were to be answered by version {served.version}; answered: {answered}.")
    elif served.version == served.frozen_version and abs(served.gain) > SAME_AUC:
        found.append(f"Version {served.version} has AUC {served.auc:.6f} over HTTP and {served.frozen_auc:.6f} here.")
    return found
