"""Images without labels, and none at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from imgclf.data.source import Source


@final
@dataclass(frozen=True)
class Empty(Source):
    """No images: what a task that learns from labels alone has of others."""

    def __len__(self) -> int:
        return 0

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    def labels(self) -> np.ndarray:
        return np.zeros((0, 0), np.float32)

    def ids(self) -> Sequence[str]:
        return ()

    def read(self, i: int) -> bytes:
        raise IndexError(f"`Empty` has no example {i}")
