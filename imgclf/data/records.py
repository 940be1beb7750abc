"""ArrayRecord shards of `tf.train.Example` records, read without TensorFlow."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from imgclf.data.names import counted
from imgclf.data.source import Source, carried, check_classes, check_labels, numbered
from imgclf.errors import UserError, unknown

_AT_ONCE = 256  # records read together when all labels are looked up


@final
@dataclass(frozen=True)
class Records(Source):
    """Encoded images with labels, each a `tf.train.Example` in ArrayRecord shards.

    Class names come from a `labels.txt` or `classes.txt` beside the shards, one on a line; where
    there is none they are called 0, 1, ...
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
        names = _names_beside(self._shards[0]) or numbered(count)
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
        return counted("record", len(self))

    def read(self, i: int) -> bytes:
        try:
            record = self._records[i]
        except (ValueError, RuntimeError) as error:
            raise OSError(f"record {i} cannot be read: {error}") from error
        values = self._values(record, self.image)
        if not values or not isinstance(values[0], bytes):
            raise OSError(f"record {i} holds no encoded image in {self.image!r}")
        return values[0]

    @cached_property
    def _shards(self) -> list[str]:
        path = Path(self.path).expanduser()
        pattern = str(path / "*.array_record*") if path.is_dir() else str(path)
        shards = sorted(glob.glob(pattern))
        if not shards:
            raise UserError(
                f"The `path` of `Records` must be a folder with *.array_record* files, or a "
                f"pattern that fits such files; nothing fits {pattern}"
            )
        return shards

    @cached_property
    def _records(self) -> Any:
        from array_record.python import array_record_data_source

        try:
            return array_record_data_source.ArrayRecordDataSource(self._shards)
        except (ValueError, RuntimeError, OSError) as error:
            raise UserError(
                f"`Records` must be given whole ArrayRecord files; {self.path}: "
                f"{str(error) or 'one is cut off'}"
            ) from None

    @carried
    def _labels(self) -> np.ndarray:
        found = []
        for start in range(0, len(self), _AT_ONCE):
            several = range(start, min(start + _AT_ONCE, len(self)))
            try:
                records = self._records.__getitems__(several)
            except (ValueError, RuntimeError) as error:
                raise UserError(f"`Records` cannot read {self.path}: {error}") from None
            found += [self._values(record, self.label) for record in records]
        lengths = {len(values) for values in found}
        if len(lengths) != 1:
            raise UserError(
                f"Every `{self.label}` of `Records` must have as many numbers as the others; got "
                f"{sorted(lengths)} ({self.path})"
            )
        labels = np.array(found)
        if not np.issubdtype(labels.dtype, np.number):
            raise UserError(
                f"The `{self.label}` of `Records` must be a number; got {found[0][0]!r}"
            )
        return labels[:, 0].astype(np.int32) if lengths == {1} else labels.astype(np.float32)

    def _values(self, record: bytes, name: str) -> Any:
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            features = tf_example_pb2.Example.FromString(record).features.feature
        except DecodeError:
            raise UserError(
                f"The records of {self.path} must be tf.train.Example messages"
            ) from None
        kind = features[name].WhichOneof("kind") if name in features else None
        if kind is None:
            raise unknown(f"feature in the records of {self.path}", name, features)
        return getattr(features[name], kind).value


def _names_beside(shard: str) -> tuple[str, ...]:
    for name in ("labels.txt", "classes.txt"):
        file = Path(shard).parent / name
        if file.is_file():
            lines = file.read_text(encoding="utf-8").splitlines()
            return tuple(line.strip() for line in lines if line.strip())
    return ()
