"""Which part of an image of any size becomes the network's square: on the host, as it is decoded.

All scaling is Pillow's, with anti-aliasing: a pixel is made of all those that it covers.
"""

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

from imgclf.errors import UserError, unknown
from imgclf.preprocess import Preprocess

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Geometry(abc.ABC):
    """How an image of any size becomes one of `preprocess.size` x `preprocess.size` pixels."""

    @abc.abstractmethod
    def __call__(
        self, image_hwc: np.ndarray, preprocess: Preprocess, rng: np.random.Generator
    ) -> np.ndarray:
        """The square, uint8 (size, size, c), of a uint8 image; what is random is drawn of `rng`."""


@final
@dataclass(frozen=True)
class Central(Geometry):
    """The middle, as for evaluation: the shorter side to size / crop, then the central square.

    timm's and torchvision's convention, to the pixel: `floor(size / crop)` for the shorter side,
    the longer one rounded down, the crop's corner rounded half to even.
    """

    def __call__(
        self, image_hwc: np.ndarray, preprocess: Preprocess, rng: np.random.Generator
    ) -> np.ndarray:
        size = preprocess.size
        height, width = image_hwc.shape[:2]
        shorter = math.floor(size / (preprocess.crop or 1.0))
        if width <= height:
            new_width, new_height = shorter, int(shorter * height / width)
        else:
            new_width, new_height = int(shorter * width / height), shorter
        # Not by Pillow's `box`, which changes the order of the passes, and levels by up to 12.
        whole = scaled(image_hwc, new_width, new_height, preprocess.interpolation)
        left, top = round((new_width - size) / 2), round((new_height - size) / 2)
        return whole[top : top + size, left : left + size]


@final
@dataclass(frozen=True)
class RandomResizedCrop(Geometry):
    """A random part of random proportions, as in most training on ImageNet (torchvision's rule).

    Ten draws of area and proportions; if none fits into the image, the largest central part of
    allowed proportions (Szegedy et al., 2015, "Going deeper with convolutions").
    """

    scale: tuple[float, float] = (0.08, 1.0)
    """Least and greatest share of the image's area, in (0, 1]."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and greatest width / height of the part; its logarithm is drawn evenly."""

    def __call__(
        self, image_hwc: np.ndarray, preprocess: Preprocess, rng: np.random.Generator
    ) -> np.ndarray:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(
                f"The `scale` of `RandomResizedCrop` must be two rising shares in (0, 1]; "
                f"got {self.scale}"
            )
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(
                f"The `ratio` of `RandomResizedCrop` must be two rising numbers above 0; "
                f"got {self.ratio}"
            )
        left, top, width, height = self.part(image_hwc.shape[1], image_hwc.shape[0], rng)
        part = image_hwc[top : top + height, left : left + width]
        return scaled(part, preprocess.size, preprocess.size, preprocess.interpolation)

    def part(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, top, width and height of the part of an image of `width` x `height`."""
        least, greatest = self.ratio
        for _ in range(10):
            area = width * height * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(least), math.log(greatest)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left = int(rng.integers(width - w + 1))
                return left, int(rng.integers(height - h + 1)), w, h
        w = min(width, max(1, round(height * greatest)))
        h = min(height, max(1, round(width / least)))
        return (width - w) // 2, (height - h) // 2, w, h


@final
@dataclass(frozen=True)
class Squash(Geometry):
    """The whole image, its proportions given up."""

    def __call__(
        self, image_hwc: np.ndarray, preprocess: Preprocess, rng: np.random.Generator
    ) -> np.ndarray:
        return scaled(image_hwc, preprocess.size, preprocess.size, preprocess.interpolation)


def scaled(image_hwc: np.ndarray, width: int, height: int, interpolation: str) -> np.ndarray:
    """A uint8 image of any number of channels at `width` x `height` pixels.

    `interpolation`: nearest, bilinear (also if empty), bicubic or area.
    """
    from PIL import Image

    channels = image_hwc.shape[2]
    if channels not in (1, 3):  # Pillow would take a fourth channel for an alpha
        planes = [
            scaled(image_hwc[..., [c]], width, height, interpolation) for c in range(channels)
        ]
        return np.concatenate(planes, axis=2)
    picture = Image.fromarray(image_hwc[..., 0] if channels == 1 else image_hwc)
    small = picture.resize((width, height), _filter(interpolation))
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
