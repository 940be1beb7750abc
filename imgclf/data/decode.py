"""From the bytes of an image file to RGB, whatever the format and the kind of pixels."""

import functools
import io
import math
import re
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from imgclf.data.plan import Plan
from imgclf.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

Decide = Callable[[int, int], Plan]
"""Of an image's height and width, upright; it answers the same when asked again."""

# What else Pillow can open is not for photographs, and some of it runs other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
_MOST_PIXELS = 178_956_970  # where Pillow, too, takes a file for an attack
_ORIENTATION = 0x0112
_BACK = {6: 8, 8: 6}  # the others undo themselves
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_MOST_OF_IT = 0.9  # of the image: with less to leave out, there is nothing to win
_END = b"\xff\xd9"
_LEFT_OVER = re.compile(r"extraneous bytes before marker 0xd9$")  # that of the image's end


class BadImage(Exception):  # noqa: N818 (it says what is bad, not who erred)
    """These bytes are not an image, or not the whole of one; the text is the reason, in a line."""


def decode(encoded: bytes, *, exif: bool = True) -> np.ndarray:
    """The image in a JPEG, PNG, WebP, GIF (first frame), TIFF, BMP or PPM file: uint8 (h, w, 3).

    Grey, palette, CMYK and 16-bit images come out as RGB; an alpha channel is dropped. `exif`:
    turned upright as the camera noted it. Raises `BadImage` for what is broken or cut short.

    A JPEG is the same to the bit as Pillow's (libjpeg-turbo's exact transform and smooth
    upsampling); the interpreter lock is released meanwhile.
    """
    if encoded[:2] == b"\xff\xd8":
        import simplejpeg

        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
            if int(height) * int(width) <= _MOST_PIXELS:
                image = simplejpeg.decode_jpeg(encoded, "RGB")
                return upright(image, _orientation(encoded)) if exif else image
        except ValueError:
            pass  # CMYK, odd markers, damage: Pillow takes more, and says better what is wrong
    return _decode_tolerantly(encoded, exif)


def decode_for(decide: Decide, encoded: bytes, *, exif: bool = True) -> tuple[np.ndarray, Plan]:
    """What is needed of an image for the plan that `decide` makes, and the plan for just that.

    The pixels are `decode`'s to the bit, unless the plan allows scaled decoding. Of a JPEG the rows
    below the needed ones are left out, and with TurboJPEG 3 what lies beside and above them; damage
    there goes unnoticed, unless the file ends early.
    """
    if encoded[:2] == b"\xff\xd8" and (not exif or _orientation(encoded) == 1):
        import simplejpeg

        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
            if int(height) * int(width) <= _MOST_PIXELS:
                return _jpeg_for(decide(height, width), encoded, height, width)
        except ValueError:
            pass
    image = decode(encoded, exif=exif)
    return image, decide(*image.shape[:2])


