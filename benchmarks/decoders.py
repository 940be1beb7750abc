"""JPEG decoders side by side, one thread: images/s, and how far each is from Pillow's pixels.

    python benchmarks/decoders.py FOLDER [--rounds 5]

FOLDER has JPEGs at any depth. `simplejpeg` is what imgclf uses; `cv2` is tried where
opencv-python-headless is installed.
"""

import argparse
import importlib.metadata
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

Decoder = Callable[[bytes], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    words = parser.parse_args()
    files = sorted(f for f in words.folder.rglob("*") if f.suffix.lower() in (".jpg", ".jpeg"))
    images = [file.read_bytes() for file in files]
    if not images:
        raise SystemExit(f"no JPEG below {words.folder}")
    decoders = {"pillow": by_pillow, "simplejpeg": by_simplejpeg} | by_cv2()
    rates: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(words.rounds):  # in turn, so that a change of the machine's speed hits them all
        for name, decode in decoders.items():
            before = time.perf_counter()
            for image in images:
                decode(image)
            rates[name].append(len(images) / (time.perf_counter() - before))
    print(f"{len(images)} images, {words.rounds} rounds; images/s: least, median, greatest")
    for name, decode in decoders.items():
        other = sum(not np.array_equal(decode(image), by_pillow(image)) for image in images)
        least, greatest = min(rates[name]), max(rates[name])
        print(
            f"{name:<11} {least:7.0f} {statistics.median(rates[name]):7.0f} {greatest:7.0f}   "
            f"{other} images other than Pillow's ({version(name)})"
        )


def by_pillow(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


def by_simplejpeg(image: bytes) -> np.ndarray:
    return simplejpeg.decode_jpeg(image, "RGB")


def by_cv2() -> dict[str, Decoder]:
    try:
        import cv2
    except ImportError:
        return {}
    cv2.setNumThreads(1)

    def decode(image: bytes) -> np.ndarray:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        return cv2.imdecode(np.frombuffer(image, np.uint8), flags)[..., ::-1]

    return {"cv2": decode}


def version(name: str) -> str:
    return importlib.metadata.version({"cv2": "opencv-python-headless"}.get(name, name))


if __name__ == "__main__":
    main()
