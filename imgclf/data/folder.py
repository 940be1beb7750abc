"""Class folders: one folder for each class, the images of the class in it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from imgclf.data.source import Source, carried, check_classes
from imgclf.errors import UserError, nearest

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")
"""How the name of an image ends, in upper or lower case."""

SPLITS = ("train", "val", "valid", "validation", "test")
"""Folders that hold class folders and are none themselves."""


class _Index(NamedTuple):
    classes: tuple[str, ...]
    files: list[str]
    labels: np.ndarray


@final
@dataclass(frozen=True)
class Folder(Source):
    """The images below `path/CLASS/`, at any depth; hidden files and other types are left out."""

    path: str
    """The folder that holds the class folders."""
    class_names: tuple[str, ...] = ()
    """The classes in their order, as the training data have them; empty: the folders by name."""
    to_get: str = ""
    """What to type where the data are missing, for public data."""

    def __len__(self) -> int:
        return len(self._index.files)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._index.classes

    def labels(self) -> np.ndarray:
        return self._index.labels

    def ids(self) -> Sequence[str]:
        return self._index.files

    def read(self, i: int) -> bytes:
        return (Path(self.path).expanduser() / self._index.files[i]).read_bytes()

    @carried
    def _index(self) -> _Index:
        root = Path(self.path).expanduser()
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            hint = f"; to get the data: {self.to_get}" if self.to_get else ""
            raise UserError(f"The `path` of `Folder` must be a folder; {root} {what}{hint}")
        found = _class_folders(root)
        if not found:
            raise UserError(
                f"The `path` of `Folder` must hold one folder for each class, with its images in "
                f"it; {root} holds no folders"
            )
        if set(found) <= set(SPLITS):
            meant = root / ("train" if "train" in found else found[0])
            raise UserError(
                f"The `path` of `Folder` must hold one folder for each class; {root} holds "
                f"{', '.join(found)}: did you mean {meant}?"
            )
        classes = self.class_names or tuple(found)
        check_classes("Folder", root, classes)
        for name in found:
            if name not in classes:
                close = nearest(name, classes)
                hint = f" (is it {close!r}?)" if close else ""
                raise UserError(
                    f"The folders of {root} must be among the {len(classes)} classes of the "
                    f"training data; got {name!r}{hint}"
                )
        files: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            images = _images(root, name) if name in found else []
            files += images
            labels += [label] * len(images)
        return _Index(classes, files, np.array(labels, np.int32))


def _class_folders(root: Path) -> list[str]:
    try:
        with os.scandir(root) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise UserError(
            f"The `path` of `Folder` must be readable; {root}: {error.strerror}"
        ) from None


def _images(root: Path, class_name: str) -> list[str]:
    images = []
    top = str(root / class_name)
    for folder, inner, names in os.walk(top, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        below = class_name + folder[len(top) :].replace(os.sep, "/")
        images += [
            f"{below}/{name}"
            for name in names
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    if not images:
        raise UserError(
            f"Every class folder must hold an image ({', '.join(e[1:] for e in EXTENSIONS)}); "
            f"{top} holds none"
        )
    return sorted(images)
