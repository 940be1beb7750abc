"""Of a JPEG, no more than a plan needs: rows and columns are left out, and pixels made fewer."""

import functools
import re
from typing import NamedTuple, final

import numpy as np

from imgclf.data import turbojpeg
from imgclf.data.plan import Plan

_SCAN, _NOTES = 0xDA, 0xE1  # markers
# These have no length, or do not belong there.
_BARE = frozenset((*range(0xC0), *range(0xD0, 0xDA), 0xFF))
_AT_ONCE = (0xC0, 0xC1)  # frames of a single scan
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_MOST_OF_IT = 0.9  # of the image: with less to leave out, there is nothing to win
_END = b"\xff\xd9"
_LEFT_OVER = re.compile(r"extraneous bytes before marker 0xd9$")  # that of the image's end


@final
class Header(NamedTuple):
    """What a JPEG tells before its first scan."""

    height: int
    width: int
    at: int
    """Where it describes its frame."""
    scan: int
    """Where its first scan begins, before which its notes and previews stand."""
    rows: int
    """So many rows are coded together."""
    columns: int
    """So many columns are."""
    single: bool
    """Whether all of it comes in one scan, from the top to the bottom."""
    has_exif: bool


def header_of(encoded: bytes) -> Header | None:
    """What a JPEG tells before its first scan, or None if that is nothing usual."""
    at, frame, has_exif, size = 2, 0, False, len(encoded)
    if encoded[:2] != b"\xff\xd8":
        return None
    while at + 4 <= size and encoded[at] == 0xFF:
        marker, length = encoded[at + 1], encoded[at + 2] << 8 | encoded[at + 3]
        if marker in _BARE:
            return None
        if marker == _SCAN:
            return _header(encoded, frame, at, has_exif) if frame else None
        if marker in _FRAMES and not frame:
            frame = at
        elif marker == _NOTES and encoded[at + 4 : at + 8] == b"Exif":
            has_exif = True
        at += 2 + length
    return None


def _header(encoded: bytes, frame: int, scan: int, has_exif: bool) -> Header | None:
    if scan < frame + 10 or scan + 4 >= len(encoded):
        return None
    colours = encoded[frame + 9]
    sampling = encoded[frame + 11 : frame + 11 + 3 * colours : 3]
    if scan < frame + 10 + 3 * colours or not sampling:
        return None
    height, width = encoded[frame + 5 : frame + 7], encoded[frame + 7 : frame + 9]
    header = Header(
        height=int.from_bytes(height, "big"),
        width=int.from_bytes(width, "big"),
        at=frame,
        scan=scan,
        rows=8 * max(each & 15 for each in sampling),
        columns=8 * max(each >> 4 for each in sampling),
        single=encoded[frame + 1] in _AT_ONCE and encoded[scan + 4] == colours in (1, 3),
        has_exif=has_exif,
    )
    return header if header.height and header.width and header.rows and header.columns else None


def needed(plan: Plan, encoded: bytes, header: Header) -> tuple[np.ndarray, Plan]:
    """What a plan needs of a JPEG, uint8 RGB, and the plan for just that.

    Raises `ValueError` for what simplejpeg cannot decode, or reads otherwise than `header_of` does.
    """
    import simplejpeg

    factor = plan.factor
    if factor == 1 and (found := _part(plan, encoded, header)):
        return found
    if simplejpeg.decode_jpeg_header(encoded)[:2] != (header.height, header.width):
        raise ValueError("its size is not where it should be")
    small = (-(-header.height // factor), -(-header.width // factor))
    # What a part in fractions of a pixel is made of lies beyond it, too.
    bottom = plan.bottom if plan.whole or factor != 1 else header.height
    image = _upper_rows(encoded, bottom, header, factor)
    if image is None:
        least = {"min_height": small[0], "min_width": small[1]}
        image = simplejpeg.decode_jpeg(encoded, "RGB", min_factor=factor, **least)
        if image.shape[:2] != small:
            image, factor = simplejpeg.decode_jpeg(encoded, "RGB"), 1
    if factor == 1:
        return image, plan
    return image, plan.of_smaller(factor, image.shape[1], image.shape[0])


def _part(plan: Plan, encoded: bytes, header: Header) -> tuple[np.ndarray, Plan] | None:
    """What the plan needs of the image, or None where more of it must be decoded for that."""
    if plan.width * plan.height > _MOST_OF_IT * header.height * header.width:
        return None
    if not (plan.whole and header.single) or encoded.rfind(_END, header.at) < 0:
        return None
    box = (int(plan.left), int(plan.top), int(plan.left + plan.width), plan.bottom)
    found = turbojpeg.part(encoded, header.height, header.width, header.columns, box)
    return (found[0], plan.moved(-found[1], -box[1])) if found else None


def _upper_rows(encoded: bytes, bottom: int, header: Header, factor: int) -> np.ndarray | None:
    """The image's rows above `bottom`, or None where all of it must be decoded for them.

    A JPEG is decoded from the top, so one whose header gives a smaller height is decoded up to
    there, and what follows found to be left over. Colours take from one row of theirs more.
    """
    rows = -(-(bottom + 2 * factor) // header.rows) * header.rows
    if rows >= header.height or not (header.single and _rows_can_be_left_out()):
        return None
    return _rows(encoded, header.at, rows, header.width, factor)


def _rows(encoded: bytes, at: int, rows: int, width: int, factor: int) -> np.ndarray | None:
    import simplejpeg

    shorter = b"".join((encoded[: at + 5], rows.to_bytes(2, "big"), encoded[at + 7 :]))
    image = np.empty((-(-rows // factor), -(-width // factor), 3), np.uint8)
    small = {"min_height": image.shape[0], "min_width": image.shape[1]}
    try:
        got = simplejpeg.decode_jpeg(shorter, "RGB", min_factor=factor, buffer=image, **small)
        return got if got.shape == image.shape else None
    except ValueError as error:  # libjpeg names the first thing that was wrong
        return image if _LEFT_OVER.search(str(error)) else None


@functools.cache
def _rows_can_be_left_out() -> bool:
    # That the rows are there in spite of the error is nobody's promise: it is tried.
    import simplejpeg

    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    encoded = simplejpeg.encode_jpeg(image, colorsubsampling="420")
    header = header_of(encoded)
    rows = _rows(encoded, header.at, 32, 48, 1) if header else None
    return rows is not None and bool((rows[:30] == simplejpeg.decode_jpeg(encoded)[:30]).all())
