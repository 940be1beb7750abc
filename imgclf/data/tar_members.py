"""What a tar file holds, found by its headers; a file that is not whole is refused.

The formats are ustar, GNU's with long names, and pax (POSIX.1-2001, "pax Interchange Format").
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from imgclf.errors import UserError

_BLOCK = 512
_RECORD = 20 * _BLOCK  # what most programs fill the end of a tar up to
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_LONGEST = 1 << 20  # bytes of a long name or of pax records
_PAX = re.compile(
    rb"path|size|linkpath|[acm]time|[ug]id|[ug]name|comment|charset|hdrcharset|[A-Z][\w.-]*\..+"
)

ReadAt = Callable[[int, int], bytes]
"""Bytes of a file from an offset on, in a length; fewer only where the file ends."""


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int
    """Where its bytes begin."""
    length: int


def members(file: str, size: int, read_at: ReadAt) -> Iterator[Member]:
    """The files in a tar, in order; folders are left out.

    Every checksum is verified, all that must be zero is, and the end is where it has to be, so that
    no member is lost unnoticed (but whole ones cut out, or overwritten with zeros to the end of a
    file's last 10 KiB: such a tar is as good as any). Raises a `UserError` that says where the
    damage is.
    """
    offset, name, length = 0, "", -1  # the last two as an extension before the header says
    last = "its beginning"
    if not size:
        raise UserError(f"{file} must be a tar file; it is empty")
    for magic, program in _COMPRESSED.items():
        if read_at(0, _BLOCK).startswith(magic):
            raise UserError(
                f"{file} must not be compressed, to be read in any order; it is, by {program}"
            )
    while True:
        block = read_at(offset, _BLOCK)
        if len(block) < _BLOCK:
            raise _damaged(file, f"it ends after {last}, without the two empty blocks of an end")
        if not any(block):
            break
        header = _header(file, offset, block)
        header_length = length if length >= 0 else header.length
        start = offset + _BLOCK
        offset = start + -(-header_length // _BLOCK) * _BLOCK
        called = name or header.name
        if start + header_length > size:
            raise _damaged(file, f"{called!r} is cut off")
        if offset > start + header_length and any(
            read_at(start + header_length, offset - start - header_length)
        ):
            raise _damaged(file, f"what follows {called!r} is not empty")
        if header.kind in (b"x", b"g", b"L", b"K"):
            if header_length > _LONGEST:
                raise _damaged(file, f"the header at byte {start - _BLOCK:,} is longer than can be")
            name, length = _extended(file, header.kind, read_at(start, header_length), name, length)
            continue
        last = repr(called)
        if header.kind == b"5":
            if header_length:
                raise _damaged(file, f"the folder {called!r} has bytes of its own")
        elif header.kind in (b"0", b"\0", b"7"):
            yield Member(called, start, header_length)
        else:
            kind = "a sparse file" if header.kind == b"S" else "a link or a special file"
            raise UserError(f"{file} must hold plain files and folders; {called!r} is {kind}")
        name, length = "", -1
    if name or length >= 0:
        raise _damaged(file, f"after {last} the name of a member stands alone")
    _check_end(file, offset, size, read_at, last)


class _Header(NamedTuple):
    name: str
    kind: bytes
    length: int


def _header(file: str, offset: int, block: bytes) -> _Header:
    if block[257:263] not in (b"ustar\0", b"ustar "):
        what = "begins as none" if offset == 0 else f"has no header at byte {offset:,}"
        raise _damaged(file, f"it {what}")
    checksum = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    lengths = [_number(block[start:stop]) for start, stop in _NUMBERS]
    if _number(block[148:156]) != checksum or None in lengths:
        raise _damaged(file, f"the header at byte {offset:,} does not have its checksum")
    length, kind = lengths[0], block[156:157]
    assert length is not None
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    return _Header(name.decode("utf-8", "surrogateescape"), kind, length)


_NUMBERS = ((124, 136), (100, 108), (108, 116), (116, 124), (136, 148))  # the first is the size


def _number(field: bytes) -> int | None:
    if field[0] in (0x80, 0xFF):  # GNU's form for what is large, or negative
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else 0
    digits = re.fullmatch(rb" *([0-7]*)[ \0]*", field)
    return int(digits[1] or b"0", 8) if digits else None


def _extended(file: str, kind: bytes, data: bytes, name: str, length: int) -> tuple[str, int]:
    if kind in (b"L", b"K"):
        text, end, rest = data.partition(b"\0")
        if not text or not end or rest:
            raise _damaged(file, "a long name has no end")
        return (text.decode("utf-8", "surrogateescape") if kind == b"L" else name), length
    while data:
        record = re.match(rb"(\d{1,7}) ([^=]+)=", data)
        stop = int(record[1]) if record else 0
        if not record or data[stop - 1 : stop] != b"\n" or not _PAX.fullmatch(record[2]):
            raise _damaged(file, "a pax header cannot be understood")
        keyword, value = record[2], data[record.end() : stop - 1]
        if keyword.startswith(b"GNU.sparse"):
            raise UserError(f"{file} must hold plain files; it holds a sparse one")
        if keyword in (b"path", b"size"):
            digits = value.isdigit() or keyword == b"path"
            if kind == b"g" or not value or b"\0" in value or not digits:
                raise _damaged(file, "a pax header cannot be understood")
            if keyword == b"path":
                name = value.decode("utf-8", "surrogateescape")
            else:
                length = int(value)
        data = data[stop:]
    return name, length


def _check_end(file: str, offset: int, size: int, read_at: ReadAt, last: str) -> None:
    end = offset + 2 * _BLOCK
    filled = -(-end // _RECORD) * _RECORD
    if size not in (end, filled):
        raise _damaged(
            file,
            f"after {last} it must be empty and end at byte {end:,} or {filled:,}, not {size:,}",
        )
    if any(read_at(offset, size - offset)):
        raise _damaged(file, f"something follows the end, which is after {last}")


def _damaged(file: str, what: str) -> UserError:
    return UserError(f"{file} must be a whole tar file; {what}")
