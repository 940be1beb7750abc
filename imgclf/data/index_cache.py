"""What was found out about data once, kept on disk: an index is dear to make and cheap to read."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

Arrays = dict[str, np.ndarray]


def kept(
    what: str,
    stamp: str,
    make: Callable[[], Arrays],
    *,
    holds: Callable[[Arrays], bool] = lambda arrays: True,
    worth: Callable[[Arrays], bool] = lambda arrays: True,
) -> Arrays:
    """The arrays that `make` returns: from disk, mapped and not read, if they were made before.

    Args:
        what: what they describe, such as a kind of source, its path and its options.
        stamp: what they depend on that may change, such as sizes and times of files.
        make: finds them; called if there is none for `what` with this `stamp`, or no whole one.
        holds: whether what was found before is still so, where no stamp can tell beforehand.
        worth: whether what was made is to be kept at all.

    Where the cache (`imgclf/` in $XDG_CACHE_HOME, by default ~/.cache) cannot be written to,
    they are made each time.
    """
    found = looked_up(what, stamp)
    if found is None or not holds(found):
        found = make()
        if worth(found):
            with contextlib.suppress(OSError):
                _write(_folder(what), stamp, found)
    return found


def looked_up(what: str, stamp: str) -> Arrays | None:
    """What `kept` has for `what` with this `stamp`, if it has."""
    return _read(_folder(what), stamp)


def cache_folder() -> Path:
    """Where files lie that can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "imgclf"


def stamp_of(*paths: Path | str) -> str:
    """Size and time of last change of each file or folder; changes if one of them does."""
    words = []
    for path in paths:
        status = os.stat(path)
        words.append(f"{path}:{status.st_size}:{status.st_mtime_ns}")
    return digest("\n".join(words))


def _folder(what: str) -> Path:
    return cache_folder() / "indices" / digest(what)


def digest(text: str) -> str:
    """A short name for a text, another one for any other text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _read(folder: Path, stamp: str) -> Arrays | None:
    try:
        if (folder / "stamp").read_text() != stamp:
            return None
        return {file.stem: np.load(file, mmap_mode="r") for file in folder.glob("*.npy")}
    except (OSError, ValueError, EOFError):
        return None


def _write(folder: Path, stamp: str, arrays: Arrays) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        for name, array in arrays.items():
            np.save(draft / f"{name}.npy", array, allow_pickle=False)
        (draft / "stamp").write_text(stamp)
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
        draft.replace(folder)  # fails if another process was faster, whose index is as good
    finally:
        shutil.rmtree(draft, ignore_errors=True)
