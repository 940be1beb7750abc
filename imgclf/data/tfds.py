"""Data sets that TensorFlow Datasets prepared on disk, read without TensorFlow."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from imgclf.data import examples
from imgclf.data.index_cache import Arrays, stamp_of
from imgclf.data.names import Names
from imgclf.data.source import Source, carried, check_classes, check_labels, numbered
from imgclf.errors import UserError, unknown


@final
@dataclass(frozen=True)
class TFDS(Source):
    """One split of a data set prepared with `file_format="array_record"`.

    Finding the labels reads every record once (no image is decoded); they are kept for the next
    time. Names of examples are those in the feature `id`, where there is one. A record that was
    damaged since it was written is an `OSError` when it is read, and no sooner.
    """

    path: str
    """The folder with `dataset_info.json`, or NAME or NAME/CONFIG above it: the newest version."""
    split: str = "train"
    """A split, or a part of one as TFDS writes it, such as `train[:80%]`."""
    image: str = "image"
    """Name of the feature with the image."""
    label: str = "label"
    """Name of the feature with the label: a `ClassLabel`, or k numbers that are soft labels."""

    def __len__(self) -> int:
        return len(self._records)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        feature = self._feature(self.label, "ClassLabel", "Tensor")
        if self._soft:
            names = examples.lines(Path(self._builder.data_dir) / f"{self.label}.labels.txt")
            names = names or numbered(*feature.shape)
        else:
            names = tuple(feature.names)
        check_classes("TFDS", Path(self.path), names)
        return names

    def labels(self) -> np.ndarray:
        return self._labels

    def ids(self) -> Sequence[str]:
        return self._names

    def read(self, i: int) -> bytes:
        return examples.image(self._records, i, self.image)

    def place(self, i: int) -> tuple[str, int]:
        """The file of example i, and which of its records it is."""
        return self._records.place(i)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of all splits of the data set."""
        return tuple(self._builder.info.splits)

    def _feature(self, name: str, *kinds: str) -> Any:
        features = self._builder.info.features
        if name not in features:
            raise unknown(f"feature of {self.path}", name, features)
        found = type(features[name]).__name__
        if found not in kinds:
            raise UserError(
                f"The feature {name!r} of {self.path} must be of kind {kinds[0]}; got {found}"
            )
        return features[name]

    @property
    def _soft(self) -> bool:
        return type(self._builder.info.features[self.label]).__name__ == "Tensor"

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
                f"The TFDS data set at {folder} cannot be read: {examples.said(error)}"
            ) from None

    @carried
    def _records(self) -> examples.Shards:
        self._feature(self.image, "Image")
        self._feature(self.label, "ClassLabel", "Tensor")
        if self.split.split("[")[0] not in self.splits:
            raise unknown("split of `TFDS`", self.split, self.splits)
        try:
            self._builder.as_data_source(self.split)  # checks what files there are
            files = self._builder.info.splits[self.split].file_instructions
        except NotImplementedError:
            raise UserError(
                f"`TFDS` must find array_record files; {self.path} has "
                f"{self._builder.info.file_format.value}: prepare it again with "
                f"file_format='array_record'"
            ) from None
        except (ValueError, RuntimeError, OSError) as error:
            raise self._unreadable(error) from None
        return examples.Shards([(str(each.filename), each.skip, each.take) for each in files])

    @carried
    def _labels(self) -> np.ndarray:
        labels = np.asarray(self._index["labels"])
        if labels.ndim == 1:
            check_labels("TFDS", Path(self.path), labels, self.classes)
        return labels

    @cached_property
    def _names(self) -> Names:
        return examples.names(self._index)

    @cached_property
    def _index(self) -> Arrays:
        folder = Path(self._builder.data_dir)
        described = [folder / "dataset_info.json", folder / "features.json"]
        try:
            stamp = stamp_of(*self._records.paths, *described)
        except OSError as error:
            raise self._unreadable(error) from None
        what = f"TFDS {folder.resolve()} {self.split} {self.label}"
        return examples.index(what, stamp, self._find)

    def _find(self) -> tuple[Arrays, bool]:
        def look(record: bytes) -> tuple[Any, bytes]:
            found = examples.features(record)
            return list(examples.values(found, self.label)), examples.name(found)

        try:
            found, whole = self._records.all(look)
        except (ValueError, OSError) as error:
            raise self._unreadable(error) from None
        soft = self._soft
        # The label of a damaged record is never used: it is replaced or masked when it is read.
        none = [0.0] * len(self.classes) if soft else [0]
        rows = [each[0] if each else none for each in found]
        if {len(row) for row in rows} != {len(none)}:
            raise self._unreadable(f"a record has not {len(none)} numbers in {self.label!r}")
        labels = np.array(rows, np.float32) if soft else np.array(rows, np.int32)[:, 0]
        return examples.indexed(
            labels, [each[1] if each else b"" for each in found], f"{self.split}/"
        ), whole

    def _unreadable(self, error: object) -> UserError:
        return UserError(
            f"`TFDS` cannot read {self.split!r} of {self.path}: {examples.said(error)}"
        )


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
