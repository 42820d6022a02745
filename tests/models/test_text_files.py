"""Text in blocks: cut where records end, and nowhere else."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from models import reading, text_files
from models.partitions import CleanPartition, clean_partition, clean_pieces
from models.rejection import PartitionRejected
from models.text_files import check_text
from tests.models.flights import GOOD, HEADER, csv, files, rows, small


def in_blocks(size: int, data: bytes, name: str) -> CleanPartition | str:
    """What becomes of a file that is read in blocks of `size` bytes (or cells), or why nothing does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "BLOCK_BYTES", size)
        patch.setattr(reading, "BATCH_CELLS", size)
        patch.setattr(text_files, "STEP_BYTES", max(1, size // 3))
        try:
            return clean_partition(data, name=name, spec=small())
        except PartitionRejected as exc:
            return exc.code


def alike(data: bytes, name: str, sizes: tuple[int, ...]) -> None:
    whole = in_blocks(2**23, data, name)
    for size in sizes:
        found = in_blocks(size, data, name)
        if isinstance(whole, str) or isinstance(found, str):
            assert found == whole
            continue
        assert_frame_equal(found.frame, whole.frame, check_exact=True)
        assert_frame_equal(found.rejected, whole.rejected, check_exact=True)
        assert (found.rows_read, found.reasons) == (whole.rows_read, whole.reasons)
        assert list(found.reasons) == list(whole.reasons)


@pytest.mark.parametrize("name", ["a.csv", "b.CSV", "c.csv.gz", "d.parquet", "e.jsonl"])
def test_how_a_file_is_cut_says_nothing(name: str) -> None:
    alike(files(rows(60))[name], name, (7, 500))


QUOTED = GOOD.replace("UA", '"U\nA, ""x"""')
TEXTS = [
    csv(GOOD, QUOTED, GOOD, QUOTED),
    csv(GOOD, GOOD) + b"\n\n \r\n",
    csv(GOOD, "", GOOD, "", "", GOOD),
    csv("", GOOD),
    csv("\r", GOOD, "0\r", GOOD),
    b"\xef\xbb\xbf" + csv(GOOD, GOOD.replace("UA", "é😀"), GOOD),
    csv(GOOD, QUOTED.replace("\n", "\r\n"), GOOD).replace(b"\n", b"\r\n"),
    csv(GOOD, GOOD, GOOD).replace(b"\n", b"\r"),
    csv(GOOD, "2013-04-01,20,UA", GOOD, GOOD + ",more"),
    csv(GOOD, GOOD, GOOD, GOOD[:-2]),
    csv(GOOD, GOOD.replace("UA", '"UA'), GOOD),
    csv(GOOD, GOOD, GOOD.replace("UA", "\xff").encode("latin-1").decode("latin-1")),
]


@pytest.mark.parametrize("data", TEXTS, ids=range(len(TEXTS)))
def test_lines_of_every_kind_are_cut_where_they_end(data: bytes) -> None:
    alike(data, "a.csv", (1, 3, 50))


LINES = st.one_of(
    st.just(GOOD),
    st.sampled_from(["", "2013-04-01,20,UA", QUOTED, '"', ",,,,,,", '"a\n\n"', " "]),
    st.text('ab",\n\r0 ', max_size=8),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=8), st.integers(1, 60), st.sampled_from(["\n", "\r\n"]))
def test_any_lines_are_the_same_rows_in_blocks_of_any_size(lines: list[str], size: int, end: str) -> None:
    data = end.join([HEADER, *lines, GOOD]).encode()
    whole = in_blocks(2**23, data, "a.csv")
    found = in_blocks(size, data, "a.csv")
    if isinstance(whole, str) or isinstance(found, str):
        # A quotation mark inside of a cell may be noticed in one block and be made up for in several.
        assert "not_readable" in {whole, found} or whole == found
        return
    assert_frame_equal(found.frame, whole.frame, check_exact=True)
    assert_frame_equal(found.rejected, whole.rejected, check_exact=True)


def test_a_record_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 100)
    monkeypatch.setattr(text_files, "MAX_RECORD_BYTES", 1_000)
    for data, name in (
        (csv(GOOD, '"' + GOOD, *[GOOD] * 100), "a.csv"),
        (b'{"when": "' + b"x" * 5_000 + b'"}\n{}', "a.jsonl"),
    ):
        with pytest.raises(PartitionRejected, match="a record of more than") as caught:
            clean_partition(data, name=name, spec=small())
        assert caught.value.code == "not_readable"


def test_a_mistake_is_named_with_its_line_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 40)
    monkeypatch.setattr(text_files, "STEP_BYTES", 16)
    objects = [json.dumps({"when": number}).encode() for number in range(9)]
    with pytest.raises(PartitionRejected, match="is not JSON on line 8"):
        clean_partition(b"\n".join([*objects[:7], b"{", *objects[7:]]), name="a.jsonl", spec=small())
    bad = csv(GOOD, GOOD, GOOD.replace("UA", "é")).decode().encode("latin-1")
    with pytest.raises(PartitionRejected, match=f"line 4, byte {bad.index(0xE9)}"):
        clean_partition(bad, name="a.csv", spec=small())
    cut = "é".encode()[:1]
    with pytest.raises(PartitionRejected, match="not UTF-8 text"):
        check_text(io.BytesIO(b"a,b\n" + cut), name="a.csv")


def test_a_large_file_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 1_000)
    for name, data in (("a.csv", csv(*[GOOD] * 200)), ("a.csv.gz", gzip.compress(csv(*[GOOD] * 200)))):
        (tmp_path / name).write_bytes(data)
        pieces = list(clean_pieces(tmp_path / name, name=name, spec=small()))
        assert len(pieces) > 5
        assert sum(piece.frame.height for piece in pieces) == 200


def test_a_last_line_that_is_cut_off_is_compared_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 60)
    lines: list[Any] = [GOOD.replace("true", "false"), *[GOOD] * 30]
    found = clean_partition(csv(*lines, GOOD.replace("true", "f")), name="a.csv", spec=small())
    assert dict(found.reasons) == {"line: cut off": 1}
    assert found.rejected["__row"].to_list() == [32]
    known = clean_partition(
        csv(lines[0].replace("false", "f"), *lines, GOOD.replace("true", "f")), name="a.csv", spec=small()
    )
    assert not known.reasons
