"""The disk cache: bounded in bytes, shared by processes, and never served when damaged."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.cache import CacheLimits, ModelCache
from serving.disk import ABANDONED_AFTER_SECONDS, DiskCache
from serving.errors import NoModelYet
from tests.fakes.blobs import MemoryBlobs
from tests.serving.graphs import PIPELINE, publish

ROOT = Path(__file__).parents[2]


def _model(number: int, size: int = 100) -> tuple[str, bytes]:
    model = f"{number:04d}".encode() * (size // 4)
    return hashlib.sha256(model).hexdigest(), model


def _manifest(sha256: str) -> bytes:
    return json.dumps({"model_sha256": sha256}).encode()


def _age(directory: Path, sha256: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(directory / "models" / f"{sha256}.onnx", (then, then))


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in (directory / "models").iterdir())


def test_what_was_stored_is_read(tmp_path: Path) -> None:
    sha256, model = _model(1)
    DiskCache(tmp_path).store(sha256, model)
    assert DiskCache(tmp_path).read(sha256) == model


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=300)
    models = [_model(number) for number in range(4)]
    for age, (sha256, model) in zip((30, 20, 10), models, strict=False):
        cache.store(sha256, model)
        _age(tmp_path, sha256, age)
    cache.read(models[0][0])
    cache.store(*models[3])
    assert [cache.read(sha256) is not None for sha256, _ in models] == [True, False, True, True]


def test_champions_go_last(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=300)
    champion, *others = [_model(number) for number in range(4)]
    cache.store(*champion)
    cache.remember("flights", _manifest(champion[0]))
    _age(tmp_path, champion[0], 1000)
    for sha256, model in others:
        cache.store(sha256, model)
    assert cache.recall("flights") == (_manifest(champion[0]), champion[1])


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 30).map(lambda n: 4 * n), min_size=1, max_size=12))
def test_it_never_holds_more_than_its_limit(sizes: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Champions of their own included."""
    directory = tmp_path_factory.mktemp("cache")
    cache = DiskCache(directory, max_bytes=100)
    for number, size in enumerate(sizes):
        sha256, model = _model(number, size)
        cache.store(sha256, model)
        cache.remember(f"p{number}", _manifest(sha256))
        stored = directory / "models"
        assert not stored.exists() or _bytes(directory) <= 100
        assert (cache.read(sha256) is not None) == (size <= 100), "what was just stored is there, if it fits"


def test_a_damaged_file_is_removed_and_can_be_stored_again(tmp_path: Path) -> None:
    cache, (sha256, model) = DiskCache(tmp_path), _model(1)
    cache.store(sha256, model)
    (tmp_path / "models" / f"{sha256}.onnx").write_bytes(b"damaged")
    assert cache.read(sha256) is None
    cache.store(sha256, model)
    assert cache.read(sha256) == model


def test_a_damaged_file_that_cannot_be_removed_is_none_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a read-only disk: what it should be is in storage."""
    cache, (sha256, model) = DiskCache(tmp_path), _model(1)
    cache.store(sha256, model)
    (tmp_path / "models" / f"{sha256}.onnx").write_bytes(b"damaged")

    def refuse(path: Path, *, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    assert cache.read(sha256) is None


def test_a_swap_in_another_process_does_not_mix_two_champions(tmp_path: Path) -> None:
    first, second = _model(1), _model(2)

    class Late(DiskCache):
        """Another process swaps while this one reads the model."""

        def read(self, sha256: str) -> bytes | None:
            found = super().read(sha256)
            DiskCache(tmp_path).remember("flights", _manifest(second[0]))
            return found

    DiskCache(tmp_path).store(*first)
    DiskCache(tmp_path).store(*second)
    DiskCache(tmp_path).remember("flights", _manifest(first[0]))
    assert Late(tmp_path).recall("flights") == (_manifest(first[0]), first[1])


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b'{"model_sha256": "../../../etc/passwd"}', b"\xff"])
def test_a_champion_that_cannot_be_read_is_none(tmp_path: Path, manifest: bytes) -> None:
    cache = DiskCache(tmp_path)
    cache.remember("flights", manifest)
    assert cache.recall("flights") is None


def test_a_champion_that_somebody_else_wrote_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory that all users of a machine may write, anybody could name a model."""
    cache, (sha256, model) = DiskCache(tmp_path), _model(1)
    cache.store(sha256, model)
    cache.remember("flights", _manifest(sha256))
    assert cache.recall("flights") == (_manifest(sha256), model)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert cache.recall("flights") is None
    assert cache.read(sha256) == model, "whoever wrote it: the hash is from storage"


def test_what_a_killed_process_left_goes_in_time(tmp_path: Path) -> None:
    long_ago = time.time() - 2 * ABANDONED_AFTER_SECONDS
    for folder in ("models", "champions"):
        (tmp_path / folder).mkdir()
        for name in (".tmp-dead", ".tmp-alive"):
            (tmp_path / folder / name).write_bytes(b"half")
        os.utime(tmp_path / folder / ".tmp-dead", (long_ago, long_ago))
    sha256, model = _model(1)
    DiskCache(tmp_path).store(sha256, model)
    left = {path.name for path in tmp_path.glob("*/*")}
    assert left == {".tmp-alive", f"{sha256}.onnx"}


def test_two_versions_of_the_same_bytes_keep_their_manifests(tmp_path: Path) -> None:
    """Another version that is loaded by its number must not change what a restart serves."""
    cache = DiskCache(tmp_path)
    sha256, model = _model(1)
    cache.store(sha256, model)
    cache.remember("flights", _manifest(sha256))
    cache.remember("trains", b'{"model_sha256": "%s", "version": 2}' % sha256.encode())
    assert cache.recall("flights") == (_manifest(sha256), model)


def test_a_model_that_does_not_fit_is_served_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blobs = MemoryBlobs()
    publish(blobs, 1)
    assert ModelCache(blobs, tmp_path, 1.0, limits=CacheLimits(disk_bytes=10)).active(PIPELINE).manifest.version == 1
    assert "a restart will download it" in caplog.text
    blobs.away = True
    with pytest.raises(NoModelYet):
        ModelCache(blobs, tmp_path, 1.0).active(PIPELINE)


PROCESS = """
import hashlib, sys
from pathlib import Path
from serving.disk import DiskCache

cache, seed = DiskCache(Path(sys.argv[1]), max_bytes=2000), int(sys.argv[2])
for turn in range(300):
    number = (turn * 7 + seed * 3) % 40
    model = f"{number:04d}".encode() * 50
    sha256 = hashlib.sha256(model).hexdigest()
    found = cache.read(sha256)
    assert found is None or found == model
    cache.store(sha256, model)
    cache.remember(f"p{seed}", b'{"model_sha256": "%s"}' % sha256.encode())
    kept = cache.recall(f"p{seed}")
    assert kept is None or kept[1] == model
"""


def test_processes_share_it(tmp_path: Path) -> None:
    """They read, store and prune at once; nobody reads half a model, and in the end all of it fits."""
    command = [sys.executable, "-W", "error", "-c", PROCESS, str(tmp_path)]
    processes = [
        subprocess.Popen([*command, str(seed)], cwd=ROOT, stderr=subprocess.PIPE, text=True) for seed in range(3)
    ]
    for process in processes:
        _, complaints = process.communicate(timeout=60)
        assert (process.returncode, complaints) == (0, "")
    sha256, model = _model(50, 200)
    DiskCache(tmp_path, max_bytes=2000).store(sha256, model)
    assert _bytes(tmp_path) <= 2000
    assert list(tmp_path.rglob(".tmp-*")) == []
