"""Decoded training images, one way of making them in one process; for input_pipeline.py.

    python benchmarks/peers/input_feed.py --feed torch --data FOLDER --workers 2

`ours` needs imgclf, `bare` simplejpeg; `torch` PyTorch and Pillow (torchvision's RandomResizedCrop
where that is to be had, else the same by hand); `tf` TensorFlow: each imports nothing else, so that
it runs under an interpreter of its own. When it is ready it prints a line of JSON; then, for each
line on standard input, it makes one round and answers with a line of JSON.

A round makes batches for some seconds and counts images; what was fetched ahead before it is thrown
away first, and it is over when nothing more is fetched. CPU seconds are those of this process and
all below it (from /proc).
"""

import argparse
import itertools
import math
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from answers import answers

Feed = tuple[Iterator[int], int, dict[str, Any]]
"""Batches, each given as its number of images; how many may be ready ahead; what it says of
itself."""


def main() -> None:
    words = parsed()
    answer = answers()
    feed, ahead, said = FEEDS[words.feed](words)
    for _ in range(ahead + 2):
        next(feed)
    answer(said)
    for _ in sys.stdin:
        for _ in range(ahead):
            next(feed)
        images, cpu, before = 0, cpu_seconds(), time.perf_counter()
        while time.perf_counter() - before < words.seconds:
            images += next(feed)
        seconds = time.perf_counter() - before
        found = {"images": images, "seconds": seconds, "cpu_seconds": cpu_seconds() - cpu}
        wait_until_idle()
        answer(found | {"peak_mib": peak_mib(), "cpu_seconds_while_idle": 0})


def ours(words: argparse.Namespace) -> Feed:
    import numpy as np

    from imgclf.data import Order, RandomResizedCrop, train_batches, turbojpeg
    from imgclf.preprocess import Preprocess

    source = opened(words)
    preprocess = Preprocess(size=words.size, interpolation="bilinear")
    geometry = RandomResizedCrop()
    batches = train_batches(
        source,
        Order(len(source), seed=0),
        batch_size=words.batch_size,
        start=0,
        stop=10**9,
        geometry=geometry,
        preprocess=preprocess,
        seed=0,
        workers=words.workers,
        threads=words.threads,
    )
    moved = [
        bytes_moved(source.read(i), geometry, preprocess, i) for i in range(min(64, len(source)))
    ]
    said = {"bytes_copied_per_image": round(float(np.mean(moved)))}
    said["turbojpeg"] = turbojpeg.available()
    ahead = words.threads + 1 + 2 * words.workers + words.workers * (words.threads + 1)
    return (len(batch["image"]) for batch in batches), ahead, said


def opened(words: argparse.Namespace) -> Any:
    import imgclf.data

    if words.source == "records":
        return imgclf.data.Records(words.data)
    if words.source == "tar":
        return imgclf.data.Tar(words.data)
    return imgclf.data.Folder(words.data)


def bytes_moved(record: bytes, geometry: Any, preprocess: Any, seed: int) -> int:
    """What is written for an image: file, pixels, the square twice."""
    import numpy as np

    from imgclf.data.decode import decode_for

    rng = np.random.default_rng(seed)
    image, _ = decode_for(lambda h, w: geometry.plan(h, w, preprocess, rng), record)
    return len(record) + image.nbytes + 2 * 3 * preprocess.size**2


def bare(words: argparse.Namespace) -> Feed:
    """No file, no crop, no batch: the decoder alone, in as many threads as were asked for."""
    import simplejpeg

    images = [file.read_bytes() for file in jpegs(words.data)]
    images = [image for image in images if _decodes(image)]
    some = 16

    def decoded(first: int) -> int:
        for i in range(first, first + some):
            simplejpeg.decode_jpeg(images[i % len(images)], "RGB")
        return some

    if words.threads == 1:
        feed = map(decoded, itertools.count(0, some))
    else:
        feed = ahead_of(decoded, some, words.threads)
    return feed, words.threads, {"simplejpeg": version("simplejpeg")}


