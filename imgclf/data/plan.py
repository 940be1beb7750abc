"""What becomes of an image, decided by its height and width alone, and how that is carried out.

All scaling is Pillow's, with anti-aliasing: a pixel is made of all those that it covers.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.lib.stride_tricks import as_strided

from imgclf.errors import unknown
from imgclf.preprocess import Preprocess

if TYPE_CHECKING:
    from PIL import Image

FILLS = ("black", "mean", "reflect")


@final
@dataclass(frozen=True)
class Plan:
    """What becomes of an image of known size: a part of it, scaled; then a window of that."""

    left: float
    """The part's place and size, in px of the image."""
    top: float
    width: float
    height: float
    new_width: int
    """What the part is scaled to."""
    new_height: int
    left_cut: int = 0
    """The window's corner in the scaled part; where the window reaches beyond, `fill` shows."""
    top_cut: int = 0
    fill: str = "black"
    """black, mean or reflect."""
    scaled_decoding: bool = False
    """Whether a JPEG may be decoded at a half, a quarter or an eighth of its size for this."""

    @property
    def bottom(self) -> int:
        """So many of the image's rows are needed."""
        return math.ceil(self.top + self.height)

    @property
    def factor(self) -> int:
        """By how much the image may be made smaller before: 1, 2, 4 or 8.

        The part keeps at least 1.5 px for each one of the scaled part, or details would be lost.
        """
        if not self.scaled_decoding:
            return 1
        room = min(self.width / self.new_width, self.height / self.new_height) / 1.5
        return next((factor for factor in (8, 4, 2) if room >= factor), 1)

    def of_smaller(self, factor: int, width: int, height: int) -> "Plan":
        """The same of an image that was made `factor` times smaller, to `width` x `height`."""
        left, top = self.left / factor, self.top / factor
        right = min(width, (self.left + self.width) / factor)
        bottom = min(height, (self.top + self.height) / factor)
        whole = dataclasses.replace(self, left=left, top=top, scaled_decoding=False)
        return dataclasses.replace(whole, width=right - left, height=bottom - top)


def carried_out(plan: Plan, image_hwc: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """The square of `preprocess` that `plan` makes of an image, of which no more need be there
    than the rows above `plan.bottom`."""
    size, interpolation = preprocess.size, preprocess.interpolation
    corner = (plan.left, plan.top, plan.width, plan.height)
    left, top, width, height = map(int, corner)
    box = None
    if (left, top, width, height) == corner:  # the pixels beside the part do not matter
        image_hwc = image_hwc[top : top + height, left : left + width]
    else:
        box = (plan.left, plan.top, plan.left + plan.width, plan.top + plan.height)
    new = scaled(image_hwc, plan.new_width, plan.new_height, interpolation, box)
    left, top = plan.left_cut, plan.top_cut
    before, after = (max(0, -top), max(0, -left)), (top + size, left + size)
    beside = [
        (n, max(0, end - side)) for n, end, side in zip(before, after, new.shape, strict=False)
    ]
    if any(map(any, beside)):
        new = _padded(new, beside, preprocess, plan.fill)
    left, top = max(0, left), max(0, top)
    return new[top : top + size, left : left + size]


def _padded(
    image_hwc: np.ndarray, beside: list[tuple[int, int]], preprocess: Preprocess, fill: str
) -> np.ndarray:
    if fill == "reflect":
        return np.pad(image_hwc, [*beside, (0, 0)], "symmetric")
    height, width, channels = image_hwc.shape
    (top, below), (left, right) = beside
    mean = preprocess.mean if fill == "mean" and preprocess.mean else (0.0,)
    levels = np.rint(255 * np.resize(np.array(mean), channels)).astype(np.uint8)
    canvas = np.tile(levels, (top + height + below, left + width + right, 1))
    canvas[top : top + height, left : left + width] = image_hwc
    return canvas


def scaled(
    image_hwc: np.ndarray,
    width: int,
    height: int,
    interpolation: str,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """A uint8 image of any number of channels at `width` x `height` pixels.

    `interpolation`: nearest, bilinear (also if empty), bicubic or area. `box`: the part to take, as
    left, top, right and bottom, in fractions of a pixel; what lies beside it has a say at its rim.
    """
    from PIL import Image

    channels = image_hwc.shape[2]
    if channels not in (1, 3):  # Pillow would take a fourth channel for an alpha
        planes = [
            scaled(image_hwc[..., [c]], width, height, interpolation, box) for c in range(channels)
        ]
        return np.concatenate(planes, axis=2)
    stride = image_hwc.strides[0]
    if channels == 3 and image_hwc.strides[1:] == (3, 1) and stride > 0:  # a part, without a copy
        rows, columns = image_hwc.shape[:2]
        pixels = as_strided(image_hwc, ((rows - 1) * stride + 3 * columns,), (1,))
        picture = Image.frombuffer("RGB", (columns, rows), pixels, "raw", "RGB", stride, 1)
    else:
        picture = Image.fromarray(image_hwc[..., 0] if channels == 1 else image_hwc)
    small = picture.resize((width, height), _filter(interpolation), box)
    return np.asarray(small).reshape(height, width, channels)


def _filter(interpolation: str) -> "Image.Resampling":
    from PIL.Image import Resampling

    filters = {
        "": Resampling.BILINEAR,
        "nearest": Resampling.NEAREST,
        "bilinear": Resampling.BILINEAR,
        "bicubic": Resampling.BICUBIC,
        "area": Resampling.BOX,
    }
    if interpolation not in filters:
        raise unknown("interpolation", interpolation, filters)
    return filters[interpolation]
