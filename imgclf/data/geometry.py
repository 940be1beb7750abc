"""Which part of an image of any size becomes the network's square, on the host."""

import abc
import math
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from imgclf.data.plan import FILLS, Plan, carried_out
from imgclf.errors import UserError, unknown
from imgclf.preprocess import Preprocess

_TRIES = {"torchvision": 10, "tensorflow": 100}
_COVERED = 0.1  # `min_object_covered`, where the object is the whole image


@dataclass(frozen=True)
class Geometry(abc.ABC):
    """How an image of any size becomes one of `preprocess.size` x `preprocess.size` pixels."""

    @abc.abstractmethod
    def __call__(
        self, image_hwc: np.ndarray, preprocess: Preprocess, rng: np.random.Generator
    ) -> np.ndarray:
        """The square, uint8 (size, size, c), of a uint8 image; what is random is drawn of `rng`."""


@dataclass(frozen=True)
class Planned(Geometry):
    """A geometry that needs to know no more of an image than its height and width."""

    @abc.abstractmethod
    def plan(
        self, height: int, width: int, preprocess: Preprocess, rng: np.random.Generator
    ) -> Plan:
        """What becomes of an image of `height` x `width`."""

    def __call__(
        self, image_hwc: np.ndarray, preprocess: Preprocess, rng: np.random.Generator
    ) -> np.ndarray:
        plan = self.plan(image_hwc.shape[0], image_hwc.shape[1], preprocess, rng)
        return carried_out(plan, image_hwc, preprocess)


@final
@dataclass(frozen=True)
class Central(Planned):
    """The middle, as for evaluation: the shorter side to size / crop, then the central square.

    timm's and torchvision's convention, to the pixel: `floor(size / crop)` for the shorter side,
    the longer one rounded down, the crop's corner rounded half to even. Where the `crop_mode` of
    `preprocess` is "squash" both sides become as long as the shorter one, as timm has it; where it
    is "pad_black", "pad_mean" or "pad_reflect", it is `Pad`.
    """

    def plan(
        self, height: int, width: int, preprocess: Preprocess, rng: np.random.Generator
    ) -> Plan:
        size = preprocess.size
        if pad := _PADS.get(preprocess.crop_mode):
            return pad.plan(height, width, preprocess, rng)
        shorter = math.floor(size / (preprocess.crop or 1.0))
        if preprocess.crop_mode == "squash":
            new_width = new_height = shorter
        elif width <= height:
            new_width, new_height = shorter, int(shorter * height / width)
        else:
            new_width, new_height = int(shorter * width / height), shorter
        # Not by Pillow's `box`, which changes the order of the passes, and levels by up to 12.
        left, top = round((new_width - size) / 2), round((new_height - size) / 2)
        return Plan(0, 0, width, height, new_width, new_height, left, top)


@final
@dataclass(frozen=True)
class RandomResizedCrop(Planned):
    """A random part of random proportions, as in most training on ImageNet.

    Szegedy et al., 2015, "Going deeper with convolutions", in one of the two conventions:

    - torchvision: ten draws of area and, evenly in its logarithm, of width / height; if none fits
      into the image, the largest central part of allowed proportions;
    - tensorflow: `tf.image.sample_distorted_bounding_box` with the whole image as its box and
      `min_object_covered` 0.1: at most 100 draws of width / height, evenly, and of the height,
      evenly among those of allowed area; if none fits, the central square of 7/8 of the shorter
      side, as in TensorFlow's recipes for ImageNet. The rule is theirs, the random numbers are not.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    """Least and greatest share of the image's area, in (0, 1]."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and greatest width / height of the part."""
    convention: Literal["torchvision", "tensorflow"] = "torchvision"
    """Whose rule it is."""
    scaled_decoding: bool = False
    """Decode JPEGs at 1/2, 1/4 or 1/8 where at least 1.5 px are left for each one: faster for large
    photographs, within 1 grey level on average of the exact image, and not the same to the bit."""

    def plan(
        self, height: int, width: int, preprocess: Preprocess, rng: np.random.Generator
    ) -> Plan:
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
        if self.convention not in _TRIES:
            raise unknown("convention", self.convention, _TRIES)
        part = self.part(width, height, rng)
        size = preprocess.size
        return Plan(*part, size, size, scaled_decoding=self.scaled_decoding)

    def part(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Left, top, width and height of the part of an image of `width` x `height`."""
        draw = _as_torchvision if self.convention == "torchvision" else _as_tensorflow
        for _ in range(_TRIES[self.convention]):
            found = draw(width, height, self.scale, self.ratio, rng)
            if found is not None:
                return found
        if self.convention == "tensorflow":
            w = h = max(1, min(width, height) * 7 // 8)
        else:
            w = min(width, max(1, round(height * self.ratio[1])))
            h = min(height, max(1, round(width / self.ratio[0])))
        return (width - w) // 2, (height - h) // 2, w, h


@final
@dataclass(frozen=True)
class Squash(Planned):
    """The whole image, its proportions given up."""

    def plan(
        self, height: int, width: int, preprocess: Preprocess, rng: np.random.Generator
    ) -> Plan:
        return Plan(0, 0, width, height, preprocess.size, preprocess.size)


@final
@dataclass(frozen=True)
class Pad(Planned):
    """The whole image with its proportions: the longer side to size, the rest filled evenly.

    In evaluation and prediction, too, where the `crop_mode` of `Preprocess` says so.
    """

    fill: Literal["black", "mean", "reflect"] = "black"
    """What is put beside it: black, the mean of `Preprocess` (which becomes 0 to the network), or
    the image reflected at its border."""

    def plan(
        self, height: int, width: int, preprocess: Preprocess, rng: np.random.Generator
    ) -> Plan:
        if self.fill not in FILLS:
            raise unknown("fill", self.fill, FILLS)
        size, longer = preprocess.size, max(height, width)
        new_width = max(1, round(size * width / longer))
        new_height = max(1, round(size * height / longer))
        left, top = (size - new_width) // 2, (size - new_height) // 2
        return Plan(0, 0, width, height, new_width, new_height, -left, -top, self.fill)


_PADS = {
    "pad_black": Pad("black"),
    "pad_mean": Pad("mean"),
    "pad_reflect": Pad("reflect"),
}


def _as_torchvision(
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int] | None:
    area = width * height * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if not (0 < w <= width and 0 < h <= height):
        return None
    left = int(rng.integers(width - w + 1))
    return left, int(rng.integers(height - h + 1)), w, h


def _as_tensorflow(
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int] | None:
    least, greatest = (share * width * height for share in scale)
    aspect = rng.uniform(*ratio)
    h = round(math.sqrt(least / aspect))
    highest = round(math.sqrt(greatest / aspect))
    if round(highest * aspect) > width:
        highest = int((width + 0.5 - 1e-7) / aspect)
        highest -= round(highest * aspect) > width
    highest = min(highest, height)
    h = h + int(rng.integers(highest - h + 1)) if h < highest else highest
    w = round(h * aspect)
    if w * h < least:  # by rounding
        h += 1
    elif w * h > greatest:
        h -= 1
    w = round(h * aspect)
    if not (least <= w * h <= greatest and 0 < w <= width and 0 < h <= height):
        return None
    if w * h < _COVERED * width * height:
        return None
    # As there, the last place on the right and at the bottom is never taken.
    top = int(rng.integers(height - h)) if h < height else 0
    return (int(rng.integers(width - w)) if w < width else 0), top, w, h
