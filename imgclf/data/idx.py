"""MNIST and its kin: images and labels in IDX files."""

import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, final

import numpy as np

from imgclf.data.names import counted
from imgclf.data.source import Source, check_classes, check_labels, numbered
from imgclf.errors import UserError, unknown

FILE = re.compile(
    r"(?:(?P<name>.+)-)?(?P<split>train|t10k|test)-(?P<what>images|labels)"
    r"[-.]idx(?P<axes>[13])-ubyte(\.gz)?"
)
"""What the files are called."""

_URL = "https://storage.googleapis.com/cvdf-datasets/mnist"


@final
@dataclass(frozen=True)
class Idx(Source):
    """Grey images (h, w, 1) of MNIST, Fashion-MNIST, EMNIST or others in their format.

    `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with `t10k` or `test`, also
    compressed (`.gz`), from LeCun, Cortes and Burges, "The MNIST database of handwritten digits",
    1998. EMNIST's images lie transposed in its files, and are given as they lie.
    """

    split: Literal["train", "test"] = "train"
    """Which published part this is."""
    path: str = "mnist"
    """The folder that holds the files."""
    name: str = ""
    """What stands before `-train-images` in their names, such as `emnist-letters`."""

    def __len__(self) -> int:
        return len(self._images)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        greatest = [
            int(_contents(file, 1).max(initial=0)) for file in self._files("labels").values()
        ]
        classes = numbered(max(greatest) + 1)
        check_classes("Idx", self._folder, classes)
        return classes

    def labels(self) -> np.ndarray:
        labels = _contents(self._file("labels"), 1).astype(np.int32)
        if len(labels) != len(self):
            raise UserError(
                f"There must be a label for each image; {self._file('images')} has {len(self):,} "
                f"images and {self._file('labels')} {len(labels):,} labels"
            )
        check_labels("Idx", self._folder, labels, self.classes)
        return labels

    def ids(self) -> Sequence[str]:
        return counted(f"{self.split}/", len(self))

    def read(self, i: int) -> np.ndarray:
        return np.array(self._images[i])[..., None]

    @property
    def _folder(self) -> Path:
        return Path(self.path).expanduser()

    @cached_property
    def _images(self) -> np.ndarray:
        images = _contents(self._file("images"), 3)
        if not images.size:
            raise UserError(f"An IDX file must hold images; {self._file('images')} holds none")
        return images

    def _file(self, what: str) -> Path:
        if self.split not in ("train", "test"):
            raise unknown("split of `Idx`", self.split, ("train", "test"))
        files = self._files(what)
        if self.split not in files:
            first = f"{self.name}-" if self.name else ""
            part = "train" if self.split == "train" else "t10k"
            raise UserError(
                f"There is no {first}{part}-{what}-idx{3 if what == 'images' else 1}-ubyte[.gz] in "
                f"{self._folder}; get MNIST by: mkdir -p {self._folder} && (cd {self._folder} && "
                f"curl -O '{_URL}/{{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte.gz')"
            )
        return files[self.split]

    def _files(self, what: str) -> dict[str, Path]:
        found = {
            (match["name"] or "", match["split"].replace("t10k", "test")): file
            for file in sorted(self._folder.glob("*-ubyte*"), reverse=True)
            if (match := FILE.fullmatch(file.name)) and match["what"] == what
        }
        names = sorted({name for name, _ in found})
        if not self.name and len(names) > 1 and "" not in names:
            raise UserError(
                f"The `name` of `Idx` must say which set of {self._folder} is meant: "
                f"{', '.join(map(repr, names))}"
            )
        if self.name and names and self.name not in names:
            raise unknown(f"set in {self._folder}", self.name, names)
        wanted = self.name or (names[0] if len(names) == 1 else "")
        return {split: file for (name, split), file in found.items() if name == wanted}


def _contents(file: Path, axes: int) -> np.ndarray:
    """The array in an IDX file of bytes; a `UserError` if it is damaged or cut off."""
    try:
        if file.suffix == ".gz":
            with gzip.open(file) as opened:
                data = np.frombuffer(opened.read(), np.uint8)
        else:
            data = np.memmap(file, np.uint8, "r") if file.stat().st_size else np.zeros(0, np.uint8)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"The file {file} cannot be read (cut off?): {error}") from None
    head = 4 + 4 * axes
    if data[:4].tolist() != [0, 0, 8, axes] or len(data) < head:
        raise UserError(
            f"An IDX file of {axes} axes must begin with the bytes 0, 0, 8, {axes} and its shape; "
            f"{file} begins with {', '.join(map(str, data[:4])) or 'nothing'}"
        )
    shape = tuple(data[4:head].view(">u4").tolist())
    wanted = head + int(np.prod(shape, dtype=object))
    if len(data) != wanted:
        raise UserError(
            f"An IDX file of shape {shape} must have {wanted:,} bytes; {file} has {len(data):,} "
            f"(cut off?)"
        )
    return data[head:].reshape(shape)
