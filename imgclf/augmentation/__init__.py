"""What is random in an image and happens on the device: shifts, flips and mixtures of a batch.

A recipe's `augment` is a tuple of the kinds listed here, or of subclasses of `Augmentation`;
`compose` makes one function of them, which the training step calls inside `jit`.
"""

from imgclf.augmentation.base import Augmentation, compose, example_keys
from imgclf.augmentation.geometry import Crop, Flip, Translate
from imgclf.augmentation.mixing import Cutmix, Mixup, MixupOrCutmix

__all__ = [
    "Augmentation",
    "Crop",
    "Cutmix",
    "Flip",
    "Mixup",
    "MixupOrCutmix",
    "Translate",
    "compose",
    "example_keys",
]
