"""Uploads to files: the same rows give the same bytes, however they are cut on the way."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from models import parquet, profiles, reading, text_files
from models.cleaning import Cleaned, clean_file
from models.parquet import ParquetSink, row_groups
from models.partitions import clean_partition
from models.profiles import ProfileError, profile
from models.rejection import PartitionRejected
from tests.models.flights import GOOD, csv, files, rows, small

DATA = files(rows(300))


def cleaned(folder: Path, data: bytes, name: str, block: int, spec: str = "quality: {maximum_bad_rows: 1}") -> Cleaned:
    folder.mkdir(exist_ok=True)
    (folder / "upload").write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "BLOCK_BYTES", block)
        patch.setattr(reading, "BATCH_CELLS", block)
        patch.setattr(parquet, "GROUP_ROWS", 64)
        return clean_file(
            folder / "upload",
            clean=folder / "clean",
            rejected=folder / "rejected",
            name=name,
            spec=small(quality=spec),
        )


@pytest.mark.parametrize("name", ["a.csv", "d.parquet", "e.jsonl"])
def test_the_size_of_a_block_says_nothing(tmp_path: Path, name: str) -> None:
    whole, cut = (cleaned(tmp_path / str(block), DATA[name], name, block) for block in (2**23, 1_500))
    assert cut.profile.to_bytes() == whole.profile.to_bytes()
    assert (cut.tally.rows_read, cut.tally.clean, cut.tally.rejected) == (300, whole.tally.clean, whole.tally.rejected)
    assert cut.tally.sample is not None
    assert whole.tally.sample is not None
    assert_frame_equal(cut.tally.sample, whole.tally.sample)
    for file in ("clean", "rejected"):
        assert (tmp_path / "1500" / file).read_bytes() == (tmp_path / str(2**23) / file).read_bytes()


def test_what_is_written_is_what_was_cleaned(tmp_path: Path) -> None:
    found = cleaned(tmp_path, DATA["a.csv"], "a.csv", 1_500)
    expected = clean_partition(DATA["a.csv"], name="a.csv", spec=small())
    groups = list(row_groups(tmp_path / "clean"))
    assert_frame_equal(pl.concat(groups), expected.frame, check_exact=True)
    assert_frame_equal(pl.concat(row_groups(tmp_path / "rejected")), expected.rejected)
    assert found.profile == profile(expected.frame, small())


def test_no_clean_row_makes_a_file_with_columns_and_no_rejected_one_makes_none(tmp_path: Path) -> None:
    cleaned(tmp_path, csv(GOOD.replace("20", "NA")), "a.csv", 100)
    (empty,) = row_groups(tmp_path / "clean")
    assert (empty.height, empty.columns[:2]) == (0, ["carrier", "origin"])
    assert cleaned(tmp_path / "good", csv(GOOD), "a.csv", 100).tally.rejected == 0
    assert not (tmp_path / "good" / "rejected").exists()


def test_too_many_bad_rows_are_all_kept_for_the_report(tmp_path: Path) -> None:
    bad = csv(GOOD, *[GOOD.replace("20", "NA")] * 200)
    with pytest.raises(PartitionRejected) as caught:
        cleaned(tmp_path, bad, "a.csv", 500, "quality: {maximum_bad_rows: 0.5}")
    assert caught.value.tally is not None
    assert caught.value.tally.rejected == 200
    assert sum(group.height for group in row_groups(tmp_path / "rejected")) == 200


def test_an_identifier_is_noticed_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "MAX_DISTINCT_CATEGORIES", 10)
    lines = [GOOD.replace("UA", f"U{number}") for number in range(12)]
    with pytest.raises(ProfileError) as caught:
        cleaned(tmp_path, csv(*lines), "a.csv", 100)
    assert (caught.value.column, caught.value.limit) == ("carrier", 10)


def test_cells_of_any_type_can_be_set_aside(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "list": [[1.0, 2.0], None],
            "bytes": [b"\xff", b""],
            "kind": pl.Series(["a", "b"], dtype=pl.Categorical),
            "one": pl.Series(["a", "a"], dtype=pl.Enum(["a"])),
            "money": pl.Series(["1.50", None], dtype=pl.String).cast(pl.Decimal(10, 2)),
            "span": pl.Series([1, 2], dtype=pl.Duration("us")),
            "nothing": pl.Series([None, None], dtype=pl.Null),
            "text": ["Łódź", None],
        }
    )
    with ParquetSink(tmp_path / "file") as sink:
        sink.add(frame[:1])
        sink.add(frame[1:])
    (back,) = row_groups(tmp_path / "file")
    assert back.rows() == frame.rows()
