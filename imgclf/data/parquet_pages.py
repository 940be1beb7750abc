"""The pages of a Parquet column, each read by itself: libraries read a whole row group at once.

Format: https://parquet.apache.org/docs/file-format
"""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from imgclf.data.index_cache import Arrays

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_KINDS = range(4)  # of pages that the format has
_PLAIN, _BY_DICTIONARY = 0, (2, 8)
_HEADER = 1 << 14  # bytes that a header may have
_NO_PAGE = (IndexError, KeyError, ValueError, TypeError, OverflowError, RecursionError)


class Page(NamedTuple):
    """Where a page is, and what its header says."""

    offset: int
    """Where its header begins."""
    rows: int
    dictionary: int
    """Where the header of the dictionary of its values begins, or 0."""
    size: int
    """Bytes of the page and of its dictionary when decompressed."""


def pages(file: int, first: int, rows: int) -> Iterator[Page]:
    """The pages of a column chunk whose first header is at `first`; OSError if they are damaged."""
    offset, dictionary, shared = first, 0, 0
    while rows > 0:
        header, size = _header(file, offset)
        kind = header.get(1)
        if kind == _DICTIONARY:
            dictionary, shared = offset, header[2]
        elif kind in (_DATA, _DATA_V2):
            count = header[5 if kind == _DATA else 8][1]
            if not 0 < count <= rows:
                raise OSError(f"the page at byte {offset:,} has {count} of {rows} rows")
            yield Page(offset, count, dictionary, header[2] + shared)
            rows -= count
        offset += size + header[3]


def values(file: int, page: Page, codec: str, most_defined: int) -> Arrays:
    """The bytes of every row of a page; OSError if it is damaged.

    `data` uint8, and where in it each row's bytes begin and how many they are: `start` and `length`
    int64 (rows,); the length of a null is -1. `most_defined`: the column's greatest definition
    level.
    """
    try:
        return _values(file, page, codec, most_defined)
    except _NO_PAGE as error:
        raise OSError(f"the page at byte {page.offset:,} is damaged: {error}") from error


def _values(file: int, page: Page, codec: str, most_defined: int) -> Arrays:
    header, data, defined = _content(file, page.offset, codec)
    second = header[1] == _DATA_V2
    about = header[8 if second else 5]
    there = np.ones(page.rows, bool)
    if most_defined:
        if not second:
            length = int.from_bytes(data[:4], "little")
            defined, data = data[4 : 4 + length], data[4 + length :]
        there = _runs(defined, most_defined.bit_length(), page.rows) == most_defined
    places = np.arange(np.count_nonzero(there))
    encoding = about[4 if second else 2]
    if encoding in _BY_DICTIONARY:
        if len(places):
            places = _runs(data[1:], data[0], len(places))
        header, data, _ = _content(file, page.dictionary, codec)
        if header[1] != _DICTIONARY:
            raise ValueError("there is no dictionary")
    elif encoding != _PLAIN:
        raise ValueError(f"its encoding, {encoding}, is not known")
    starts, lengths = [], []
    at = 0
    for _ in range(int(places.max(initial=-1)) + 1):
        length = int.from_bytes(data[at : at + 4], "little")
        starts.append(at + 4)
        lengths.append(length)
        at += 4 + length
        if at > len(data):
            raise ValueError("a value is longer than its page")
    start, sizes = np.zeros(page.rows, np.int64), np.full(page.rows, -1)
    start[there] = np.array(starts, np.int64)[places]
    sizes[there] = np.array(lengths, np.int64)[places]
    return {"data": np.frombuffer(data, np.uint8), "start": start, "length": sizes}


def _content(file: int, offset: int, codec: str) -> tuple[dict[int, Any], memoryview, memoryview]:
    """A page's header, its values, and its definition levels where they stand apart."""
    import pyarrow

    header, size = _header(file, offset)
    raw = memoryview(os.pread(file, header[3], offset + size))
    if len(raw) < header[3]:
        raise ValueError("it is cut off")
    about = header.get(8, {})
    apart = about.get(5, 0) + about.get(6, 0)
    levels, data = raw[about.get(6, 0) : apart], raw[apart:]
    if codec != "UNCOMPRESSED" and about.get(7, True):
        name = {"LZ4": "lz4_raw"}.get(codec, codec.lower())
        length = header[2] - apart
        plain = pyarrow.Codec(name).decompress(data, length) if length else b""
        data = memoryview(plain).cast("B")  # Arrow's bytes have signs
    return header, data, levels


def _runs(data: memoryview, bits: int, count: int) -> np.ndarray:
    """`count` whole numbers of Parquet's hybrid of run lengths and packed bits."""
    found = [np.zeros(0, np.int64)]
    at, left = 0, count
    while left > 0:
        head, at = _varint(data, at)
        if head & 1:
            packed = np.frombuffer(data[at : at + (head >> 1) * bits], np.uint8)
            at += (head >> 1) * bits
            ones = np.unpackbits(packed, bitorder="little").reshape(-1, max(bits, 1))
            run = ones.astype(np.int64) @ (1 << np.arange(max(bits, 1)))
        else:
            wide = -(-bits // 8)
            number = int.from_bytes(data[at : at + wide], "little")
            at += wide
            run = np.full(min(head >> 1, left), number)
        if not len(run):
            raise ValueError("a run has no values")
        found.append(run[:left])
        left -= len(run)
    return np.concatenate(found)


def _header(file: int, offset: int) -> tuple[dict[int, Any], int]:
    data = memoryview(os.pread(file, _HEADER, offset))
    try:
        header, size = _struct(data, 0)
        if header[1] not in _KINDS or header[2] < 0 or header[3] < 0:
            raise ValueError("it has a wrong size")
        return header, size
    except _NO_PAGE as error:
        raise OSError(f"there is no page at byte {offset:,}: {error}") from error


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7


def _struct(data: memoryview, at: int) -> tuple[dict[int, Any], int]:
    """A struct of Thrift's compact protocol, as a dict by number of field."""
    found: dict[int, Any] = {}
    field = 0
    while data[at]:
        step, kind = data[at] >> 4, data[at] & 15
        at += 1
        if step:
            field += step
        else:
            number, at = _varint(data, at)
            field = (number >> 1) ^ -(number & 1)
        if kind in (1, 2):
            found[field] = kind == 1
        elif kind in (4, 5, 6):
            number, at = _varint(data, at)
            found[field] = (number >> 1) ^ -(number & 1)
        elif kind == 3:
            found[field], at = data[at], at + 1
        elif kind == 8:
            length, at = _varint(data, at)
            at += length
        elif kind == 12:
            found[field], at = _struct(data, at)
        else:
            raise ValueError(f"a field of kind {kind}")
    return found, at + 1