def _jpeg_for(plan: Plan, encoded: bytes, height: int, width: int) -> tuple[np.ndarray, Plan]:
    import simplejpeg

    factor = plan.factor
    if factor == 1 and (found := _part(plan, encoded, height, width)):
        return found
    small = (-(-height // factor), -(-width // factor))
    image = _upper_rows(encoded, plan.bottom, height, width, factor)
    if image is None:
        least = {"min_height": small[0], "min_width": small[1]}
        image = simplejpeg.decode_jpeg(encoded, "RGB", min_factor=factor, **least)
        if image.shape[:2] != small:
            image, factor = simplejpeg.decode_jpeg(encoded, "RGB"), 1
    if factor == 1:
        return image, plan
    return image, plan.of_smaller(factor, image.shape[1], image.shape[0])


def _part(plan: Plan, encoded: bytes, height: int, width: int) -> tuple[np.ndarray, Plan] | None:
    """What the plan needs of the image, or None where more of it must be decoded for that."""
    from imgclf.data import turbojpeg

    if plan.width * plan.height > _MOST_OF_IT * height * width or not turbojpeg.available():
        return None
    frame = _frame(encoded)
    if frame is None or encoded.rfind(_END, frame[0]) < 0:
        return None
    left, top = math.floor(plan.left), math.floor(plan.top)
    box = (left, top, math.ceil(plan.left + plan.width), plan.bottom)
    found = turbojpeg.part(encoded, height, width, frame[2], box)
    return (found[0], plan.moved(-found[1], -top)) if found else None


def _upper_rows(
    encoded: bytes, bottom: int, height: int, width: int, factor: int
) -> np.ndarray | None:
    """The image's rows above `bottom`, or None where all of it must be decoded for them.

    A JPEG is decoded from the top, so one whose header gives a smaller height is decoded up to
    there, and what follows found to be left over. Colours take from one row of theirs more.
    """
    frame = _frame(encoded)
    if frame is None or not _rows_can_be_left_out():
        return None
    at, block, _ = frame
    rows = -(-(bottom + 2 * factor) // block) * block
    if rows >= height:
        return None
    return _rows(encoded, at, rows, width, factor)


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
    frame = _frame(encoded)
    rows = _rows(encoded, frame[0], 32, 48, 1) if frame else None
    return rows is not None and bool((rows[:30] == simplejpeg.decode_jpeg(encoded)[:30]).all())


def _frame(encoded: bytes) -> tuple[int, int, int] | None:
    """Where a JPEG of a single scan describes its frame; the rows and columns coded together."""
    at, frame = 2, None
    while at + 4 <= len(encoded) and encoded[at] == 0xFF:
        marker, length = encoded[at + 1], int.from_bytes(encoded[at + 2 : at + 4], "big")
        if marker in (0xC0, 0xC1) and frame is None:
            frame = at
        elif 0xC2 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None  # progressive, or rarer
        elif marker == 0xDA:
            return _single(encoded, frame, at)
        at += 2 + length
    return None


def _single(encoded: bytes, frame: int | None, scan: int) -> tuple[int, int, int] | None:
    if frame is None or scan + 4 >= len(encoded):
        return None
    colours = encoded[frame + 9]
    if colours not in (1, 3) or encoded[scan + 4] != colours:
        return None
    sampling = encoded[frame + 11 : frame + 11 + 3 * colours : 3]
    return frame, 8 * max(each & 15 for each in sampling), 8 * max(each >> 4 for each in sampling)


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """The `image` (h, w, c) with EXIF's `orientation` (1 to 8; 1 is upright) undone."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """The `image` (h, w, 1 or 3) made grey or repeated, so that it has so many channels."""
    if image.shape[2] == 3 and channels == 1:  # ITU-R 601, as Pillow's "L"
        return np.rint(image @ np.array([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)
    if image.shape[2] == 1:
        return np.repeat(image, channels, axis=2)
    raise UserError(f"The images must have {channels} channels; got {image.shape[2]}")


def _orientation(encoded: bytes) -> int:
    head = encoded[: encoded.find(b"\xff\xda")]  # a JPEG's notes stand before its first scan
    if b"Exif\0\0" not in head:
        return 1
    try:
        with _pillow().open(io.BytesIO(encoded), formats=_FORMATS) as opened:
            return _noted(opened)
    except Exception:
        return 1  # a damaged note about the image, not a damaged image


def _noted(opened: "Image.Image") -> int:
    try:
        return opened.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1


def _decode_tolerantly(encoded: bytes, exif: bool) -> np.ndarray:
    if not encoded:
        raise BadImage("the file is empty")
    try:
        with _pillow().open(io.BytesIO(encoded), formats=_FORMATS) as opened:
            # Pillow turns a TIFF while it reads, and leaves no note.
            turned = _noted(opened) if opened.format == "TIFF" else 1
            image = _rgb(opened)
            return upright(image, _noted(opened) if exif else _BACK.get(turned, turned))
    except Exception as error:  # broken bytes make Pillow's readers raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        if "cannot identify" in reason:
            reason = f"not an image of a known format (it starts with {encoded[:8]!r})"
        raise BadImage(reason) from error


def _rgb(opened: "Image.Image") -> np.ndarray:
    opened.load()
    if opened.mode == "F":
        raise ValueError("its pixels are fractions, of no known range")
    if opened.mode.startswith("I"):  # 16 bits; of colours Pillow keeps the upper 8, too
        grey = np.asarray(opened)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(
                f"its pixels are whole numbers from {grey.min()} to {grey.max()}, of no known range"
            )
        if getattr(opened, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            grey = 65535 - grey  # as Pillow does with 8 bits
        grey = grey >> 8
        return np.repeat(grey[..., None].astype(np.uint8), 3, axis=2)
    if opened.mode in ("P", "PA"):
        return np.asarray(opened.convert("RGBA").convert("RGB"))
    return np.asarray(opened.convert("RGB"))


@functools.cache
def _pillow() -> ModuleType:
    from PIL import Image

    warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd notes in files that decode well
    return Image
