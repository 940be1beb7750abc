"""What becomes of an image, decided by its height and width alone, and how that is carried out.

All scaling is as Pillow's, with anti-aliasing: a pixel is made of all those that it covers.
"""

import dataclasses
import functools
import math
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import final

import numpy as np

from imgclf.errors import UserError, unknown
from imgclf.preprocess import Preprocess

_ROUNDING = 1e-6  # px
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
    def whole(self) -> bool:
        """Whether the part consists of whole pixels."""
        return all(float(x).is_integer() for x in (self.left, self.top, self.width, self.height))

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

    def moved(self, right: int, down: int) -> "Plan":
        """The same where the image begins further to the left and above."""
        return dataclasses.replace(self, left=self.left + right, top=self.top + down)

    def of_smaller(self, factor: int, width: int, height: int) -> "Plan":
        """The same of an image that was made `factor` times smaller, to `width` x `height`."""
        left, top = self.left / factor, self.top / factor
        right = min(width, (self.left + self.width) / factor)
        bottom = min(height, (self.top + self.height) / factor)
        whole = dataclasses.replace(self, left=left, top=top, scaled_decoding=False)
        return dataclasses.replace(whole, width=right - left, height=bottom - top)


def carried_out(plan: Plan, image_hwc: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """The square of `preprocess` that `plan` makes of an image, of which no more need be there
    than the rows above `plan.bottom`, where the part consists of whole pixels."""
    size, interpolation = preprocess.size, preprocess.interpolation
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
    """A uint8 image of any number of channels at `width` x `height` pixels, as Pillow scales it.

    `interpolation`: nearest, bilinear (also if empty), bicubic or area. `box`: the part to take, as
    left, top, right and bottom. Where these are fractions of a pixel, what lies beside the part has
    a say at its rim.
    """
    if interpolation not in _KINDS:
        raise unknown("interpolation", interpolation, [kind for kind in _KINDS if kind])
    rows, columns, channels = image_hwc.shape
    part = (0, 0, columns, rows)
    box = box or part
    inside = (
        0 <= box[0] < box[2] <= columns + _ROUNDING and 0 <= box[1] < box[3] <= rows + _ROUNDING
    )
    if not inside or width < 1 or height < 1:
        raise UserError(
            f"A part of an image of {columns} x {rows} px to be scaled must lie in it, and become "
            f"1 x 1 px at least; got left, top, right, bottom = {box}, scaled to {width} x {height}"
        )
    if all(float(side).is_integer() for side in box):
        part = (int(box[0]), int(box[1]), int(box[2] - box[0]), int(box[3] - box[1]))
        box = (0, 0, *part[2:])
    compiled = _compiled()
    if compiled and interpolation != "nearest":
        kind = getattr(compiled, _KINDS[interpolation])
        pixels = np.ascontiguousarray(image_hwc).reshape(rows, columns * channels)
        new = compiled.resampled(pixels, channels, part, box, (width, height), kind)
        return new[:, : width * channels].reshape(height, width, channels)
    left, top = part[:2]
    cut = image_hwc[top : top + part[3], left : left + part[2]]
    planes = [_by_pillow(cut[..., c], width, height, interpolation, box) for c in range(channels)]
    return np.stack(planes, axis=2)


_KINDS = {
    "": "BILINEAR",
    "nearest": "NEAREST",
    "bilinear": "BILINEAR",
    "bicubic": "BICUBIC",
    "area": "BOX",
}
"""What Pillow calls them."""


def _by_pillow(
    image_hw: np.ndarray,
    width: int,
    height: int,
    interpolation: str,
    box: tuple[float, float, float, float],
) -> np.ndarray:
    from PIL import Image

    kind = Image.Resampling[_KINDS[interpolation]]
    return np.asarray(Image.fromarray(image_hw).resize((width, height), kind, box))


@functools.cache
def _compiled() -> ModuleType | None:
    try:
        from imgclf.data import resample
    except Exception as error:  # of a broken installation, which Pillow does without
        warnings.warn(
            f"images are scaled by Pillow, at a third of the speed: {error}", stacklevel=2
        )
        return None
    return resample
