"""Parts of JPEGs by TurboJPEG 3, where it is installed: what lies beside a part is not computed.

libjpeg-turbo 3 brings it (conda-forge and recent distributions have it as that, or libturbojpeg);
the wheel "turbojpeg" holds one, too.
"""

import contextlib
import ctypes
import functools
import importlib.util
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import final

import numpy as np

_TO_DECOMPRESS, _WIDTH, _HEIGHT, _RGB = 1, 5, 6, 0  # as turbojpeg.h numbers them
_BESIDE = 2  # columns beyond the part have a say in its colours
_mine = threading.local()


def part(
    encoded: bytes, height: int, width: int, block: int, box: tuple[int, int, int, int]
) -> tuple[np.ndarray, int] | None:
    """The part `box` (left, top, right, bottom) of a JPEG of `height` x `width`, and some beside.

    `block` columns are coded together. Given are the uint8 image (bottom - top, w, 3) and which of
    the JPEG's columns is its first; None where there is no such decoder, or it finds a fault. What
    comes below the part is not read.
    """
    inside = 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
    if not inside or not available():
        return None
    left = max(0, box[0] - _BESIDE) // block * block
    region = _Region(left, box[1], min(width, box[2] + _BESIDE) - left, box[3] - box[1])
    image = _decompressor().region(encoded, height, width, region)
    return None if image is None else (image, left)


def available() -> bool:
    """Whether there is a TurboJPEG 3 that gives the same pixels as simplejpeg."""
    return _library() is not None


class _Region(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_int), ("w", ctypes.c_int), ("h", ctypes.c_int))


@final
class _Decompressor:
    """One of the library's; for one thread at a time."""

    def __init__(self, library: ctypes.CDLL):
        self._library = library
        self._handle = library.tj3Init(_TO_DECOMPRESS)

    def __del__(self) -> None:
        self._library.tj3Destroy(self._handle)

    def region(self, encoded: bytes, height: int, width: int, region: _Region) -> np.ndarray | None:
        library, handle = self._library, self._handle
        if library.tj3DecompressHeader(handle, encoded, len(encoded)):
            return None
        if (library.tj3Get(handle, _WIDTH), library.tj3Get(handle, _HEIGHT)) != (width, height):
            return None
        if library.tj3SetCroppingRegion(handle, region):
            return None
        image = np.empty((region.h, region.w, 3), np.uint8)
        pixels = image.ctypes.data
        failed = library.tj3Decompress8(handle, encoded, len(encoded), pixels, 0, _RGB)
        return None if failed else image


def _decompressor() -> _Decompressor:
    if not hasattr(_mine, "decompressor"):
        library = _library()
        assert library is not None
        _mine.decompressor = _Decompressor(library)
    return _mine.decompressor


@functools.cache
def _library() -> ctypes.CDLL | None:
    for name in _names():
        with contextlib.suppress(OSError, AttributeError):  # not there; older than version 3
            library = _typed(ctypes.PyDLL(name), ctypes.CDLL(name))
            if _agrees(library):
                return library
    return None


def _agrees(library: ctypes.CDLL) -> bool:
    import simplejpeg

    image = np.random.default_rng(0).integers(0, 256, (96, 112, 3), np.uint8)
    for sampling in ("444", "422", "420"):
        encoded = simplejpeg.encode_jpeg(image, colorsubsampling=sampling)
        found = _Decompressor(library).region(encoded, 96, 112, _Region(16, 21, 72, 50))
        expected = simplejpeg.decode_jpeg(encoded)[21:71, 16:88]
        if found is None or (found[:, 2:-2] != expected[:, 2:-2]).any():
            return False
    return True


def _names() -> Iterator[str]:
    for folder in ("lib", "Library/bin"):  # an environment's own
        for pattern in ("libturbojpeg.so*", "libturbojpeg*.dylib", "turbojpeg.dll"):
            yield from map(str, sorted(Path(sys.prefix, folder).glob(pattern)))
    if (wheel := importlib.util.find_spec("turbojpeg")) and wheel.origin:
        yield from map(str, Path(wheel.origin).parent.glob("turbojpeg.libs/*turbojpeg*"))
    yield from ("libturbojpeg.so.0", "libturbojpeg.dylib")  # the system's


def _typed(quick: ctypes.PyDLL, slow: ctypes.CDLL) -> ctypes.CDLL:
    """The library; only while it decodes is the interpreter lock released."""
    handle, number, size, memory = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
    quick.tj3Init.restype = handle
    quick.tj3Init.argtypes = (number,)
    quick.tj3Destroy.argtypes = (handle,)
    quick.tj3Get.argtypes = (handle, number)
    quick.tj3DecompressHeader.argtypes = (handle, memory, size)
    quick.tj3SetCroppingRegion.argtypes = (handle, _Region)
    quick.tj3Decompress8 = slow.tj3Decompress8  # type: ignore[attr-defined]
    quick.tj3Decompress8.argtypes = (handle, memory, size, handle, number, number)
    return quick
