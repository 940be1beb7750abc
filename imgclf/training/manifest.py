"""The manifest of a checkpoint, written last and in one piece: files are verified against it."""

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any


def verify(folder: Path) -> str:
    """What is wrong with the files of a committed checkpoint, or "" if nothing is."""
    content = read(folder)
    if content is None:
        return "manifest.json is damaged"
    for name, (size, digest) in content["files"].items():
        file = folder / name
        try:
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != size or _digest(file) != digest:
                return f"{name} is damaged"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return ""


def write_whole(file: Path, content: Any) -> None:
    """Writes JSON so that the file is there whole or not at all."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with draft.open("w") as out:
            out.write(_text(content))
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(file)) from error
    sync(file.parent)


def sync(folder: Path) -> None:
    """Returns when a power cut does not take away the names in a folder any more."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _text(content: Any) -> str:
    return json.dumps(content, indent=1) + "\n"


def write(folder: Path, files: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Commits a checkpoint: `files` has the size and SHA-256 of each."""
    content = {"files": files, "metadata": metadata}
    write_whole(folder / "manifest.json", {"sha256": digest_of(content)} | content)


def read(folder: Path) -> dict[str, Any] | None:
    """The content of a manifest, or None where there is none that is whole."""
    try:
        text = (folder / "manifest.json").read_text()
        content = json.loads(text)
        if text != _text(content):  # a flipped bit may leave a number what it was: 1e-05, 1E-05
            return None
        digest = content.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return content if digest == digest_of(content) else None


def digest_of(content: dict[str, Any]) -> str:
    """The SHA-256 of what a manifest says."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def settled(file: Path) -> str:
    """The SHA-256 of a file that a power cut will not take away any more."""
    with file.open("rb") as content:
        os.fsync(content.fileno())
    return _digest(file)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
