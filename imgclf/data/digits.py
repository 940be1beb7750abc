"""Scikit-learn's 1,797 handwritten digits: real data that needs no download."""

import gzip
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, final

import numpy as np

from imgclf.data.source import Source, numbered
from imgclf.data.splits import stratified
from imgclf.errors import UserError, unknown


@final
@dataclass(frozen=True)
class Digits(Source):
    """Handwritten digits, 8 x 8 grey pixels, split by class in proportion.

    They are the test part of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak
    1998), 0 to 16 there and scaled to 0 to 255 here.
    """

    split: Literal["train", "test", "all"] = "train"
    """Which part this is."""
    held_out: int = 360
    """How many of the 1,797 are the test part."""
    seed: int = 0
    """Chooses the test part."""

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def classes(self) -> tuple[str, ...]:
        return numbered(10)

    def labels(self) -> np.ndarray:
        return self._table[self._chosen, 64].astype(np.int32)

    def ids(self) -> Sequence[str]:
        return [f"digit{row:04d}" for row in self._chosen]

    def read(self, i: int) -> np.ndarray:
        return self._images[i]

    @cached_property
    def _images(self) -> np.ndarray:
        grey = np.rint(self._table[self._chosen, :64] * (255 / 16))
        return grey.astype(np.uint8).reshape(-1, 8, 8, 1)

    @cached_property
    def _table(self) -> np.ndarray:
        # Importing scikit-learn takes 1.6 s, reading its file 0.03 s.
        package = importlib.util.find_spec("sklearn")
        if package is None or package.origin is None:
            raise UserError("`Digits` must find scikit-learn; type: pip install scikit-learn")
        with gzip.open(Path(package.origin).parent / "datasets/data/digits.csv.gz", "rt") as file:
            return np.loadtxt(file, dtype=np.uint8, delimiter=",")

    @cached_property
    def _chosen(self) -> np.ndarray:
        if self.split not in ("train", "test", "all"):
            raise unknown("split of `Digits`", self.split, ("train", "test", "all"))
        if self.split == "all":
            return np.arange(len(self._table))
        train, test = stratified(self._table[:, 64], self.held_out, self.seed)
        return train if self.split == "train" else test
