"""Files of torchvision's networks that have other names there than in timm: their arrays as timm's.

Each family's `from_file` says which names are which. All of these weights but one want images
normalised by ImageNet's mean and standard deviation, whatever timm's of the same network want.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from imgclf.preprocess import IMAGENET, Preprocess

_KNOWN_BY = (
    "features.0.0.weight",  # MobileNet, EfficientNet, ConvNeXt, Swin
    "layers.0.weight",  # MNASNet
    "trunk_output.block1.block1-0.proj.0.weight",  # RegNet
    "conv_proj.weight",  # vision transformers
)
_EFFICIENTNETV2_L = "features.7.6.block.0.0.weight"


def preprocess_of(names: Collection[str]) -> Preprocess:
    """What is known of the images by a file's names: mean and deviation, or nothing."""
    if not any(name in names for name in _KNOWN_BY):
        return Preprocess()
    if _EFFICIENTNETV2_L in names:
        return Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3)
    return Preprocess(mean=IMAGENET.mean, std=IMAGENET.std)


Names = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
"""Patterns, and what takes the place of what they find: arguments of `re.sub`."""


def renamed(stored: Mapping[str, np.ndarray], names: Names) -> dict[str, np.ndarray]:
    r"""The arrays under the names that all replacements, made in turn, leave.

    >>> renamed({"ln_1.bias": 3, "head.bias": 4}, [(r"^ln_(\d)\.", r"norm\1."), ("bias", "b")])
    {'norm1.b': 3, 'head.b': 4}
    """
    found = {}
    for name, array in stored.items():
        for pattern, replacement in names:
            name = re.sub(pattern, replacement, name)
        found[name] = array
    return found


def in_order(stored: Mapping[str, np.ndarray], modules: Sequence[str]) -> Mapping[str, np.ndarray]:
    """The arrays under the names of `modules`, which images pass in that order.

    There, layers are numbered in it: as "features.1.conv.0.0", with the classifier's last. A file
    that has not as many is given back as it is.

    >>> in_order({"features.0.1.bias": 1, "features.0.0.bias": 2}, ["conv", "bn"])
    {'bn.bias': 1, 'conv.bias': 2}
    """

    def place(module: str) -> tuple:
        parts = re.findall(r"\d+", module)
        return module.startswith("classifier"), *map(int, parts)

    theirs = sorted({name.rpartition(".")[0] for name in stored}, key=place)
    if len(theirs) != len(modules):
        return stored
    ours = dict(zip(theirs, modules, strict=True))
    parts = ((name.rpartition("."), array) for name, array in stored.items())
    return {f"{ours[module]}.{last}": array for (module, _, last), array in parts}
