"""Where the time goes from a JPEG on disk to a random resized crop, in one thread.

    python benchmarks/input_profile.py --data FOLDER [--rounds 7]

Each part is run by itself on all images, in turn with the bare decoder; printed are the medians of
its CPU time per image, and of its share of the bare decoder's in the same round.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from imgclf.data import Files
from imgclf.data.decode import decode, decode_for
from imgclf.data.geometry import RandomResizedCrop
from imgclf.data.plan import Plan, carried_out
from imgclf.data.reader import generator, reader_of
from imgclf.preprocess import Preprocess

BILINEAR = Image.Resampling.BILINEAR
PREPROCESS = Preprocess(size=224, interpolation="bilinear")


def parts(files: list[Path]) -> dict[str, Callable[[int], object]]:
    """What is done for image i, in the order in which it is done; all of it as training does."""
    encoded = [file.read_bytes() for file in files]
    plans = [planned(i, *decode(e).shape[:2]) for i, e in enumerate(encoded)]
    decoded = [decode_for(partial(fixed, p), e) for p, e in zip(plans, encoded, strict=True)]
    square = carried_out(decoded[0][1], decoded[0][0], PREPROCESS)
    pictures = [Image.fromarray(cropped(image, plan)) for image, plan in decoded]
    row = np.empty((224, 224, 3), np.uint8)

    source = Files(tuple(map(str, files)))
    reader = reader_of(source, RandomResizedCrop(), PREPROCESS, seed=0, exif=True)

    def whole(i: int) -> np.ndarray:
        row[...] = reader.image(i, i)
        return row

    return {
        "bare decoder": lambda i: simplejpeg.decode_jpeg(encoded[i], "RGB"),
        "reading the file": lambda i: files[i].read_bytes(),
        "random numbers, plan": lambda i: planned(i, 375, 500),
        "decoding the part needed": lambda i: decode_for(lambda h, w: plans[i], encoded[i]),
        "scaling": lambda i: carried_out(decoded[i][1], decoded[i][0], PREPROCESS),
        "into the batch": lambda i: row.__setitem__(..., square),
        "all of it": whole,
        "Pillow's scaling, instead": lambda i: pictures[i].resize((224, 224), BILINEAR),
    }


def planned(i: int, height: int, width: int) -> Plan:
    return RandomResizedCrop().plan(height, width, PREPROCESS, generator(0, i))


def fixed(plan: Plan, height: int, width: int) -> Plan:
    return plan


def cropped(image: np.ndarray, plan: Plan) -> np.ndarray:
    left, top = int(plan.left), int(plan.top)
    return np.ascontiguousarray(image[top : top + int(plan.height), left : left + int(plan.width)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of JPEGs, at any depth")
    parser.add_argument("--rounds", type=int, default=7)
    words = parser.parse_args()
    files = [f for f in sorted(words.data.rglob("*")) if f.suffix.lower() in (".jpg", ".jpeg")]
    done = parts(files)
    seconds: dict[str, list[float]] = {name: [] for name in done}
    for _ in range(words.rounds):
        for name, do in done.items():
            before = time.process_time()
            for i in range(len(files)):
                do(i)
            seconds[name].append((time.process_time() - before) / len(files))
    print(f"{len(files)} images, {words.rounds} rounds")
    print("| part | us | of the bare decoder |\n|---|---|---|")
    for name, each in seconds.items():
        shares = [a / b for a, b in zip(each, seconds["bare decoder"], strict=True)]
        print(f"| {name} | {1e6 * statistics.median(each):.0f} | {statistics.median(shares):.2f} |")


if __name__ == "__main__":
    main()
