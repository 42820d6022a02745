"""What was wrong with an upload, in words for the person who uploaded it and as a document for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.cells import as_text
from models.errors import bounded
from models.reading import REASON, ROW

if TYPE_CHECKING:
    from models.partitions import Tally
    from models.rejection import PartitionRejected

MAX_SAMPLE_COLUMNS = 60
MAX_CELL_CHARACTERS = 100
ADVICE = {
    "unknown_type": "Save the data as one of these types and upload it under a name with that ending.",
    "empty": "The upload probably failed or was cut off: upload the file again.",
    "not_readable": "Open the file in the program that wrote it, save it again and upload it again.",
    "not_text": "Save the file as UTF-8 text (or as Parquet) and upload it again.",
    "missing_columns": "Add the columns or correct their names in the header, or change `columns` in the pipeline.",
    "too_large": "Split the file into smaller ones, each of at most some hundred megabytes.",
    "no_rows": "Upload the file again once it has rows.",
    "too_many_categories": "Leave the column out of the pipeline's features.",
    "label_failed": "Correct the cells that the label's expression cannot take, or change it in the pipeline.",
    "filter_failed": "Correct the cells that the filter cannot take, or change it in the pipeline.",
    "not_processed": "Upload the file again to have it tried again. If that fails too, this is a defect: report it.",
    "too_many_bad_rows": "Correct the rows and upload the file again, or raise `quality.maximum_bad_rows`.",
}
"""What to do next, by the code of a PartitionRejected."""


@dataclass(frozen=True, slots=True)
class Report:
    """`markdown` is for people; `document` holds the same in plain JSON types."""

    markdown: str
    document: dict[str, Any]


def quality_report(tally: Tally) -> dict[str, Any]:
    """Rows read, clean, left out by the filter and rejected; the reasons with their counts, and the first such rows.

    Plain JSON types.
    """
    return {
        "rows_read": tally.rows_read,
        "clean": tally.clean,
        "left_out": tally.left_out,
        "rejected": tally.rejected,
        "reasons": dict(tally.reasons),
        "samples": _samples(tally),
    }


def rows_report(tally: Tally, *, name: str) -> Report:
    """The report on a file of which some rows were rejected."""
    document = {"file": name, **quality_report(tally)}
    lead = f"{tally.rejected:,} of {tally.rows_read:,} rows cannot be used; the others are in use."
    after = "Correct these rows and upload them as a file of their own: the columns in front do no harm."
    lines = [f"# {_inline(name)}", "", lead, "", *_rows(tally), "", after]
    return Report("\n".join(lines) + "\n", document)


def file_report(rejection: PartitionRejected, *, name: str) -> Report:
    """The report on a file that cannot be used as a whole."""
    document: dict[str, Any] = {
        "file": name,
        "code": rejection.code,
        "problem": str(rejection),
        "columns": list(rejection.columns),
        "advice": ADVICE[rejection.code],
    }
    lines = [
        f"# {_inline(name)}",
        "",
        f"This file is not in use. {_inline(str(rejection))}.",
        "",
        ADVICE[rejection.code],
    ]
    if rejection.tally is not None:
        document |= quality_report(rejection.tally)
        lines += ["", *_rows(rejection.tally)]
    return Report("\n".join(lines) + "\n", document)


def _samples(tally: Tally) -> list[dict[str, Any]]:
    head = tally.sample
    if head is None:
        return []
    cells = {name: as_text(head[name]).to_list() for name in head.columns[2 : 2 + MAX_SAMPLE_COLUMNS]}
    return [
        {
            "row": row,
            "reason": reason,
            "cells": {
                name: None if texts[index] is None else bounded(texts[index], MAX_CELL_CHARACTERS)
                for name, texts in cells.items()
            },
        }
        for index, (row, reason) in enumerate(zip(head[ROW].to_list(), head[REASON].to_list(), strict=True))
    ]


def _rows(tally: Tally) -> list[str]:
    lines = ["| reason | rows |", "|---|---:|"]
    lines += [f"| {_inline(reason)} | {count:,} |" for reason, count in tally.reasons.items()]
    lines += ["", "| row | why |", "|---:|---|"]
    samples = _samples(tally)
    lines += [f"| {sample['row']:,} | {_inline(sample['reason'])} |" for sample in samples]
    if tally.rejected > len(samples):
        lines.append(f"| | and {tally.rejected - len(samples):,} more |")
    return lines


def _inline(text: str) -> str:
    """Foreign text that can neither end a table's cell nor bring HTML of its own."""
    return text.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")
