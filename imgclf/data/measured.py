"""One look at every image of a source, in threads; of each, some sixty bytes are kept."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

import numpy as np

from imgclf.data.decode import BadImage, decode
from imgclf.data.formats import FORMATS, format_of, is_cut
from imgclf.data.hashes import digest, perceptual_hash
from imgclf.data.source import Source, checked_labels
from imgclf.errors import UserError

DARK, BRIGHT = 40, 240
"""Grey levels, of 0 to 255, below and above which a pixel is dark or burnt out."""
SIDE = 256
"""Brightness and blur are judged at this longer side, in px, where an image is larger."""

_ROW = np.dtype(
    [
        ("readable", "?"),
        ("cut", "?"),
        ("format", "u1"),
        ("height", "i4"),
        ("width", "i4"),
        ("digest", "u8", 2),
        ("hash", "u8"),
        ("mean", "f4"),
        ("one_level", "f4"),
        ("dark", "f4"),
        ("bright", "f4"),
        ("sharpness", "f4"),
    ]
)
_TOGETHER = 32  # images that a thread takes at a time


@final
@dataclass(frozen=True, eq=False)
class Measured:
    """A source and what was seen of its images."""

    name: str
    """What the source is called here."""
    source: Source
    """What was looked at."""
    ids: Sequence[str]
    """The names of its examples."""
    labels: np.ndarray
    """Their labels: int32 (n,), or float32 (n, k)."""
    rows: np.ndarray
    """A record of numbers for each image."""
    reasons: dict[int, str]
    """Why an image could not be read."""

    def label(self, i: int) -> str:
        """The class of example i, or its classes where several are likely."""
        label, classes = self.labels[i], self.source.classes
        if label.ndim == 0:
            return classes[label]
        return " + ".join(classes[j] for j in np.flatnonzero(label >= max(0.25, label.max() / 2)))

    def counts(self) -> dict[str, float]:
        """How many examples each class has; of soft labels the sum of the shares."""
        classes = self.source.classes
        if self.labels.ndim == 1:
            each = np.bincount(self.labels, minlength=len(classes)).tolist()
        else:
            each = self.labels.sum(0, dtype=np.float64).round(2).tolist()
        return dict(zip(classes, each, strict=True))


def measure(
    source: Source,
    name: str = "data",
    *,
    threads: int = 0,
    exif: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Measured:
    """Reads every image of a source once, in `threads` (0: as many as there are CPUs).

    `progress` is told now and then how many are done. Raises a `UserError` if none can be read.
    """
    n, ids, labels = len(source), source.ids(), checked_labels(source)
    rows, reasons = np.zeros(n, _ROW), {}

    def look(start: int) -> int:
        stop = min(start + _TOGETHER, n)
        for i in range(start, stop):
            try:
                _look(source.read(i), exif, rows[i : i + 1])
            except (BadImage, OSError) as error:
                reasons[i] = " ".join(str(error).split()) or type(error).__name__
            except Exception as error:
                error.add_note(f"raised for example {i} of {name!r}: {ids[i]}")
                raise
        return stop

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        try:
            for done in pool.map(look, range(0, n, _TOGETHER)):
                if progress is not None:
                    progress(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if len(reasons) == n:
        reason = f"{ids[0]}: {reasons[0]}" if n else "it has no examples"
        raise UserError(f"No image of {name!r} can be read: {reason}")
    return Measured(name, source, ids, labels, rows, dict(sorted(reasons.items())))


def _look(record: bytes | np.ndarray, exif: bool, row: np.ndarray) -> None:
    """Fills in `row` (1,)."""
    if isinstance(record, bytes):
        kind = format_of(record)
        row["format"] = FORMATS.index(kind)
        row["cut"] = is_cut(record)
        try:
            image = decode(record, exif=exif)
        except BadImage as error:
            row["cut"] |= bool(kind) and "truncated" in str(error)
            raise
    else:
        image = record
    row["readable"], row["digest"] = True, digest(image)
    row["height"], row["width"] = image.shape[:2]
    grey = _grey(image)
    row["hash"] = perceptual_hash(grey)
    shares = np.bincount(grey.reshape(-1), minlength=256) / grey.size
    row["mean"] = shares @ np.arange(256)
    row["one_level"] = np.convolve(shares, np.ones(5), "same").max()
    row["dark"], row["bright"] = shares[:DARK].sum(), shares[BRIGHT:].sum()
    row["sharpness"] = _sharpness(grey)


def _grey(image_hwc: np.ndarray) -> np.ndarray:
    """Grey at `SIDE` px at most."""
    from PIL import Image

    if image_hwc.shape[2] == 3:
        grey = Image.fromarray(image_hwc).convert("L")
    else:
        grey = Image.fromarray(image_hwc.mean(2).astype(np.uint8))
    scale = max(grey.size) / SIDE
    if scale > 1:
        size = [max(1, round(side / scale)) for side in grey.size]
        grey = grey.resize((size[0], size[1]), Image.Resampling.BOX)
    return np.asarray(grey)


def _sharpness(grey_hw: np.ndarray) -> float:
    # After Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy"; in shares of
    # the variance, so that a soft contrast is not taken for a blur.
    if min(grey_hw.shape) < 3:
        return 1.0
    grey = grey_hw.astype(np.float32)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((4 * grey[1:-1, 1:-1] - around).var() / max(grey.var(), 1.0))
