"""What a set of labelled images must say of itself, so that everything else can use it."""

import abc
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from imgclf.data.remote import is_remote
from imgclf.errors import UserError

S = TypeVar("S", bound="Source")
T = TypeVar("T")

_ROUNDING = 1e-5  # that sums of shares may be off by
_as_written = ContextVar("_as_written", default=False)


class carried(cached_property[T]):  # noqa: N801 (a decorator)
    """A `cached_property` that a pickled source takes along, since finding it anew is dear."""


class Source(abc.ABC):
    """Labelled images that can be read in any order; a kind is a frozen dataclass of plain fields.

    Making one touches no disk. What is found there is kept in `functools.cached_property`s, which
    are left out when the source is pickled (a worker finds them anew), unless they are `carried`.
    """

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many examples there are."""

    @property
    @abc.abstractmethod
    def classes(self) -> tuple[str, ...]:
        """The names of the k classes; label j means the class at place j."""

    @abc.abstractmethod
    def labels(self) -> np.ndarray:
        """Every label without decoding an image: int32 (n,), or float32 (n, k) if they are soft."""

    @abc.abstractmethod
    def ids(self) -> Sequence[str]:
        """A name of each example that stays the same, such as its path below the source's own."""

    @abc.abstractmethod
    def read(self, i: int) -> bytes | np.ndarray:
        """Example i: an encoded image of any size, or uint8 (h, w, c), all of one shape."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not self._is_left(name)}

    def _is_left(self, name: str) -> bool:
        found = getattr(type(self), name, None)
        if not isinstance(found, cached_property):
            return False
        return _as_written.get() or not isinstance(found, carried)


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """Sources that are pickled meanwhile leave out all that they have found: to be kept on disk.

    What is `carried` is for a worker of the same time and machine.
    """
    before = _as_written.set(True)
    try:
        yield
    finally:
        _as_written.reset(before)


def fixed_shape(source: Source) -> tuple[int, int, int] | None:
    """The (h, w, c) that all images of the source have, or None if they must be decoded first."""
    try:
        first = source.read(0)
    except OSError:  # only an encoded image is read from its file
        return None
    return None if isinstance(first, bytes) else first.shape


def checked_labels(source: Source) -> np.ndarray:
    """The labels of a source: int32 (n,), or float32 (n, k) where they are soft or several.

    Raises a `UserError` for another shape or kind of number, a label that names no class, or a soft
    one outside [0, 1].
    """
    labels = np.asarray(source.labels())
    kind, (n, k) = type(source).__name__, (len(source), len(source.classes))
    if labels.shape == (n,) and np.issubdtype(labels.dtype, np.integer):
        wrong = labels[(labels < 0) | (labels >= k)]
        if len(wrong):
            raise UserError(
                f"The `labels` of `{kind}` must lie in 0..{k - 1}, the places of its classes; got "
                f"{wrong[0]}"
            )
        return labels.astype(np.int32)
    if labels.shape == (n, k) and np.issubdtype(labels.dtype, np.floating):
        _check_shares(kind, source, labels)
        return labels.astype(np.float32)
    raise UserError(
        f"The `labels` of `{kind}` must be int32 ({n},) or float32 ({n}, {k}); got {labels.dtype} "
        f"{labels.shape}"
    )


def _check_shares(kind: str, source: Source, labels: np.ndarray) -> None:
    low, high = -_ROUNDING, 1 + _ROUNDING
    if labels.size and not (labels.min() >= low and labels.max() <= high):  # nor NaN
        i, j = np.argwhere(~((labels >= low) & (labels <= high)))[0]
        raise UserError(
            f"The soft `labels` of `{kind}` must lie in [0, 1]; got {labels[i, j]:g} for "
            f"{source.ids()[i]!r}"
        )


def located(source: S, root: str) -> S:
    """The source with its relative `path`, and that of every source inside it, below `root`.

    A URL stays what it is.
    """
    if not dataclasses.is_dataclass(source):
        return source
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(source):
        value = getattr(source, field.name)
        if isinstance(value, Source):
            changes[field.name] = located(value, root)
        elif isinstance(value, tuple) and any(isinstance(each, Source) for each in value):
            changes[field.name] = tuple(
                located(each, root) if isinstance(each, Source) else each for each in value
            )
        elif field.name == "path" and isinstance(value, str) and not is_remote(value):
            changes[field.name] = str(Path(root) / Path(value).expanduser())
    same = all(getattr(source, name) == value for name, value in changes.items())
    return source if same else dataclasses.replace(source, **changes)


def numbered(count: int) -> tuple[str, ...]:
    """Names for classes that have none: "0", "1", ..."""
    return tuple(str(label) for label in range(count))


def check_classes(kind: str, path: object, classes: Sequence[str]) -> None:
    """Raises a `UserError` unless there are two classes or more."""
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise UserError(
            f"The `path` of `{kind}` must have two classes or more; got {found} ({path})"
        )


def check_labels(kind: str, path: object, labels: np.ndarray, classes: Sequence[str]) -> None:
    """Raises a `UserError` unless every whole-number label is the place of a class."""
    wrong = labels[(labels < 0) | (labels >= len(classes))]
    if len(wrong):
        raise UserError(
            f"The labels of `{kind}` must lie in 0..{len(classes) - 1}, the places of its classes; "
            f"got {wrong[0]} ({path})"
        )
