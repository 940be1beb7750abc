"""Copies stay within their bytes, the ones used lately stay longest, and none is half a file."""

import os
import threading
from pathlib import Path

import pytest

from imgclf.data import remote_cache
from imgclf.data.index_cache import cache_folder
from imgclf.data.remote_cache import copied


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote_cache, "LIMIT", 1040)
    monkeypatch.setattr(remote_cache, "_written", float("inf"))


def files() -> list[Path]:
    return [file for file in (cache_folder() / "remote").rglob("*") if file.is_file()]


def nothing() -> bytes:
    raise OSError("asked for")


def test_copies_stay_within_their_bytes_and_what_was_used_last_stays() -> None:
    for i in range(30):
        copied(f"key {i}", lambda: bytes(100))
        for age, file in enumerate(sorted(files(), key=lambda file: file.stat().st_mtime_ns)[::-1]):
            os.utime(file, ns=(0, 10**9 * (1000 - age)))  # a clock may be too coarse to tell
        assert copied("key 0", nothing) == bytes(100)
        assert sum(file.stat().st_size for file in files()) <= remote_cache.LIMIT
    assert copied("key 29", nothing) == bytes(100)
    for i in range(1, 20):
        with pytest.raises(OSError, match="asked for"):
            copied(f"key {i}", nothing)
    before = len(files())
    assert len(copied("great", lambda: bytes(2000))) == 2000 and len(files()) == before


def test_a_damaged_copy_is_fetched_anew() -> None:
    assert copied("key", lambda: b"whole") == b"whole"
    (file,) = files()
    for damage in (b"", b"who", file.read_bytes()[:-1], b"Whole" + file.read_bytes()[5:]):
        file.write_bytes(damage)
        assert copied("key", lambda: b"again") == b"again"
        assert copied("key", nothing) == b"again"


def test_threads_that_read_and_evict_get_what_they_asked_for() -> None:
    wrong = []

    def look(first: int) -> None:
        for i in range(first, first + 60):
            data = b"%d " % (i % 20) * 30
            if copied(f"key {i % 20}", lambda data=data: data) != data:
                wrong.append(i)

    threads = [threading.Thread(target=look, args=(7 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and not [file for file in files() if file.name.startswith(".")]


def test_a_cache_that_cannot_be_written_to_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert copied("key", lambda: b"data") == b"data" == copied("key", lambda: b"data")
