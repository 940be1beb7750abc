"""Images in folders: one folder for each class, or any without labels."""

import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from imgclf.data.formats import is_hidden
from imgclf.data.index import Index, indexed
from imgclf.data.index_cache import Arrays, digest
from imgclf.data.names import Names
from imgclf.data.remote import Place, Url, at, read_from
from imgclf.data.source import Source, carried, check_classes
from imgclf.data.split_names import chosen, is_split
from imgclf.errors import UserError, nearest

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")
"""How the name of an image ends, in upper or lower case."""

_SETTLED = 2_000_000_000  # ns; a folder changed more lately may change again with the same time
_NEVER = -1


@final
@dataclass(frozen=True)
class Folder(Source):
    """The images below `path/CLASS/`, at any depth; hidden files and other types are left out.

    The index of a large one is kept: opening it again looks at the time of each folder alone. At a
    URL all is listed again.
    """

    path: str
    """The folder that holds the class folders, or its URL."""
    class_names: tuple[str, ...] = ()
    """The classes in their order, as the training data have them; empty: the folders by name."""
    to_get: str = ""
    """What to type where the data are missing, for public data."""

    def __len__(self) -> int:
        return len(self._index.names)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._index.classes

    def labels(self) -> np.ndarray:
        return self._index.labels

    def ids(self) -> Sequence[str]:
        return self._index.names

    def read(self, i: int) -> bytes:
        return read_from(self.path, self._index.names[i])

    def place(self, i: int) -> tuple[str, int]:
        """The file of example i, and where it begins there."""
        return str(at(self.path) / self._index.names[i]), 0

    @carried
    def _index(self) -> Index:
        root = at(self.path).absolute()
        if not root.is_dir():
            what = "is a file" if root.exists() else "does not exist"
            if isinstance(root, Url):
                what = "lists no files"
            hint = f"; to get the data: {self.to_get}" if self.to_get else ""
            raise UserError(f"The `path` of `Folder` must be a folder; {root} {what}{hint}")
        what = "\n".join((f"Folder {root}", *self.class_names))
        if isinstance(root, Url):
            trees = root.trees()
            images = {name: [file for file, _ in trees[name] if _is_image(file)] for name in trees}
            stamp = digest(repr(trees))
            return indexed(
                what, stamp, lambda: (self._found(root, list(images), images.__getitem__), {})
            )
        return indexed(what, "", lambda: self._found_on_disk(root), _unchanged, _settled)

    def _found_on_disk(self, root: Path) -> tuple[Index, Arrays]:
        times = {str(root): os.stat(root).st_mtime_ns}  # before looking: what comes then is noticed
        found = _class_folders(root)
        index = self._found(root, found, lambda name: _images(root, name, times))
        return index, _folders_in(times)

    def _found(self, root: Place, found: list[str], images_of: Callable[[str], list[str]]) -> Index:
        """`found`: the class folders; `images_of` names the images in one, sorted."""
        if not found:
            raise UserError(
                f"The `path` of `Folder` must hold one folder for each class, with its images in "
                f"it; {root} holds no folders"
            )
        if all(map(is_split, found)):
            meant = root / (chosen(root, found)[0] or found[0])
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
        counts = np.zeros(len(classes), np.int64)
        among = set(found)

        def images() -> Iterable[list[str]]:
            for label, name in enumerate(classes):
                files = images_of(name) if name in among else []
                if name in among and not files:
                    raise UserError(
                        f"Every class folder must hold an image "
                        f"({', '.join(e[1:] for e in EXTENSIONS)}); {root / name} holds none"
                    )
                counts[label] = len(files)
                yield files

        names = Names.of(itertools.chain.from_iterable(images()))
        labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
        return Index(classes, names, labels)


@final
@dataclass(frozen=True)
class Images(Source):
    """All images below a folder, at any depth, without labels: hidden files are left out.

    They are for `data.unlabelled`, and so have no classes.
    """

    path: str
    """The folder, or its URL."""

    def __len__(self) -> int:
        return len(self._index.names)

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    def labels(self) -> np.ndarray:
        return self._index.labels

    def ids(self) -> Sequence[str]:
        return self._index.names

    def read(self, i: int) -> bytes:
        return read_from(self.path, self._index.names[i])

    def place(self, i: int) -> tuple[str, int]:
        """The file of example i, and where it begins there."""
        return str(at(self.path) / self._index.names[i]), 0

    @carried
    def _index(self) -> Index:
        root = at(self.path).absolute()
        if isinstance(root, Url):
            found = list(root.walk())
            names = sorted(name for name, _ in found if _is_image(name))
            stamp = digest(repr(sorted(found)))
            return indexed(f"Images {root}", stamp, lambda: (self._listed(root, names), {}))
        return indexed(f"Images {root}", "", lambda: self._found(root), _unchanged, _settled)

    def _found(self, root: Path) -> tuple[Index, Arrays]:
        times: dict[str, int] = {}
        images: list[str] = []
        _walk(str(root), "", (), images, times)
        return self._listed(root, sorted(images)), _folders_in(times)

    def _listed(self, root: Place, names: list[str]) -> Index:
        if not names:
            raise UserError(f"The `path` of `Images` must be a folder with images; got {root}")
        return Index((), Names.of(names), np.zeros((len(names), 0), np.float32))


def _folders_in(times: dict[str, int]) -> Arrays:
    folders = Names.of(times)
    return {
        "folders": folders.buffer,
        "folder_offsets": folders.offsets,
        "times": np.fromiter(times.values(), np.int64, len(times)),
    }


def _unchanged(kept: Arrays) -> bool:
    """Whether no folder has changed: a file that comes or goes changes the time of its folder."""
    if not kept.keys() >= {"folders", "folder_offsets", "times"}:
        return False
    folders = Names(np.asarray(kept["folders"]), kept["folder_offsets"])
    try:
        return all(
            os.stat(folder).st_mtime_ns == then
            for folder, then in zip(folders, kept["times"].tolist(), strict=True)
        )
    except OSError:
        return False


def _settled(made: Arrays) -> bool:
    return bool(made["times"].max() < time.time_ns() - _SETTLED)


def _class_folders(root: Path) -> list[str]:
    try:
        with os.scandir(root) as entries:
            return sorted(e.name for e in entries if e.is_dir() and not is_hidden(e.name))
    except OSError as error:
        raise UserError(
            f"The `path` of `Folder` must be readable; {root}: {error.strerror}"
        ) from None


def _images(root: Path, class_name: str, times: dict[str, int]) -> list[str]:
    images: list[str] = []
    _walk(str(root / class_name), f"{class_name}/", (), images, times)
    return sorted(images)


def _walk(folder: str, below: str, above: tuple, images: list[str], times: dict[str, int]) -> None:
    """Adds the images in `folder`, with `below` before their names, and each folder's time.

    `above`: which folders it lies in; a link back to one of them is not followed.
    """
    try:
        status = os.stat(folder)
        this = status.st_dev, status.st_ino
        if this in above:
            return
        times[folder] = status.st_mtime_ns
        with os.scandir(folder) as entries:
            inner = []
            for entry in entries:
                name = entry.name
                if is_hidden(name):
                    continue
                if _is_folder(entry):
                    inner.append(name)
                elif _is_image(name):
                    images.append(f"{below}{name}")
    except OSError:  # as if it were empty, but to be looked at again
        times[folder] = _NEVER
        return
    for name in inner:
        _walk(f"{folder}/{name}", f"{below}{name}/", (*above, this), images, times)


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
