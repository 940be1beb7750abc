"""What a network said of each example of a source, with the truth: in memory and as a folder."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from imgclf.errors import UserError

_PIECES = 16  # that labels are looked at in: the first is often enough, and little memory


def are_sets(labels: np.ndarray, independent: bool = False) -> bool:
    """Whether the labels (n, k) are sets of classes: all of them 0 or 1, and not always one of k.

    One of k is a set, too, where classes are `independent`. All other labels (n, k) are soft ones.
    """
    if labels.ndim != 2 or not all(map(_is_zero_or_one, np.array_split(labels, _PIECES))):
        return False
    return independent or bool((labels.sum(axis=1) != 1).any())


@dataclass(frozen=True, eq=False)
class Predictions:
    """The logits of n examples, their labels and names, and the names of the k classes.

    As a folder: `logits.npy`, `labels.npy`, `ids.json` and `classes.json` (lists of text, one a
    line), and an empty file `independent` where classes are. Nothing in it is ever run or
    unpickled.
    """

    logits: np.ndarray
    """float32 (n, k)."""
    labels: np.ndarray
    """int32 (n,), or float32 (n, k) where labels are soft, or sets of classes (`are_sets`)."""
    ids: Sequence[str]
    """A name for each example, such as its relative path."""
    classes: tuple[str, ...]
    """A name for each class."""
    independent: bool = False
    """Whether each class was judged by itself, as where an image may be of several."""

    def probabilities(self) -> np.ndarray:
        """The softmax of the logits, or of each its sigmoid where classes are `independent`.

        float32 (n, k), computed in float64.
        """
        shifted = self.logits.astype(np.float64)
        if self.independent:
            return (0.5 + 0.5 * np.tanh(0.5 * shifted)).astype(np.float32)
        shifted -= shifted.max(axis=1, keepdims=True)
        np.exp(shifted, out=shifted)
        return (shifted / shifted.sum(axis=1, keepdims=True)).astype(np.float32)

    def of_present_classes(self) -> "Predictions":
        """The same among the classes alone that an example is labelled with.

        As ImageNet-A and ImageNet-R are evaluated, whose images show 200 of the thousand.
        """
        soft = self.labels.ndim == 2
        present = np.flatnonzero(self.labels.any(axis=0)) if soft else np.unique(self.labels)
        return replace(
            self,
            logits=self.logits[:, present],
            labels=self.labels[:, present]
            if soft
            else np.searchsorted(present, self.labels).astype(np.int32),
            classes=tuple(self.classes[i] for i in present),
        )

    def check(self) -> None:
        """Raises a `UserError` where the parts do not fit each other."""
        examples, classes = len(self.ids), len(self.classes)
        if self.logits.shape != (examples, classes):
            raise UserError(
                f"The `logits` of `Predictions` must be ({examples}, {classes}), for {examples} "
                f"ids and {classes} classes; got {self.logits.shape}"
            )
        if self.labels.shape not in ((examples,), (examples, classes)):
            raise UserError(
                f"The `labels` of `Predictions` must be ({examples},) or ({examples}, {classes}); "
                f"got {self.labels.shape}"
            )
        if self.labels.ndim == 1 and not np.all((self.labels >= 0) & (self.labels < classes)):
            raise UserError(
                f"The `labels` of `Predictions` must lie in 0 to {classes - 1}; "
                f"got {self.labels.min()} to {self.labels.max()}"
            )

    def save(self, folder: str | Path) -> None:
        """Writes the folder beside its place, then moves it there, in place of an older one."""
        self.check()
        folder = Path(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            new = work / "new"
            new.mkdir()
            np.save(new / "logits.npy", self.logits.astype(np.float32), allow_pickle=False)
            np.save(new / "labels.npy", self.labels, allow_pickle=False)
            _write_names(new / "ids.json", self.ids)
            _write_names(new / "classes.json", self.classes)
            if self.independent:
                (new / "independent").touch()
            if folder.exists():
                os.replace(folder, work / "old")
            os.replace(new, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    @classmethod
    def load(cls, folder: str | Path) -> "Predictions":
        """What `save` wrote; a `UserError` where the folder is absent or damaged."""
        folder = Path(folder)
        if not (folder / "logits.npy").is_file():
            raise UserError(f"No predictions at {folder} (no logits.npy there)")
        try:
            predictions = cls(
                logits=np.load(folder / "logits.npy", allow_pickle=False),
                labels=np.load(folder / "labels.npy", allow_pickle=False),
                ids=_read_names(folder / "ids.json"),
                classes=tuple(_read_names(folder / "classes.json")),
                independent=(folder / "independent").exists(),
            )
        except (OSError, ValueError, EOFError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"The predictions at {folder} cannot be read: {reason}") from error
        predictions.check()
        return predictions


def _is_zero_or_one(labels: np.ndarray) -> bool:
    return bool(((labels == 0) | (labels == 1)).all())


def _write_names(path: Path, names: Sequence[str]) -> None:
    path.write_text(json.dumps(list(names), indent=0) + "\n", encoding="utf-8")


def _read_names(path: Path) -> list[str]:
    names = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(names, list):
        raise ValueError(f"{path.name} holds no list")
    return [str(name) for name in names]
