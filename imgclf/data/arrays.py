"""Images and labels as arrays in one NumPy file."""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, final

import numpy as np

from imgclf.data.names import counted
from imgclf.data.source import Source, check_classes, check_labels, numbered
from imgclf.errors import UserError, unknown


class _Contents(NamedTuple):
    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]


@final
@dataclass(frozen=True)
class Arrays(Source):
    """An `.npz` file of uint8 images (n, h, w, c) or (n, h, w) with labels (n,) or soft (n, k)."""

    path: str
    """The file, as `numpy.savez` writes it; pickled objects in it are refused."""
    image: str = "images"
    """Name of the array of images."""
    label: str = "labels"
    """Name of the array of labels."""
    names: str = "classes"
    """Name of the array of class names, where there is one."""
    class_names: tuple[str, ...] = ()
    """The classes in their order, where the file does not name them; empty: 0, 1, ..."""

    def __len__(self) -> int:
        return len(self._contents.images)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._contents.classes

    def labels(self) -> np.ndarray:
        return self._contents.labels

    def ids(self) -> Sequence[str]:
        return counted(f"{Path(self.path).stem}/", len(self))

    def read(self, i: int) -> np.ndarray:
        return self._contents.images[i]

    @cached_property
    def _contents(self) -> _Contents:
        path = Path(self.path).expanduser()
        if not path.is_file():
            raise UserError(f"The `path` of `Arrays` must be an .npz file; there is no file {path}")
        if not zipfile.is_zipfile(path):
            raise UserError(
                f"The `path` of `Arrays` must be an .npz file; {path} is none or cut off"
            )
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in self._wanted(path, file.files)}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"The file {path} must hold plain, undamaged arrays: {error}") from None
        images = _four_axes(path, self.image, found[self.image])
        labels = _plain(path, self.label, found[self.label])
        if len(images) != len(labels):
            raise UserError(
                f"`{self.image}` and `{self.label}` must be of one length; {path} has "
                f"{len(images)} images and {len(labels)} labels"
            )
        classes = _classes(labels, found.get(self.names), self.class_names)
        check_classes("Arrays", path, classes)
        if labels.ndim == 1:
            check_labels("Arrays", path, labels, classes)
        elif labels.shape[1] != len(classes):
            raise UserError(
                f"Soft `{self.label}` must have a column for each of the {len(classes)} classes; "
                f"got {labels.shape[1]} ({path})"
            )
        return _Contents(images, labels, classes)

    def _wanted(self, path: Path, names: list[str]) -> list[str]:
        for name in (self.image, self.label):
            if name not in names:
                raise unknown(f"array in {path}", name, names)
        return [name for name in (self.image, self.label, self.names) if name in names]


def _four_axes(path: Path, name: str, images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise UserError(
            f"`{name}` must be uint8 (n, h, w, c) or (n, h, w); {path} has {images.dtype} "
            f"{images.shape}"
        )
    return images if images.ndim == 4 else images[..., None]


def _plain(path: Path, name: str, labels: np.ndarray) -> np.ndarray:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        return labels.astype(np.int32)
    if labels.ndim == 2 and np.issubdtype(labels.dtype, np.floating):
        return labels.astype(np.float32)
    raise UserError(
        f"`{name}` must be whole numbers (n,) or soft labels (n, k) as floats; {path} has "
        f"{labels.dtype} {labels.shape}"
    )


def _classes(
    labels: np.ndarray, names: np.ndarray | None, given: tuple[str, ...]
) -> tuple[str, ...]:
    if names is not None:
        texts = (
            np.char.decode(names, errors="surrogateescape") if names.dtype.kind == "S" else names
        )
        return tuple(map(str, texts))
    return given or numbered(labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1)
