"""Batches of decoded images: which examples, in which order, on any number of processes.

The element of the Grain pipeline is a whole local batch, made from its number alone. So the state
of the iterator is one integer, and threads, workers and processes do not change what is in a batch.
"""

import copyreg
import dataclasses
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, final

import numpy as np

from imgclf.data.geometry import Central, Geometry
from imgclf.data.order import Stream
from imgclf.data.parts import place_of
from imgclf.data.reader import UNREADABLE, Reader, reader_of
from imgclf.data.source import Source, carried, checked_labels
from imgclf.data.workers import PATIENCE, Elements
from imgclf.errors import UserError
from imgclf.preprocess import Preprocess

Batch = dict[str, Any]
"""`image` uint8 (b, h, w, c), `label` int32 (b,) or float32 (b, k), `mask` bool (b,), `id` int64
(b,): the index into the source, and `problems`: a list of `Problem`."""

if sys.version_info < (3, 12):  # there the lock in it keeps a person's source from being pickled

    def _reduced(value: cached_property) -> tuple:
        return _restored, (type(value), value.func, value.attrname)

    def _restored(kind: type, func: Callable, name: str) -> cached_property:
        value = kind(func)
        value.__set_name__(None, name)
        return value

    copyreg.pickle(cached_property, _reduced)
    copyreg.pickle(carried, _reduced)


@final
@dataclass(frozen=True)
class Problem:
    """A record that could not be read."""

    id: int
    """Its index into the source."""
    name: str
    """The name that the source gives it."""
    file: str
    """In which file it is, and where it begins there: at which byte, or as which record of an
    ArrayRecord file; "" where the source does not say."""
    offset: int
    reason: str
    """What is wrong, in a line."""
    position: int
    """Where it was due: in the training stream, or in the evaluation source."""


@final
class Batches(Iterator[Batch]):
    """An iterator of batches; `close()` it, or leave its `with`, to end threads and processes."""

    def __init__(self, elements: Elements | None, source: Source, labels: np.ndarray):
        self._elements = elements
        self._source = source
        self._labels = labels

    def __next__(self) -> Batch:
        if self._elements is None:
            raise StopIteration
        try:
            element = next(self._elements)
        except BaseException:
            self.close()
            raise
        return self._completed(element)

    def close(self) -> None:
        elements, self._elements = self._elements, None
        if elements is not None:
            elements.close()

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _completed(self, element: Batch) -> Batch:
        # What small things a worker would have to keep for this, or send, stays here.
        ids = np.array(element["id"])
        label = self._labels[np.maximum(ids, 0)]
        label[ids < 0] = 0
        return {
            "image": element["image"],
            "label": label,
            "mask": np.array(element["mask"]),
            "id": ids,
            "problems": [
                Problem(i, str(self._source.ids()[i]), *place_of(self._source, i), reason, position)
                for i, reason, position in element["problems"]
            ],
        }


