"""An upload to the two files and the profile that are made of it, however large it is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from models.parquet import ParquetSink
from models.partitions import Tally, clean_pieces
from models.profiles import Profile, check_categories, merge, profile
from models.spec import PipelineSpec


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What `clean_file` found; the rows are in the files that it wrote."""

    tally: Tally
    profile: Profile


def clean_file(
    upload: Path, *, clean: Path, rejected: Path, name: str, spec: PipelineSpec, latest: datetime | None = None
) -> Cleaned:
    """Writes the clean rows of `upload` to `clean` and the others, if there are any, to `rejected`, both as Parquet.

    Raises what `clean_pieces` does (the rejected rows are in their file then, as far as they were read), and
    ProfileError for a category that is no category.
    """
    tally = Tally()
    summary: Profile | None = None
    with ParquetSink(clean) as rows, ParquetSink(rejected) as others:
        for piece in clean_pieces(upload, name=name, spec=spec, latest=latest):
            tally = tally.plus(piece)
            found = profile(piece.frame, spec)
            summary = found if summary is None else merge([summary, found])
            check_categories(summary)
            rows.add(piece.frame)
            if piece.rejected.height:
                others.add(piece.rejected)
    if summary is None:
        raise ValueError(f"{name} gave no rows, and no reason why")
    return Cleaned(tally, summary)
