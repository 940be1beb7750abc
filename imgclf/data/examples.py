"""`tf.train.Example` records in ArrayRecord files: what both kinds of source read of them."""

import bisect
import itertools
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np

from imgclf.data.index_cache import Arrays, kept
from imgclf.data.names import Names

T = TypeVar("T")

_AT_ONCE = 256  # records read together when all are looked at
_UNREADABLE = (ValueError, RuntimeError, IndexError, OSError)
# A shard is read here and there, so reading on ahead would be in vain.
_OPTIONS = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 32768}


@final
class Shards:
    """The records of several ArrayRecord files, in one sequence.

    Files are opened when they are first read, by any thread; a pickled copy opens its own.
    """

    def __init__(self, files: Sequence[tuple[str, int, int]]):
        """`files`: path, first record and number of records of each, at least one."""
        self._files = [file for file in files if file[2]]
        self._ends = list(itertools.accumulate(count for _, _, count in self._files))
        self.__setstate__(self.__getstate__())

    def __getstate__(self) -> dict[str, Any]:
        return {"_files": self._files, "_ends": self._ends}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._readers: list[Any] = [None] * len(self._files)
        self._lock = threading.Lock()

    @property
    def paths(self) -> list[str]:
        """The files."""
        return [path for path, _, _ in self._files]

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, i: int) -> bytes:
        """Record i; an `OSError` that names the file if it is damaged, by its own checksums."""
        file = bisect.bisect_right(self._ends, i)
        try:
            (record,) = self._read(file, [i])
        except _UNREADABLE as error:
            raise OSError(f"record {i} of {self._name(file)} cannot be read: {said(error)}") from (
                error
            )
        if not record:  # what a file that is cut off may give
            raise OSError(f"record {i} of {self._name(file)} is empty (is it cut off?)")
        return record

    def place(self, i: int) -> tuple[str, int]:
        """The file of record i, and which of its records that is."""
        file = bisect.bisect_right(self._ends, i)
        path, first, count = self._files[file]
        return path, i + first + count - self._ends[file]

    def all(self, look: Callable[[bytes], T]) -> tuple[list[T | None], bool]:
        """What `look` makes of every record, None of a damaged one; and whether there is one.

        A file without any whole record is an `OSError`.
        """
        found: list[T | None] = []
        whole = True
        for file, end in enumerate(self._ends):
            start = end - self._files[file][2]
            for first in range(start, end, _AT_ONCE):
                several = range(first, min(first + _AT_ONCE, end))
                try:
                    records = self._read(file, several)
                except _UNREADABLE:
                    records = [self._or_empty(i) for i in several]
                found += [look(record) if record else None for record in records]
            if None in found[start:]:
                whole = False
                if all(each is None for each in found[start:]):
                    self[start]
        return found, whole

    def _read(self, file: int, several: Sequence[int]) -> list[bytes]:
        path, first, count = self._files[file]
        shift = first + count - self._ends[file]
        return self._reader(file, path).read([i + shift for i in several])

    def _reader(self, file: int, path: str) -> Any:
        if self._readers[file] is None:
            from array_record.python.array_record_module import ArrayRecordReader

            with self._lock:
                if self._readers[file] is None:
                    self._readers[file] = ArrayRecordReader(path, **_OPTIONS)
        return self._readers[file]

    def _or_empty(self, i: int) -> bytes:
        try:
            return self[i]
        except OSError:
            return b""

    def _name(self, file: int) -> str:
        return Path(self._files[file][0]).name


def count(path: str) -> int:
    """How many records an ArrayRecord file has; raises what ArrayRecord does for a damaged one."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(path, **_OPTIONS)
    try:
        return reader.num_records()
    finally:
        reader.close()


def features(record: bytes) -> Any:
    """The features of a record, by name; a `ValueError` for what is no tf.train.Example."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        return tf_example_pb2.Example.FromString(record).features.feature
    except DecodeError:
        raise ValueError("the records must be tf.train.Example messages") from None


def values(found: Any, name: str) -> Sequence[Any]:
    """The values of the feature `name`, bytes or numbers; empty where there is none."""
    kind = found[name].WhichOneof("kind") if name in found else None
    return getattr(found[name], kind).value if kind else ()


def name(found: Any) -> bytes:
    """The text in the feature `id`; empty where there is none, or a number, as some sets have."""
    written = values(found, "id")
    return written[0] if written and isinstance(written[0], bytes) else b""


def image(shards: Shards, i: int, name: str) -> bytes:
    """The encoded image of record i in its feature `name`; an `OSError` if there is none."""
    try:
        found = values(features(shards[i]), name)
    except ValueError as error:
        raise OSError(f"record {i}: {error}") from error
    if not found or not isinstance(found[0], bytes):
        raise OSError(f"record {i} holds no encoded image in {name!r}")
    return found[0]


def index(what: str, stamp: str, find: Callable[[], tuple[Arrays, bool]]) -> Arrays:
    """What `find` finds out about records, by `index_cache.kept`: but not if some are damaged."""

    def make() -> Arrays:
        found, whole = find()
        if not whole:
            raise _Damaged(found)
        return found

    try:
        return kept(what, stamp, make)
    except _Damaged as damaged:
        return damaged.found


def indexed(labels: np.ndarray, found: Sequence[bytes], unnamed: str) -> Arrays:
    """Labels and names as arrays; example i without a name is called `unnamed` and i."""
    names = Names.of(
        name.decode("utf-8", "surrogateescape") if name else f"{unnamed}{i}"
        for i, name in enumerate(found)
    )
    return {"labels": labels, "name_buffer": names.buffer, "name_offsets": names.offsets}


def names(found: Arrays) -> Names:
    """The names in what `indexed` returned."""
    return Names(found["name_buffer"], found["name_offsets"])


class _Damaged(Exception):  # noqa: N818 (it says what is so)
    def __init__(self, found: Arrays):
        self.found = found


def lines(file: Path) -> tuple[str, ...]:
    """The names in a text file, one on a line; none if there is no such file."""
    if not file.is_file():
        return ()
    found = file.read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in found if line.strip())


def said(error: object) -> str:
    """The first line of what a library says of an error."""
    return (str(error).splitlines() or ["no reason given"])[0]
