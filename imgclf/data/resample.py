"""Scaling with anti-aliasing, compiled for the CPU at hand: Pillow 13's levels to the bit, sooner.

Weights are whole numbers and sums are rounded between two passes, as in Pillow. Both passes take
whole rows, which compilers make vectors of: for the one across, 32 rows at a time are turned, so
that what lies in one column lies in one row.
"""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

BILINEAR, BICUBIC, BOX = 0, 1, 2

_BITS = 22  # of a weight's fraction
_ROWS = 192  # turned at a time, at most
_COLUMNS = 128  # turned at a time, so that what is written to stays in the nearest cache
_u8, _u32, _u64 = numba.uint8, numba.uint32, numba.uint64
_i32, _i64, _f64 = numba.int32, numba.int64, numba.float64
_Pixels = numba.types.Array(_u8, 2, "C", readonly=True)
_Weights = numba.types.Tuple((_i64[::1], _i32[:, ::1]))  # where they begin, the weights


def _compiled(signature: Any) -> Callable[[Callable], Callable]:
    def compiled(function: Callable) -> Callable:
        try:
            return numba.njit(signature, nogil=True, cache=True)(function)
        except Exception:  # nothing can be kept, or what was is broken: anew in each process
            return numba.njit(signature, nogil=True)(function)

    return compiled


@_compiled(_f64(_f64, _i64))
def _weight(x, kind):
    if kind == BOX:
        return 1.0 if -0.5 < x <= 0.5 else 0.0
    x = abs(x)
    if kind == BILINEAR:
        return max(0.0, 1.0 - x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return 0.0


@_compiled(_Weights(_i64, _i64, _f64, _f64, _i64))
def _weights(size, new, start, end, kind):
    start, end = np.float32(start), np.float32(end)
    scale = np.float64(end - start) / new
    widened = max(scale, 1.0)
    support = widened * (0.5 if kind == BOX else 1.0 if kind == BILINEAR else 2.0)
    exact = np.empty(math.ceil(support) * 2 + 1, np.float64)
    starts = np.empty(new, np.int64)
    weights = np.zeros((new, len(exact)), np.int32)
    most = 1
    for place in range(new):
        centre = start + (place + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        count = min(size, int(centre + support + 0.5)) - first
        total = 0.0
        for tap in range(count):
            exact[tap] = _weight((tap + first - centre + 0.5) * (1.0 / widened), kind)
            total += exact[tap]
        for tap in range(count):
            weight = exact[tap] / total if total != 0.0 else exact[tap]
            weights[place, tap] = int(weight * (1 << _BITS) + (0.5 if weight >= 0 else -0.5))
        starts[place] = first
        most = max(most, count)
    return starts, weights[:, :most].copy()


@_compiled(numba.void(_Pixels, _i64, _i64, _i64, _Weights, _u8[:, ::1]))
def _down(image, top, bottom, left, weights, out):
    starts, weights = weights
    last, taps = bottom - 1, weights.shape[1]
    sums = np.empty(out.shape[1], np.int32)
    for place in range(len(starts)):
        y, w = top + starts[place], weights[place]
        sums[:] = 1 << (_BITS - 1)
        if taps % 2:
            w0, a = w[0], image[min(y, last), left:]
            for x in range(len(sums)):
                sums[x] += w0 * _i32(a[x])
        for tap in range(taps % 2, taps, 2):
            w0, a = w[tap], image[min(y + tap, last), left:]
            w1, b = w[tap + 1], image[min(y + tap + 1, last), left:]
            for x in range(len(sums)):
                sums[x] += w0 * _i32(a[x]) + w1 * _i32(b[x])
        for x in range(len(sums)):
            out[place, x] = min(max(sums[x] >> _i32(_BITS), _i32(0)), _i32(255))


@_compiled(numba.void(_Pixels, _i64, _i64, _i64, _i64, _u64[:, ::1]))
def _turn(image, top, bottom, left, count, out):
    last = bottom - 1  # again and again, where eight rows reach beyond
    pixels = image.reshape(-1)
    lanes, groups = out.reshape(-1), _u64(out.shape[1])
    halves = np.empty((2, _COLUMNS), np.uint32)
    at = np.empty(8, np.uint64)
    for column in range(0, count, _COLUMNS):
        some = _u64(min(_COLUMNS, count - column))
        for group in range(out.shape[1]):
            for row in range(8):
                at[row] = min(top + 8 * group + row, last) * image.shape[1] + left + column
            for half in range(2):
                four, row = halves[half], 4 * half
                a, b, c, d = at[row], at[row + 1], at[row + 2], at[row + 3]
                for x in range(some):
                    four[x] = (
                        _u32(pixels[a + x])
                        | _u32(pixels[b + x]) << 8
                        | _u32(pixels[c + x]) << 16
                        | _u32(pixels[d + x]) << 24
                    )
            low, high = halves[0], halves[1]
            first = _u64(column * out.shape[1] + group)
            for x in range(some):
                lanes[first + x * groups] = _u64(low[x]) | _u64(high[x]) << _u64(32)


@_compiled(_u8[:, ::1](_Pixels, _i64, _i64, _i64, _i64, _i64, _Weights))
def _across(image, top, bottom, left, channels, columns, weights):
    new, rows = len(weights[0]), bottom - top
    strip = -(-rows // (8 * -(-rows // _ROWS))) * 8
    turned = np.empty((channels * columns, strip // 8), np.uint64)
    lanes = turned.view(np.uint8).reshape(columns, channels * strip)
    done = np.empty((channels * new, strip), np.uint8)
    out = np.empty((-(-rows // strip) * strip, -(-channels * new // 8)), np.uint64)
    for row in range(0, rows, strip):
        _turn(image, top + row, bottom, channels * left, channels * columns, turned)
        _down(lanes, 0, columns, 0, weights, done.reshape(new, channels * strip))
        _turn(done, 0, channels * new, 0, strip, out[row:])
    return out.view(np.uint8)


@_compiled(
    _u8[:, ::1](
        _Pixels,
        _i64,
        numba.types.UniTuple(_i64, 4),
        numba.types.UniTuple(_f64, 4),
        numba.types.UniTuple(_i64, 2),
        _i64,
    )
)
def resampled(image, channels, part, box, new, kind):
    """A part of an image at another size: uint8 (height, >= width * channels), the rest void.

    `image`: uint8 (h, w * channels), rows one after the other in memory. `part`: left, top, width
    and height of what is looked at, in whole pixels. `box`: left, top, right and bottom, in the
    part, of what is taken, in fractions of a pixel. `new`: width and height. `kind`: BILINEAR,
    BICUBIC or BOX.
    """
    left, top, columns, rows = part
    width, height = new
    across = _weights(columns, width, box[0], box[2], kind)
    down = _weights(rows, height, box[1], box[3], kind)
    if 0 < rows - height > 2 * (columns - width):  # the order of the passes is Pillow 13's
        between = np.empty((height, channels * columns), np.uint8)
        _down(image, top, top + rows, channels * left, down, between)
        return _across(between, 0, height, 0, channels, columns, across)[:height]
    first, last = down[0][0], min(rows, down[0][-1] + down[1].shape[1])
    between = _across(image, top + first, top + last, left, channels, columns, across)
    out = np.empty((height, channels * width), np.uint8)
    _down(between, -first, last - first, 0, down, out)
    return out
