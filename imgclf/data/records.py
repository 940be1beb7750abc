"""ArrayRecord shards of `tf.train.Example` records, read without TensorFlow."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np

from imgclf.data import examples
from imgclf.data.index_cache import Arrays, stamp_of
from imgclf.data.names import Names
from imgclf.data.shards import fitting, names_beside
from imgclf.data.source import Source, carried, check_classes, check_labels, numbered
from imgclf.errors import UserError, unknown


@final
@dataclass(frozen=True)
class Records(Source):
    """Encoded images with labels, each a `tf.train.Example` in ArrayRecord shards.

    Class names come from a `labels.txt` or `classes.txt` beside the shards, one on a line; where
    there is none they are called 0, 1, ... The labels are looked up once, in all records, and kept
    for the next time; names of examples are those in the feature `id`, where they have one.
    """

    path: str
    """A folder with `*.array_record*` files, or a pattern such as `flowers/train-*`."""
    label: str = "label"
    """Name of the feature with the label: one whole number, or k numbers that are soft labels."""
    image: str = "image"
    """Name of the feature with the encoded image."""

    def __len__(self) -> int:
        return len(self._records)

    @carried
    def classes(self) -> tuple[str, ...]:
        soft = self._labels.ndim == 2
        count = self._labels.shape[1] if soft else int(self._labels.max()) + 1
        names = names_beside(self._shards[0]) or numbered(count)
        check_classes("Records", Path(self.path), names)
        return names

    def labels(self) -> np.ndarray:
        if self._labels.ndim == 1:
            check_labels("Records", Path(self.path), self._labels, self.classes)
        elif self._labels.shape[1] != len(self.classes):
            raise UserError(
                f"The soft labels of `Records` must have a number for each of the "
                f"{len(self.classes)} classes; got {self._labels.shape[1]} ({self.path})"
            )
        return self._labels

    def ids(self) -> Sequence[str]:
        return self._names

    def read(self, i: int) -> bytes:
        return examples.image(self._records, i, self.image)

    def place(self, i: int) -> tuple[str, int]:
        """The file of example i, and which of its records it is."""
        return self._records.place(i)

    @cached_property
    def _shards(self) -> list[str]:
        path = Path(self.path).expanduser()
        pattern = path / "*.array_record*" if path.is_dir() else path
        shards = fitting(pattern)
        if not shards:
            raise UserError(
                f"The `path` of `Records` must be a folder with *.array_record* files, or a "
                f"pattern that fits such files; nothing fits {pattern}"
            )
        folder = Path(shards[0]).parent
        if (folder / "prepare.json").is_file() and not (folder / "dataset_info.json").is_file():
            raise UserError(
                f"The data set in {folder} is not whole yet; the `imgclf data prepare` that began "
                f"it goes on with it"
            )
        return shards

    @carried
    def _records(self) -> examples.Shards:
        try:
            return examples.Shards([(file, 0, examples.count(file)) for file in self._shards])
        except (ValueError, RuntimeError, OSError) as error:
            raise UserError(
                f"`Records` must be given whole ArrayRecord files; {self.path}: "
                f"{str(error) or 'one is cut off'}"
            ) from None

    @carried
    def _labels(self) -> np.ndarray:
        return np.asarray(self._index["labels"])

    @cached_property
    def _names(self) -> Names:
        return examples.names(self._index)

    @cached_property
    def _index(self) -> Arrays:
        what = f"Records {' '.join(map(os.path.abspath, self._shards))} {self.label} {self.image}"
        return examples.index(what, stamp_of(*self._shards), self._find)

    def _find(self) -> tuple[Arrays, bool]:
        def look(record: bytes) -> tuple[list, bytes]:
            found = examples.features(record)
            label = examples.values(found, self.label)
            for feature in (self.label, self.image):
                if feature not in found:
                    raise unknown(f"feature in the records of {self.path}", feature, found)
            return list(label), examples.name(found)

        try:
            found, whole = self._records.all(look)
        except (ValueError, RuntimeError, OSError) as error:
            raise UserError(f"`Records` cannot read {self.path}: {examples.said(error)}") from None
        lengths = {len(each[0]) for each in found if each}
        if len(lengths) != 1:
            raise UserError(
                f"Every `{self.label}` of `Records` must have as many numbers as the others; got "
                f"{sorted(lengths)} ({self.path})"
            )
        # The label of a damaged record is never used: it is replaced or masked when it is read.
        labels = np.array([each[0] if each else [0] * max(lengths) for each in found])
        if not np.issubdtype(labels.dtype, np.number):
            first = next(each[0][0] for each in found if each)
            raise UserError(f"The `{self.label}` of `Records` must be a number; got {first!r}")
        labels = self._whole(labels[:, 0]) if lengths == {1} else labels.astype(np.float32)
        return examples.indexed(
            labels, [each[1] if each else b"" for each in found], "record"
        ), whole

    def _whole(self, labels: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # infinite ones and NaN are none, either
            whole = labels.astype(np.int32)
        wrong = labels[whole != labels]
        if len(wrong):
            raise UserError(
                f"The `{self.label}` of `Records` must be a whole number, or several numbers that "
                f"are soft labels; got {wrong[0]:g} ({self.path})"
            )
        return whole
