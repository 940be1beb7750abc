"""Data sets that TensorFlow Datasets prepared on disk, read without TensorFlow."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from imgclf.data.names import counted
from imgclf.data.source import Source, carried, check_classes, check_labels
from imgclf.errors import UserError, unknown

_AT_ONCE = 256  # records read together when all labels are looked up


@final
@dataclass(frozen=True)
class TFDS(Source):
    """One split of a data set prepared with `file_format="array_record"`.

    Finding the labels reads every record once (no image is decoded).
    """

    path: str
    """The folder with `dataset_info.json`, or NAME or NAME/CONFIG above it: the newest version."""
    split: str = "train"
    """A split, or a part of one as TFDS writes it, such as `train[:80%]`."""
    image: str = "image"
    """Name of the feature with the image."""
    label: str = "label"
    """Name of the feature with the label, a `ClassLabel`."""

    def __len__(self) -> int:
        return len(self._records)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        names = self._feature(self.label, "ClassLabel").names
        check_classes("TFDS", Path(self.path), names)
        return tuple(names)

    def labels(self) -> np.ndarray:
        return self._labels

    def ids(self) -> Sequence[str]:
        return counted(f"{self.split}/", len(self))

    def read(self, i: int) -> bytes:
        try:
            image = self._records[i][self.image]
        except (ValueError, RuntimeError) as error:
            raise OSError(f"record {i} cannot be read: {_reason(error)}") from error
        if image is None:  # what a shard that is cut off may give
            raise OSError(f"record {i} is empty")
        return image

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of all splits of the data set."""
        return tuple(self._builder.info.splits)

    def _feature(self, name: str, kind: str) -> Any:
        features = self._builder.info.features
        if name not in features:
            raise unknown(f"feature of {self.path}", name, features)
        found = type(features[name]).__name__
        if found != kind:
            raise UserError(
                f"The feature {name!r} of {self.path} must be of kind {kind}; got {found}"
            )
        return features[name]

    @cached_property
    def _builder(self) -> Any:
        import tensorflow_datasets

        path = Path(self.path).expanduser()
        folder = newest_version(path)
        if folder is None:
            raise _no_version(path)
        try:
            return tensorflow_datasets.builder_from_directory(folder)
        except Exception as error:  # whatever TFDS and protobuf raise on a damaged description
            raise UserError(
                f"The TFDS data set at {folder} cannot be read: {_reason(error)}"
            ) from None

    @cached_property
    def _records(self) -> Any:
        from tensorflow_datasets import decode

        self._feature(self.image, "Image")
        self._feature(self.label, "ClassLabel")
        if self.split.split("[")[0] not in self.splits:
            raise unknown("split of `TFDS`", self.split, self.splits)
        try:
            return self._builder.as_data_source(
                self.split, decoders={self.image: decode.SkipDecoding()}
            )
        except NotImplementedError:
            raise UserError(
                f"`TFDS` must find array_record files; {self.path} has "
                f"{self._builder.info.file_format.value}: prepare it again with "
                f"file_format='array_record'"
            ) from None
        except (ValueError, RuntimeError, OSError) as error:
            raise self._unreadable(error) from None

    @carried
    def _labels(self) -> np.ndarray:
        found: list[int | None] = []
        for start in range(0, len(self), _AT_ONCE):
            several = range(start, min(start + _AT_ONCE, len(self)))
            try:
                found += [example[self.label] for example in self._records.__getitems__(several)]
            except (ValueError, RuntimeError, IndexError, OSError) as error:
                raise self._unreadable(error) from None
        if None in found:
            raise self._unreadable(f"record {found.index(None)} is empty (is its file cut off?)")
        labels = np.array(found, np.int32)
        check_labels("TFDS", Path(self.path), labels, self.classes)
        return labels

    def _unreadable(self, error: object) -> UserError:
        return UserError(f"`TFDS` cannot read {self.split!r} of {self.path}: {_reason(error)}")


def newest_version(path: Path) -> Path | None:
    """The folder with `dataset_info.json` at `path`, or the newest version's just below it."""
    if (path / "dataset_info.json").is_file():
        return path
    versions = {
        tuple(int(part) for part in folder.name.split(".")): folder
        for folder in (path.iterdir() if path.is_dir() else ())
        if re.fullmatch(r"\d+\.\d+\.\d+", folder.name) and (folder / "dataset_info.json").is_file()
    }
    return versions[max(versions)] if versions else None


def _no_version(path: Path) -> UserError:
    configs = sorted({found.parents[1].name for found in path.glob("*/*/dataset_info.json")})
    hint = f"; it has the configurations {', '.join(configs)}: name one" if configs else ""
    return UserError(
        f"The `path` of `TFDS` must be a folder with dataset_info.json, or the one above it; got "
        f"{path}{hint}"
    )


def _reason(error: object) -> str:
    return (str(error).splitlines() or ["no reason given"])[0]
