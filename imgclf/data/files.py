"""Images without labels: the files, or arrays, that a prediction is asked for."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from imgclf.data.source import Source


@final
@dataclass(frozen=True)
class Files(Source):
    """Image files by path, or uint8 (h, w, c) arrays; every label is 0."""

    images: tuple[str | os.PathLike[str] | np.ndarray, ...]
    """What is to be looked at."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def classes(self) -> tuple[str, ...]:
        return ("unknown",)

    def labels(self) -> np.ndarray:
        return np.zeros(len(self.images), np.int32)

    def ids(self) -> Sequence[str]:
        return [
            f"image {i}" if isinstance(image, np.ndarray) else os.fspath(image)
            for i, image in enumerate(self.images)
        ]

    def read(self, i: int) -> bytes | np.ndarray:
        image = self.images[i]
        return image if isinstance(image, np.ndarray) else Path(image).read_bytes()
