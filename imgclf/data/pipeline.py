"""Batches of decoded images: which examples, in which order, on any number of processes.

The element of the Grain pipeline is a whole local batch, made from its number alone. So the state
of the iterator is one integer, and threads, workers and processes do not change what is in a batch.
"""

import copyreg
import dataclasses
import errno
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, final

import numpy as np

from imgclf.data.decode import BadImage, decode, decode_for, with_channels
from imgclf.data.geometry import Central, Geometry, Planned
from imgclf.data.order import Stream
from imgclf.data.parts import place_of
from imgclf.data.plan import Plan, carried_out
from imgclf.data.source import Source, carried, checked_labels
from imgclf.data.workers import PATIENCE, Elements
from imgclf.errors import UserError
from imgclf.preprocess import Preprocess

Batch = dict[str, Any]
"""`image` uint8 (b, h, w, c), `label` int32 (b,) or float32 (b, k), `mask` bool (b,), `id` int64
(b,): the index into the source, and `problems`: a list of `Problem`."""

_UNREADABLE = (BadImage, OSError)
_PASSING = (TimeoutError, ConnectionError, InterruptedError)
_PASSING_NUMBERS = (errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ENETUNREACH, errno.EHOSTUNREACH)
_mine = threading.local()
_PAUSES = (0.1, 0.4, 1.0)
"""Seconds between the attempts to read what may be there the next time."""

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
    reader = _reader(source, geometry, preprocess, seed, exif)
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
    reader = _reader(source, geometry or Central(), preprocess, 0, exif, channels)
    rows = _rows(batch_size, process_index, process_count)
    make = partial(_evaluation_batch, reader, batch_size, rows)
    stop = -(-len(source) // batch_size)
    return _batches(source, make, 0, stop, workers, threads, patience, warn)


def decode_all(source: Source, preprocess: Preprocess, exif: bool = True) -> np.ndarray:
    """All images of a source at once, uint8 (n, h, w, c), in its order: for small sets.

    Images that do not have the size of `preprocess` go through `Central`.
    """
    reader = _reader(source, Central(), preprocess, 0, exif)
    images = np.empty((len(source), *reader.shape), np.uint8)
    for i in range(len(source)):
        try:
            images[i] = reader.image(i, i)
        except _UNREADABLE as error:
            raise UserError(f"Example {source.ids()[i]!r} cannot be read: {error}") from error
    return images


@final
@dataclass(frozen=True)
class _Reader:
    """How an example becomes pixels; this is what a worker is sent."""

    source: Source
    geometry: Geometry
    preprocess: Preprocess
    seed: int
    exif: bool
    channels: int = 0
    shape: tuple[int, ...] = ()

    def image(self, i: int, position: int) -> np.ndarray:
        """Example `i` as it comes at a position; what a person's code raises says which it is."""
        try:
            return self._image(i, position)
        except (*_UNREADABLE, UserError):
            raise
        except Exception as error:
            error.add_note(f"raised for example {i} of `{self._kind}`: {self.source.ids()[i]}")
            raise

    def _image(self, i: int, position: int) -> np.ndarray:
        record = self.source.read(i)
        size, plan = self.preprocess.size, None
        if not isinstance(record, bytes):
            image = record
        elif size and isinstance(self.geometry, Planned):
            image, plan = decode_for(partial(self._plan, position), record, exif=self.exif)
        else:
            image = decode(record, exif=self.exif)
        if image.dtype != np.uint8 or image.ndim != 3:
            raise UserError(
                f"The images of `{self._kind}` must be uint8 (h, w, c); got {image.dtype} "
                f"{image.shape} for example {i}"
            )
        if self.channels and image.shape[2] != self.channels:
            image = with_channels(image, self.channels)
        if plan is not None:
            image = carried_out(plan, image, self.preprocess)
        elif size and (isinstance(record, bytes) or image.shape[:2] != (size, size)):
            image = self.geometry(image, self.preprocess, self._rng(position))
        if self.shape and image.shape != self.shape:
            raise UserError(
                f"The images of `{self._kind}` must have one shape, or the `size` of `Preprocess` "
                f"be given; got {image.shape} for example {i}, {self.shape} before"
            )
        return image

    def _plan(self, position: int, height: int, width: int) -> Plan:
        assert isinstance(self.geometry, Planned)
        return self.geometry.plan(height, width, self.preprocess, self._rng(position))

    def _rng(self, position: int) -> np.random.Generator:
        return _generator(self.seed % 2**64, position)

    @property
    def _kind(self) -> str:
        return type(self.source).__name__


def _generator(seed: int, position: int) -> np.random.Generator:
    """Philox with these two as its key, from the beginning; a thread has one, since a new one costs
    more than all that is drawn for an image."""
    if not hasattr(_mine, "generator"):
        bits = np.random.Philox(key=np.zeros(2, np.uint64))
        _mine.generator, _mine.state = np.random.Generator(bits), bits.state
    _mine.state["state"]["key"][:] = seed, position
    _mine.generator.bit_generator.state = _mine.state
    return _mine.generator


def _reader(
    source: Source,
    geometry: Geometry,
    preprocess: Preprocess,
    seed: int,
    exif: bool,
    channels: int = 0,
) -> _Reader:
    reader = _Reader(source, geometry, preprocess, seed, exif, channels)
    # Making one image here finds the shape of all, and a wrong value before processes are started.
    reason: object = "it has no examples"
    for i in range(len(source)):
        try:
            first = reader.image(i, 0)
        except _UNREADABLE as error:
            reason = f"{source.ids()[i]}: {error}"
        else:
            return dataclasses.replace(reader, shape=first.shape)
    raise UserError(f"No image of `{type(source).__name__}` can be read: {reason}")


def _rows(batch_size: int, process_index: int, process_count: int) -> np.ndarray:
    if batch_size < 1 or batch_size % process_count:
        raise UserError(
            f"The `batch_size` must be a positive multiple of the {process_count} processes; "
            f"got {batch_size}"
        )
    local = batch_size // process_count
    return np.arange(process_index * local, (process_index + 1) * local)


def _train_batch(
    reader: _Reader, order: Stream, batch_size: int, rows: np.ndarray, bad: set[int], step: int
) -> Batch:
    positions = step * batch_size + rows
    ids = order.ids(positions)
    images = np.empty((len(rows), *reader.shape), np.uint8)
    problems: list[tuple[int, str, int]] = []
    for row, position in enumerate(positions.tolist()):
        i = int(ids[row])
        try:
            images[row] = _patiently(reader, i, position)
        except _UNREADABLE as error:
            bad.add(i)
            problems.append((i, _said(error), position))
            ids[row], images[row] = _next_good(reader, i, position, bad)
    mask = np.ones(len(rows), bool)
    return {"image": images, "mask": mask, "id": ids, "problems": problems}


def _next_good(reader: _Reader, i: int, position: int, bad: set[int]) -> tuple[int, np.ndarray]:
    """The next readable record after `i`; what is in `bad`, found so before, is not read again.

    Only where a record is due itself it is told of: so it does not matter who passed it before.
    """
    n = len(reader.source)
    for candidate in ((i + more) % n for more in range(1, n)):
        if candidate in bad:
            continue
        try:
            return candidate, _patiently(reader, candidate, position)
        except _UNREADABLE:
            bad.add(candidate)
    raise UserError(f"No image of `{type(reader.source).__name__}` can be read any more")


def _patiently(reader: _Reader, i: int, position: int) -> np.ndarray:
    """The image, tried for again where a disk or a network fails that may not the next time."""
    for pause in _PAUSES:
        try:
            return reader.image(i, position)
        except OSError as error:
            if not (isinstance(error, _PASSING) or error.errno in _PASSING_NUMBERS):
                raise
        time.sleep(pause)
    return reader.image(i, position)


def _evaluation_batch(reader: _Reader, batch_size: int, rows: np.ndarray, number: int) -> Batch:
    ids = number * batch_size + rows
    ids[ids >= len(reader.source)] = -1
    mask = ids >= 0
    images = np.zeros((len(rows), *reader.shape), np.uint8)
    problems = []
    for row, i in enumerate(ids.tolist()):
        if i < 0:
            continue
        try:
            images[row] = _patiently(reader, i, i)
        except _UNREADABLE as error:
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
