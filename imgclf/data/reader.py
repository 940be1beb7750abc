"""An example of a source at a place in the order: from its record to its pixels."""

import dataclasses
import errno
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np

from imgclf.data.decode import BadImage, begin, decode, with_channels
from imgclf.data.geometry import Geometry, Planned
from imgclf.data.plan import Plan, carried_out
from imgclf.data.source import Source
from imgclf.errors import UserError
from imgclf.preprocess import Preprocess

UNREADABLE = (BadImage, OSError)
"""What `Reader` raises for a record that is bad, or cannot be had."""

_PASSING = (TimeoutError, ConnectionError, InterruptedError)
_PASSING_NUMBERS = (errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ENETUNREACH, errno.EHOSTUNREACH)
_PAUSES = (0.1, 0.4, 1.0)
"""Seconds between the attempts to read what may be there the next time."""
_AT_ONCE = 32  # so many records are read before the first of them is decoded
_mine = threading.local()

_Image = Callable[[], np.ndarray]
_Pixels = Callable[[], tuple[np.ndarray, Plan | None]]


@final
@dataclass(frozen=True)
class Reader:
    """How an example becomes pixels; this is what a worker is sent."""

    source: Source
    geometry: Geometry
    preprocess: Preprocess
    seed: int
    exif: bool
    channels: int = 0
    shape: tuple[int, ...] = ()
    whole: bool = False
    """Whether all of an image is decoded, even where a part would do: no damage goes unnoticed."""

    def images(self, due: Sequence[tuple[int, int]]) -> Iterator[_Image]:
        """For each example and its position, in turn, what gives its image, patiently.

        Some are read, and their plans made, before the first of them is decoded: threads that do
        all of that for each image take the interpreter lock from each other all the time.
        """
        for first in range(0, len(due), _AT_ONCE):
            some = [
                (i, position, self._begun(i, position)) for i, position in due[first:][:_AT_ONCE]
            ]
            yield from (partial(self.patiently, *each) for each in some)

    def patiently(self, i: int, position: int, begun: _Image | None = None) -> np.ndarray:
        """`image`, tried for again where a disk or a network fails that may not the next time."""
        for pause in _PAUSES:
            try:
                return self.image(i, position, begun)
            except OSError as error:
                if not (isinstance(error, _PASSING) or error.errno in _PASSING_NUMBERS):
                    raise
            begun = None
            time.sleep(pause)
        return self.image(i, position)

    def image(self, i: int, position: int, begun: _Image | None = None) -> np.ndarray:
        """Example `i` as it comes at a position; what a person's code raises says which it is."""
        try:
            return begun() if begun else self._begin(i, position)()
        except (*UNREADABLE, UserError):
            raise
        except Exception as error:
            error.add_note(f"raised for example {i} of `{self._kind}`: {self.source.ids()[i]}")
            raise

    def _begun(self, i: int, position: int) -> _Image:
        try:
            return self._begin(i, position)
        except Exception as error:  # is said when it is its turn
            return partial(_raise, error)

    def _begin(self, i: int, position: int) -> _Image:
        record = self.source.read(i)
        if not isinstance(record, bytes):
            return partial(self._finished, i, position, False, lambda: (record, None))
        if self.preprocess.size and isinstance(self.geometry, Planned) and not self.whole:
            pixels: _Pixels = begin(partial(self._plan, position), record, exif=self.exif)
        else:
            pixels = partial(_decoded, record, self.exif)
        return partial(self._finished, i, position, True, pixels)

    def _finished(self, i: int, position: int, encoded: bool, pixels: _Pixels) -> np.ndarray:
        size = self.preprocess.size
        image, plan = pixels()
        if image.dtype != np.uint8 or image.ndim != 3:
            raise UserError(
                f"The images of `{self._kind}` must be uint8 (h, w, c); got {image.dtype} "
                f"{image.shape} for example {i}"
            )
        if self.channels and image.shape[2] != self.channels:
            image = with_channels(image, self.channels)
        if plan is not None:
            image = carried_out(plan, image, self.preprocess)
        elif size and (encoded or image.shape[:2] != (size, size)):
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
        return generator(self.seed % 2**64, position)

    @property
    def _kind(self) -> str:
        return type(self.source).__name__


def reader_of(
    source: Source,
    geometry: Geometry,
    preprocess: Preprocess,
    seed: int,
    exif: bool,
    channels: int = 0,
) -> Reader:
    """A reader that knows the shape of all images, by making one, which shows wrong values, too."""
    reader = Reader(source, geometry, preprocess, seed, exif, channels)
    reason: object = "it has no examples"
    for i in range(len(source)):
        try:
            first = reader.image(i, 0)
        except UNREADABLE as error:
            reason = f"{source.ids()[i]}: {error}"
        else:
            return dataclasses.replace(reader, shape=first.shape)
    raise UserError(f"No image of `{type(source).__name__}` can be read: {reason}")


def generator(seed: int, position: int) -> np.random.Generator:
    """Philox with these two as its key, from the beginning; a thread has one, since a new one costs
    more than all that is drawn for an image."""
    if not hasattr(_mine, "generator"):
        bits = np.random.Philox(key=np.zeros(2, np.uint64))
        _mine.generator, _mine.state = np.random.Generator(bits), bits.state
    _mine.state["state"]["key"][:] = seed, position
    _mine.generator.bit_generator.state = _mine.state
    return _mine.generator


def _decoded(encoded: bytes, exif: bool) -> tuple[np.ndarray, None]:
    return decode(encoded, exif=exif), None


def _raise(error: Exception) -> Any:
    raise error
