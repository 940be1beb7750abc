"""What an image goes through before a network sees it, as a value."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

from imgclf.errors import UserError, unknown

Interpolation = Literal["", "nearest", "bilinear", "bicubic", "area"]
CropMode = Literal["", "center", "squash", "pad_black", "pad_mean", "pad_reflect"]


@dataclass(frozen=True)
class Preprocess:
    """Size, crop and normalisation of the images that a network takes.

    A field left empty (0 or "" or ()) is the network's own; `over` fills it. Evaluation scales the
    shorter side to `size / crop` (both sides, where `crop_mode` is "squash") and takes the central
    `size` x `size`, or scales the longer side to `size` and fills the rest (`crop_mode` "pad_...");
    then `(image / 255 - mean) / std` is applied on the device.
    """

    size: int = 0
    """Side of the square image, in px; 0: the network's own, or what the training images have."""
    crop: float = 0.0
    """Share of the shorter side that the central crop keeps, in (0, 1]; 0: the network's own."""
    crop_mode: CropMode = ""
    """center keeps an image's proportions, squash does not, and pad_black, pad_mean and pad_reflect
    keep all of the image as `Pad` does in training; empty: the network's own."""
    interpolation: Interpolation = ""
    """How images are scaled (always with anti-aliasing); empty: the network's own."""
    mean: tuple[float, ...] = ()
    """Mean of each channel, or of all, on the scale of 0 to 1; empty: the network's own."""
    std: tuple[float, ...] = ()
    """Standard deviation of each channel, or of all, on that scale; empty: the network's own."""

    def over(self, default: "Preprocess") -> "Preprocess":
        """This value with its empty fields taken from `default`."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return dataclasses.replace(default, **{name: value for name, value in own.items() if value})

    def for_channels(self, channels: int) -> "Preprocess":
        """This value, of a network or its weights, for images of so many channels.

        Of grey ones mean and deviation are the averages over colours. Else they stay as they are,
        and `check` says whether that will do.

        >>> IMAGENET.for_channels(1).mean
        (0.449,)
        """
        if channels != 1:
            return self
        return dataclasses.replace(self, mean=_average(self.mean), std=_average(self.std))

    def check(self, channels: int) -> None:
        """Raises a `UserError` where the value makes no sense for images of so many channels."""
        if self.size < 0:
            raise UserError(f"The `size` of `Preprocess` must be 0 or more px; got {self.size}")
        if not 0 <= self.crop <= 1:
            raise UserError(f"The `crop` of `Preprocess` must lie in (0, 1]; got {self.crop}")
        if self.crop_mode not in get_args(CropMode):
            raise unknown("crop mode", self.crop_mode, get_args(CropMode)[1:])
        for name in ("mean", "std"):
            value = getattr(self, name)
            if len(value) not in (1, channels):
                allowed = f"1 or {channels} values" if channels > 1 else "1 value"
                raise UserError(
                    f"The `{name}` of `Preprocess` must have {allowed}, for images of {channels} "
                    f"channel{'s' if channels > 1 else ''}; got {len(value)}"
                )
        if not all(0 <= mean <= 1 for mean in self.mean):
            raise UserError(
                "The `mean` of `Preprocess` must lie in [0, 1], the scale of `image / 255`; got "
                f"{self.mean}"
            )
        if not all(0 < deviation <= 1 for deviation in self.std):
            raise UserError(
                "The `std` of `Preprocess` must lie in (0, 1], the scale of `image / 255`; got "
                f"{self.std}"
            )


def _average(values: tuple[float, ...]) -> tuple[float, ...]:
    return (sum(values) / len(values),) if values else ()


IMAGENET = Preprocess(
    size=224,
    crop=0.875,
    crop_mode="center",
    interpolation="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
"""What most ImageNet weights were trained with."""

PLAIN = Preprocess(
    size=0, crop=1.0, crop_mode="center", interpolation="bilinear", mean=(0.5,), std=(0.5,)
)
"""For networks that take any size: images as they are, scaled to -1 to 1."""
