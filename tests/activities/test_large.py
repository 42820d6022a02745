"""One huge upload takes no more memory than its rows in many files, through every step that reads rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.huge import write_uploads

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from pathlib import Path
from bench import huge
from models import parquet, text_files
# The same proportions as with ten million rows, in a few seconds.
text_files.BLOCK_BYTES, parquet.GROUP_ROWS = 2**21, 2**14
evaluation = huge.run_uploads(Path(sys.argv[1]), 3, 1)
import resource
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, evaluation["challenger"]["auc"])
"""
MONTHS = 12
ALLOWED = 1.1
"""An allocator's whims; a year that was held as a whole took 1.9 times as much."""


def peak(folder: Path, files: int) -> tuple[int, float]:
    """Megabytes of a process that makes a model of a year of flights in so many files, and the model's AUC."""
    folder.mkdir()
    write_uploads(folder, months=MONTHS, files=files)
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    megabytes, auc = done.stdout.split()
    return int(megabytes), float(auc)


def test_one_huge_upload_takes_no_more_memory_than_many_small_ones(tmp_path: Path) -> None:
    many, _ = peak(tmp_path / "many", MONTHS)
    one, _ = peak(tmp_path / "one", 1)
    assert one <= many * ALLOWED, (one, many)
