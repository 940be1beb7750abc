"""Seeded noise, for measuring speed without any data."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import final

import numpy as np

from imgclf.data.source import Source, numbered
from imgclf.errors import UserError

_LABELS = 2**64 - 1  # an image number that no image has


@final
@dataclass(frozen=True)
class Synthetic(Source):
    """Images of independent random bytes, with random labels: nothing can be learned from them."""

    n: int = 1280
    """How many examples there are."""
    size: int = 224
    """Side of the square images, in px."""
    channels: int = 3
    """How many channels the images have."""
    num_classes: int = 1000
    """How many classes there are."""
    seed: int = 0
    """Chooses every image and label."""

    def __len__(self) -> int:
        for field in fields(self):
            least = {"seed": 0, "num_classes": 2}.get(field.name, 1)
            value = getattr(self, field.name)
            if value < least:
                raise UserError(
                    f"The `{field.name}` of `Synthetic` must be {least} or more; got {value}"
                )
        return self.n

    @property
    def classes(self) -> tuple[str, ...]:
        return numbered(self.num_classes)

    def labels(self) -> np.ndarray:
        return (self._bits(_LABELS, len(self)) % np.uint64(self.num_classes)).astype(np.int32)

    def ids(self) -> Sequence[str]:
        return [f"noise{i}" for i in range(len(self))]

    def read(self, i: int) -> np.ndarray:
        shape = (self.size, self.size, self.channels)
        count = self.size * self.size * self.channels
        return self._bits(i, -(-count // 8)).view(np.uint8)[:count].reshape(shape)

    def _bits(self, stream: int, count: int) -> np.ndarray:
        return np.random.Philox(key=np.array([self.seed, stream], np.uint64)).random_raw(count)
