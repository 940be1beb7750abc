"""One shard of a data set that is prepared: a pure function of its source and options.

The files are those of TensorFlow Datasets, written without TensorFlow.
"""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np

from imgclf.data.decode import BadImage, decode
from imgclf.data.order import Order
from imgclf.data.plan import scaled
from imgclf.data.source import Source, checked_labels
from imgclf.errors import UserError

INTERPOLATION = "bicubic"
_TICK = 8  # images between two signs of progress


@final
@dataclass(frozen=True)
class Split:
    """A split that is to be written."""

    name: str
    """What it is called, such as `train`."""
    source: Source
    """Its examples."""
    shards: int
    """How many files they come to."""

    @cached_property
    def names(self) -> Sequence[str]:
        return self.source.ids()

    @cached_property
    def labels(self) -> np.ndarray:
        return checked_labels(self.source)


@final
@dataclass(frozen=True)
class Job:
    """All that the bytes of any shard depend on, and where they go: what a worker is sent."""

    out: str
    """The folder."""
    name: str
    """Name of the data set, which begins that of every shard."""
    splits: tuple[Split, ...]
    """Their shards are numbered through, in this order."""
    size: int
    """Pixels of the shorter side, at most; 0: as it is."""
    quality: int
    """Of images that are made JPEGs."""
    exif: bool
    """Whether images that are made JPEGs are turned upright, as the camera noted it."""
    seed: int
    """Of the order in which examples are written."""
    digest: str
    """Of all these, to know what a finished shard was made by."""

    @property
    def total(self) -> int:
        """How many shards there are."""
        return sum(split.shards for split in self.splits)

    def shard(self, number: int) -> "Shard":
        """The shard of that number, 0 or more."""
        for split in self.splits:
            if number < split.shards:
                return Shard(self, split, number)
            number -= split.shards
        raise IndexError(number)


@final
@dataclass(frozen=True)
class Shard:
    """One file: an even slice of a split's examples, in an order of the job's seed."""

    job: Job
    split: Split
    place: int
    """Which of the split's files this is."""

    @property
    def file(self) -> Path:
        ending = f"{self.place:05d}-of-{self.split.shards:05d}"
        return Path(self.job.out) / f"{self.job.name}-{self.split.name}.array_record-{ending}"

    @property
    def note(self) -> Path:
        """A small file that says what is in the shard; there once the shard is finished."""
        return Path(self.job.out) / "parts" / f"{self.split.name}-{self.place:05d}.json"

    @property
    def examples(self) -> np.ndarray:
        """Which examples of the source it holds, int64."""
        n = len(self.split.source)
        first, last = (n * place // self.split.shards for place in (self.place, self.place + 1))
        return Order(n, self.job.seed).ids(np.arange(first, last))

    @cached_property
    def finished(self) -> dict[str, Any] | None:
        """What its note says, if the shard was finished by this job and is as long as then."""
        try:
            note = json.loads(self.note.read_text())
            same = note["made_by"] == self.job.digest
            return note if same and self.file.stat().st_size == note["bytes"] else None
        except (OSError, ValueError, KeyError):
            return None

    def write(self, drafts: Path, tick: Callable[[int], None] = lambda images: None) -> None:
        """Writes the file under another name, in `drafts`, renames it, and leaves its note.

        `tick` is told of images that are done. An image that cannot be read is left out and noted.
        """
        draft = drafts / self.note.stem
        count, left_out = self._write(draft, tick)
        note = {
            "file": self.file.name,
            "examples": count,
            "bytes": draft.stat().st_size,
            "sha256": sha256(draft),
            "left_out": left_out,
            "made_by": self.job.digest,
        }
        draft.replace(self.file)
        self.note.parent.mkdir(exist_ok=True)
        write_text(self.note, json.dumps(note, indent=1), drafts)

    def _write(self, draft: Path, tick: Callable[[int], None]) -> tuple[int, list[dict[str, str]]]:
        from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

        source, names, labels = self.split.source, self.split.names, self.split.labels
        left_out = []
        # What is compressed already is not compressed again, and each record is read by itself.
        writer = ArrayRecordWriter(str(draft), "group_size:1,uncompressed")
        for done, i in enumerate(self.examples.tolist(), 1):
            try:
                image = encoded(source.read(i), self.job.size, self.job.quality, self.job.exif)
            except (BadImage, OSError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                left_out.append({"id": names[i], "reason": reason})
            else:
                with _plain_errors():
                    writer.write(_record(image, labels[i], names[i]))
            if done % _TICK == 0:
                tick(_TICK)
        tick(len(self.examples) % _TICK)
        count = len(self.examples) - len(left_out)
        with _plain_errors():
            writer.close()
            if ArrayRecordReader(str(draft)).num_records() != count:
                raise OSError(f"{draft} was not written wholly")
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        return count, left_out


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """ArrayRecord's errors, such as that of a full disk, as what they are."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise OSError(str(error).partition(";")[0]) from error


def encoded(record: bytes | np.ndarray, size: int, quality: int, exif: bool = True) -> bytes:
    """The bytes to write for an image: its own where nothing has to be changed.

    A greater image is scaled, bicubic and anti-aliased, so that its shorter side has `size` pixels
    (0: none is), turned upright (with `exif`), and made a JPEG of `quality`. An array that is not
    scaled is made a PNG. Raises `BadImage` for what cannot be decoded.
    """
    image = decode(record, exif=exif) if isinstance(record, bytes) else record
    height, width = image.shape[:2]
    shorter = min(height, width)
    if not size or shorter <= size:
        return record if isinstance(record, bytes) else _file(image, "PNG")
    wide, high = (max(size, round(side * size / shorter)) for side in (width, height))
    return _file(scaled(image, wide, high, INTERPOLATION), "JPEG", quality=quality)


def _file(image: np.ndarray, kind: str, **options: int) -> bytes:
    from PIL import Image

    if image.shape[2] not in (1, 3):
        raise UserError(f"An image to be written must have 1 or 3 channels; got {image.shape[2]}")
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, kind, **options)
    return file.getvalue()


def _record(image: bytes, label: np.ndarray, name: str) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(image)
    feature["id"].bytes_list.value.append(name.encode("utf-8", "surrogateescape"))
    if label.ndim:
        feature["label"].float_list.value.extend(label.tolist())
    else:
        feature["label"].int64_list.value.append(int(label))
    return example.SerializeToString(deterministic=True)


def sha256(file: Path) -> str:
    """The checksum of a file, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_text(file: Path, text: str, drafts: Path, *, anew: bool = True) -> None:
    """Writes a text file wholly or not at all; unless `anew`, one that is there stays."""
    draft = drafts / file.name
    with draft.open("w", encoding="utf-8", errors="surrogateescape") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    if anew:
        draft.replace(file)
    else:
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
