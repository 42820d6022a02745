"""One huge upload takes no more memory than its rows in many files: read, checked, cleaned, turned into features."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.huge import write_uploads

ROOT = Path(__file__).parents[2]
PROGRAM = """
import resource, sys
from pathlib import Path
from bench import huge
from models import parquet, text_files

def peak_after(folder):
    huge.run_uploads(Path(folder), trees=1, threads=1, whole=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

# The proportions of ten million rows, in a few seconds.
text_files.BLOCK_BYTES, parquet.GROUP_ROWS = 2**21, 2**14
print(*map(peak_after, sys.argv[1:]))
"""
MONTHS = 12
ALLOWED_MB = 40
"""An allocator's whims. A year that is held as a whole takes some hundred more."""


def test_one_huge_upload_takes_no_more_memory_than_many_small_ones(tmp_path: Path) -> None:
    for files in (MONTHS, 1):
        (tmp_path / str(files)).mkdir()
        write_uploads(tmp_path / str(files), months=MONTHS, files=files)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / str(MONTHS)), str(tmp_path / "1")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    many, both = map(int, done.stdout.split())
    assert both <= many + ALLOWED_MB