def ahead_of(make: Callable[[int], int], some: int, threads: int) -> Iterator[int]:
    pool, starts = ThreadPoolExecutor(threads), itertools.count(0, some)
    running = [pool.submit(make, next(starts)) for _ in range(threads + 1)]
    while True:
        running.append(pool.submit(make, next(starts)))
        yield running.pop(0).result()


def _decodes(image: bytes) -> bool:
    import simplejpeg

    try:
        return bool(simplejpeg.decode_jpeg(image, "RGB").size)
    except ValueError:
        return False


def torch(words: argparse.Namespace) -> Feed:
    import numpy as np
    import torch
    from PIL import Image

    cut, by = random_crop(words.size)
    files = list(jpegs(words.data))

    class Photographs(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 10**9

        def __getitem__(self, i: int) -> Any:
            with open(files[(i * 7919) % len(files)], "rb") as file:
                image = Image.open(file).convert("RGB")
            return torch.from_numpy(np.array(cut(image)))

    loader = torch.utils.data.DataLoader(Photographs(), words.batch_size, num_workers=words.workers)
    torch.set_num_threads(1)
    said = {"torch": torch.__version__, "crop": by, "pillow": version("pillow")}
    return (len(batch) for batch in loader), 2 * words.workers, said


def random_crop(size: int) -> tuple[Callable[[Any], Any], str]:
    try:
        from torchvision.transforms import RandomResizedCrop

        return RandomResizedCrop(size), f"torchvision {version('torchvision')}"
    except (ImportError, RuntimeError):
        return lambda image: by_hand(image, size), "the same by hand"


def by_hand(image: Any, size: int) -> Any:
    width, height = image.size
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return image.crop((left, top, left + w, top + h)).resize((size, size), 2)
    return image.resize((size, size), 2)


def tf(words: argparse.Namespace) -> Feed:
    import tensorflow as tf

    files = [str(file) for file in jpegs(words.data)]
    threads = max(1, words.threads)

    def photograph(path: Any) -> Any:
        encoded = tf.io.read_file(path)
        shape = tf.io.extract_jpeg_shape(encoded)
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            shape,
            tf.constant([[[0.0, 0.0, 1.0, 1.0]]]),
            min_object_covered=0.1,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=100,
        )
        window = tf.concat([begin[:2], extent[:2]], 0)
        part = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
        square = tf.image.resize(part, (words.size, words.size))
        return tf.cast(square, tf.uint8)

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    data = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files)).repeat()
    data = data.map(photograph, threads).batch(words.batch_size).prefetch(2).with_options(options)
    return (len(batch) for batch in data), 4, {"tensorflow": tf.__version__}


FEEDS: dict[str, Callable[[argparse.Namespace], Feed]] = {
    "ours": ours,
    "bare": bare,
    "torch": torch,
    "tf": tf,
}


def jpegs(folder: str) -> Iterator[Path]:
    yield from (
        file for file in sorted(Path(folder).rglob("*")) if file.suffix.lower() in (".jpg", ".jpeg")
    )


def version(package: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(package)


def cpu_seconds() -> float:
    """Of this process and of every one below it that lives."""
    ticks = 0
    for process in below(os.getpid()):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def wait_until_idle() -> None:
    """What is fetched ahead is made after the round, too: not in that of another."""
    before, spent = 0.0, cpu_seconds()
    while spent - before > 0.02:
        time.sleep(0.2)
        before, spent = spent, cpu_seconds()


def peak_mib() -> float:
    """The greatest resident memory of each process, added up; what they share counts for each."""
    kib = 0
    for process in below(os.getpid()):
        try:
            status = Path(f"/proc/{process}/status").read_text()
        except OSError:
            continue
        lines = [line.split() for line in status.splitlines()]
        kib += sum(int(line[1]) for line in lines if line[:1] == ["VmHWM:"])
    return (kib or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024


def below(process: int) -> list[int]:
    found = [process]
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            found += below(int(child))
    return found


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--feed", choices=FEEDS, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--source", choices=("folder", "tar", "records"), default="folder")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round")
    return parser.parse_args()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # threads and workers that fetch ahead are not waited for
