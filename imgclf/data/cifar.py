"""CIFAR-10 and CIFAR-100 in their published binary format."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, final

import numpy as np

from imgclf.data.source import Source, check_labels, numbered
from imgclf.errors import UserError, unknown

_PIXELS = 3 * 32 * 32


class _Variant(NamedTuple):
    classes: int
    label_bytes: int  # the last of them is the (fine) label
    train: tuple[str, ...]
    test: str
    names: str
    url: str


_TEN = _Variant(
    10,
    1,
    tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test_batch.bin",
    "batches.meta.txt",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
)
_HUNDRED = _Variant(
    100,
    2,
    ("train.bin",),
    "test.bin",
    "fine_label_names.txt",
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
)


@final
@dataclass(frozen=True)
class Cifar(Source):
    """CIFAR images, 32 x 32 x 3, of those published files that lie in a folder.

    CIFAR-10 (`data_batch_1.bin` .. `data_batch_5.bin`, `test_batch.bin`) or CIFAR-100 (`train.bin`,
    `test.bin`; the 100 fine labels), from Krizhevsky, "Learning Multiple Layers of Features from
    Tiny Images", 2009.
    """

    split: Literal["train", "test"] = "train"
    """Which published part this is."""
    path: str = "cifar-10-batches-bin"
    """The folder that holds the binary files."""

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        file = self._folder / self._variant.names
        if not file.is_file():
            return numbered(self._variant.classes)
        names = tuple(file.read_text(encoding="utf-8").split())
        if len(names) != self._variant.classes:
            raise UserError(f"{file} must name {self._variant.classes} classes; got {len(names)}")
        return names

    def labels(self) -> np.ndarray:
        labels = self._rows[:, self._variant.label_bytes - 1].astype(np.int32)
        check_labels("Cifar", self._folder, labels, self.classes)
        return labels

    def ids(self) -> Sequence[str]:
        return [f"{file.stem}/{row}" for file in self._files for row in range(self._count(file))]

    def read(self, i: int) -> np.ndarray:
        channels_first = self._rows[i, self._variant.label_bytes :].reshape(3, 32, 32)
        return np.ascontiguousarray(channels_first.transpose(1, 2, 0))

    @property
    def _folder(self) -> Path:
        return Path(self.path).expanduser()

    @cached_property
    def _variant(self) -> _Variant:
        return _HUNDRED if (self._folder / "train.bin").exists() else _TEN

    @cached_property
    def _files(self) -> list[Path]:
        if self.split not in ("train", "test"):
            raise unknown("split of `Cifar`", self.split, ("train", "test"))
        wanted = self._variant.train if self.split == "train" else (self._variant.test,)
        files = [self._folder / name for name in wanted if (self._folder / name).is_file()]
        if not files:
            variant = _HUNDRED if "100" in self._folder.name else self._variant
            raise UserError(
                f"There is no {wanted[0]} in {self._folder}; get it by: mkdir -p {self._folder} && "
                f"curl {variant.url} | tar xz --strip-components=1 -C {self._folder}"
            )
        return files

    def _count(self, file: Path) -> int:
        record = self._variant.label_bytes + _PIXELS
        count, rest = divmod(file.stat().st_size, record)
        if rest or not count:
            raise UserError(
                f"A CIFAR file must hold whole records of {record:,} bytes; {file} has "
                f"{file.stat().st_size:,} bytes (cut off?)"
            )
        return count

    @cached_property
    def _rows(self) -> np.ndarray:
        record = self._variant.label_bytes + _PIXELS
        rows = [np.fromfile(file, np.uint8, self._count(file) * record) for file in self._files]
        return np.concatenate(rows).reshape(-1, record)