def train_batches(
    source: Source,
    order: Stream,
    *,
    batch_size: int,
    start: int,
    stop: int,
    geometry: Geometry,
    preprocess: Preprocess,
    seed: int,
    exif: bool = True,
    workers: int = 0,
    threads: int = 0,
    patience: float = PATIENCE,
    warn: Callable[[str], None] = warnings.warn,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """The batches of the training steps `start` to `stop` - 1, of `batch_size` over all processes.

    Step s takes the positions from s * batch_size of `order`; this process yields its share of
    them, `batch_size / process_count` rows. Images go through `geometry`, unless the size of
    `preprocess` is 0 or the source gives arrays that have it; what is random there is drawn from
    `seed` and position. A record that cannot be read gives way to the next one of the source that
    can; where it was due it is told of under `problems`.

    `workers`: processes that decode (0: this one does); `threads`: threads in each (0: as many as
    there are CPUs for). A worker that dies, or gives nothing for `patience` seconds, is named to
    `warn` and replaced, three times at most; the batches stay the same.
    """
    reader = reader_of(source, geometry, preprocess, seed, exif)
    rows = _rows(batch_size, process_index, process_count)
    make = partial(_train_batch, reader, order, batch_size, rows, set())
    return _batches(source, make, start, stop, workers, threads, patience, warn)


def evaluation_batches(
    source: Source,
    *,
    batch_size: int,
    preprocess: Preprocess,
    geometry: Geometry | None = None,
    channels: int = 0,
    exif: bool = True,
    workers: int = 0,
    threads: int = 0,
    patience: float = PATIENCE,
    warn: Callable[[str], None] = warnings.warn,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Every example once, in the order of the source; `mask` is False where there is none.

    The last batch is padded (id -1, zeros), so that all have one shape and every process has
    equally many. A record that cannot be read keeps its id, is masked, and told of under
    `problems`. `geometry` is `Central` unless given. With `channels`, colour is made grey and grey
    colour where the network wants the other.
    """
    reader = reader_of(source, geometry or Central(), preprocess, 0, exif, channels)
    rows = _rows(batch_size, process_index, process_count)
    make = partial(_evaluation_batch, reader, batch_size, rows)
    stop = -(-len(source) // batch_size)
    return _batches(source, make, 0, stop, workers, threads, patience, warn)


def decode_all(source: Source, preprocess: Preprocess, exif: bool = True) -> np.ndarray:
    """All images of a source at once, uint8 (n, h, w, c), in its order: for small sets.

    Images that do not have the size of `preprocess` go through `Central`.
    """
    reader = reader_of(source, Central(), preprocess, 0, exif)
    images = np.empty((len(source), *reader.shape), np.uint8)
    for i in range(len(source)):
        try:
            images[i] = reader.image(i, i)
        except UNREADABLE as error:
            raise UserError(f"Example {source.ids()[i]!r} cannot be read: {error}") from error
    return images


def _rows(batch_size: int, process_index: int, process_count: int) -> np.ndarray:
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"The `batch_size` must be a positive multiple of the {process_count} processes; "
            f"got {batch_size}"
        )
    local = batch_size // process_count
    return np.arange(process_index * local, (process_index + 1) * local)


def _train_batch(
    reader: Reader, order: Stream, batch_size: int, rows: np.ndarray, bad: set[int], step: int
) -> Batch:
    positions = step * batch_size + rows
    ids = order.ids(positions)
    images = np.empty((len(rows), *reader.shape), np.uint8)
    problems: list[tuple[int, str, int]] = []
    due = list(zip(ids.tolist(), positions.tolist(), strict=True))
    for row, ((i, position), image) in enumerate(zip(due, reader.images(due), strict=True)):
        try:
            images[row] = image()
        except UNREADABLE as error:
            problems.append((i, _said(error), position))
            ids[row], images[row] = _next_good(reader, i, position, bad)
    mask = np.ones(len(rows), bool)
    return {"image": images, "mask": mask, "id": ids, "problems": problems}


def _next_good(reader: Reader, i: int, position: int, bad: set[int]) -> tuple[int, np.ndarray]:
    """The next readable record after `i`; what is in `bad`, found so before, is not read again.

    Readable means the whole of it, whatever part is needed at this position: so it does not matter
    who passed it before. Only where a record is due itself it is told of.
    """
    thorough = dataclasses.replace(reader, whole=True)
    n = len(reader.source)
    for candidate in ((i + more) % n for more in range(1, n)):
        if candidate in bad:
            continue
        try:
            return candidate, thorough.patiently(candidate, position)
        except UNREADABLE:
            bad.add(candidate)
    raise UserError(f"No image of `{type(reader.source).__name__}` can be read any more")


def _evaluation_batch(reader: Reader, batch_size: int, rows: np.ndarray, number: int) -> Batch:
    ids = number * batch_size + rows
    ids[ids >= len(reader.source)] = -1
    mask = ids >= 0
    images = np.zeros((len(rows), *reader.shape), np.uint8)
    problems = []
    due = [(i, i) for i in ids[mask].tolist()]
    for row, ((i, _), image) in enumerate(zip(due, reader.images(due), strict=True)):
        try:
            images[row] = image()
        except UNREADABLE as error:
            mask[row] = False
            problems.append((i, _said(error), i))
    return {"image": images, "mask": mask, "id": ids, "problems": problems}


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _batches(
    source: Source,
    make: Callable[[int], Batch],
    start: int,
    stop: int,
    workers: int,
    threads: int,
    patience: float,
    warn: Callable[[str], None],
) -> Batches:
    for name, value in (("workers", workers), ("threads", threads)):
        if value < 0:
            raise UserError(f"The `{name}` must be 0 or more; got {value}")
    if not patience > 0:
        raise UserError(f"The `patience` must be greater than 0 seconds; got {patience}")
    labels = checked_labels(source)
    if start >= stop:
        return Batches(None, source, labels)
    elements = Elements(
        make,
        start,
        stop,
        workers=workers,
        threads=threads or max(1, min(16, _cpus()) // max(1, workers)),
        patience=patience,
        warn=warn,
    )
    return Batches(elements, source, labels)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
