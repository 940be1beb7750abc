"""What a large source knows of its examples: found once, then mapped from the index cache."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from imgclf.data.index_cache import Arrays, kept, looked_up
from imgclf.data.names import Names
from imgclf.errors import UserError

LARGE = 10_000
"""From how many examples on an index is kept on disk."""

_FORM = "index, form 1"  # another one when what is kept is laid out, or found, in another way
_ARRAYS = {"buffer", "offsets", "labels", "class_buffer", "class_offsets", "digest"}


class _Kept(NamedTuple):
    what: str
    stamp: str
    digest: bytes


@final
@dataclass(frozen=True, eq=False)
class Index:
    """Names, labels and classes of a source's examples.

    Pickled it takes itself along, or, if it is kept on disk, where it lies: each process of a
    machine maps the same file.
    """

    classes: tuple[str, ...]
    names: Names
    """Of each example, such as its path."""
    labels: np.ndarray
    """int32 (n,) or float32 (n, k)."""
    kept: _Kept | None = None
    """Where it lies in the index cache."""

    def __reduce__(self) -> tuple:
        if self.kept is not None and _at(self.kept) is not None:
            return _mapped, (self.kept,)
        return Index, (self.classes, self.names, self.labels)


def indexed(
    what: str,
    stamp: str,
    make: Callable[[], tuple[Index, Arrays]],
    holds: Callable[[Arrays], bool] = lambda arrays: True,
    worth: Callable[[Arrays], bool] = lambda arrays: True,
) -> Index:
    """The index that `make` finds, with what else `holds` and `worth` look at.

    One of `LARGE` or more examples is kept as `index_cache.kept` does; less never touches the disk.
    """
    what = f"{what}\n{_FORM}"
    found: list[Index] = []

    def made() -> Arrays:
        index, more = make()
        found.append(index)
        return _arrays(index) | more if _is_large(index) else {}

    arrays = kept(
        what,
        stamp,
        made,
        holds=lambda arrays: arrays.keys() >= _ARRAYS and holds(arrays),
        worth=lambda arrays: bool(arrays) and worth(arrays),
    )
    return _opened(what, stamp, arrays) if arrays else found[0]


def _is_large(index: Index) -> bool:
    return len(index.names) >= LARGE


def _arrays(index: Index) -> Arrays:
    classes = Names.of(index.classes)
    arrays = {
        "buffer": index.names.buffer,
        "offsets": index.names.offsets,
        "labels": index.labels,
        "class_buffer": classes.buffer,
        "class_offsets": classes.offsets,
    }
    digest = hashlib.sha256()
    for array in arrays.values():
        digest.update(np.ascontiguousarray(array).data)
    return arrays | {"digest": np.frombuffer(digest.digest(), np.uint8)}


def _opened(what: str, stamp: str, arrays: Arrays) -> Index:
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    return Index(
        tuple(Names(plain["class_buffer"], plain["class_offsets"])),
        Names(plain["buffer"], plain["offsets"]),
        plain["labels"],
        _Kept(what, stamp, plain["digest"].tobytes()),
    )


def _at(place: _Kept) -> Index | None:
    arrays = looked_up(place.what, place.stamp)
    if arrays is None or not arrays.keys() >= _ARRAYS:
        return None
    if arrays["digest"].tobytes() != place.digest:
        return None
    return _opened(place.what, place.stamp, arrays)


def _mapped(place: _Kept) -> Index:
    index = _at(place)
    if index is None:
        what = place.what.partition("\n")[0]
        raise UserError(
            f"{what} has changed since it was opened, or its index is gone: start again"
        )
    return index
