"""Copies of what lies elsewhere, on disk, in a bounded number of bytes."""

import contextlib
import math
import os
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from imgclf.data.index_cache import cache_folder, digest

LIMIT = 16 << 30
"""Bytes that all copies may take, and a 32nd of that more for each process that writes some."""

_SUM = 4  # bytes of the checksum that follows the data

_lock = threading.Lock()
_written = math.inf  # bytes by this process since it last looked at all copies; at first, not known


def copied(key: str, fetch: Callable[[], bytes]) -> bytes:
    """What `fetch` returns: from disk, if that was fetched before under the same `key`.

    The copies used least lately go when there are too many. Threads and processes may share them: a
    copy is whole or not there, and one that is being read is read to its end. Where the cache
    cannot be written to, each is fetched each time.
    """
    name = digest(key)
    file = cache_folder() / "remote" / name[:2] / name[2:]
    data = _read(file)
    if data is None:
        data = fetch()
        if len(data) + _SUM <= LIMIT:
            with contextlib.suppress(OSError):
                _write(file, data)
                _make_room(len(data) + _SUM)
    return data


def _read(file: Path) -> bytes | None:
    try:
        whole = file.read_bytes()
        os.utime(file)
    except OSError:
        return None
    data = whole[:-_SUM]
    return data if whole[-_SUM:] == _sum(data) else None  # a machine that stops may leave less


def _sum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(_SUM, "big")


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=".", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(data)
            opened.write(_sum(data))
        os.replace(draft, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


def _make_room(added: int) -> None:
    """Looks at all copies from time to time, and down to 7/8 of the limit if they are over it."""
    global _written
    with _lock:
        _written += added
        if _written <= LIMIT // 32:
            return
        _written = 0
    copies = sorted(_copies())
    total = sum(size for _, size, _ in copies)
    if total <= LIMIT:
        return
    for _, size, path in copies:
        if total <= LIMIT - LIMIT // 8:
            break
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            os.unlink(path)
        total -= size


def _copies() -> Iterator[tuple[int, int, str]]:
    """When each was used last, its bytes, and where it is; drafts of killed processes, too."""
    for folder in os.scandir(cache_folder() / "remote"):
        with os.scandir(folder.path) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    yield status.st_mtime_ns, status.st_size, entry.path
