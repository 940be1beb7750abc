"""From the bytes of an image file to RGB, whatever the format and the kind of pixels."""

import functools
import io
import warnings
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from imgclf.data import jpeg
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
                header = jpeg.header_of(encoded)
                return upright(image, _orientation(encoded, header)) if exif else image
        except ValueError:
            pass  # CMYK, odd markers, damage: Pillow takes more, and says better what is wrong
    return _decode_tolerantly(encoded, exif)


def decode_for(decide: Decide, encoded: bytes, *, exif: bool = True) -> tuple[np.ndarray, Plan]:
    """What is needed of an image for the plan that `decide` makes, and the plan for just that.

    The pixels are `decode`'s to the bit, unless the plan allows scaled decoding. Of a JPEG the rows
    below the needed ones are left out, and with TurboJPEG 3 what lies beside and above them; damage
    there goes unnoticed, unless the file ends early.
    """
    return begin(decide, encoded, exif=exif)()


def begin(
    decide: Decide, encoded: bytes, *, exif: bool = True
) -> Callable[[], tuple[np.ndarray, Plan]]:
    """What `decode_for` does, with all that is quick done at once: the rest is to be called."""
    header = jpeg.header_of(encoded)
    if header is None or not _as_it_lies(encoded, header, exif):
        return partial(_decode_whole, decide, encoded, exif)
    plan = decide(header.height, header.width)
    return partial(_decode_needed, plan, header, decide, encoded, exif)


def _decode_needed(
    plan: Plan, header: jpeg.Header, decide: Decide, encoded: bytes, exif: bool
) -> tuple[np.ndarray, Plan]:
    try:
        return jpeg.needed(plan, encoded, header)
    except ValueError:
        return _decode_whole(decide, encoded, exif)


def _decode_whole(decide: Decide, encoded: bytes, exif: bool) -> tuple[np.ndarray, Plan]:
    image = decode(encoded, exif=exif)
    return image, decide(*image.shape[:2])


def _as_it_lies(encoded: bytes, header: jpeg.Header, exif: bool) -> bool:
    turned = exif and _orientation(encoded, header) != 1
    return not turned and header.height * header.width <= _MOST_PIXELS


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


def _orientation(encoded: bytes, header: jpeg.Header | None) -> int:
    if not (header.has_exif if header else b"Exif\0\0" in encoded):
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
