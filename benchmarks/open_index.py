"""How fast, and in how much memory, a source of millions of examples opens once it is indexed.

    python benchmarks/open_index.py [--examples 3000000] [--kinds csv,jsonl] [--output FILE]

Writes a table of image paths in 1,000 classes (`csv`, `jsonl`), or a tree of empty files (`folder`:
an inode for each), and opens it in fresh processes, with an index cache of its own: first when
nothing is indexed, then again. Each process prints seconds until length, classes, labels and a
thousand ids are there, and until an order over it and the two parts of a split give theirs, and
its peak of resident memory, with that of the same process before the source was opened.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CLASSES = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=3_000_000)
    parser.add_argument("--kinds", default="csv,jsonl")
    parser.add_argument("--again", type=int, default=3, help="times it is opened once indexed")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--open", nargs=2, metavar=("KIND", "PATH"), help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.open:
        print(json.dumps(opened(*words.open)))
        return
    result = {"machine": machine(), "examples": words.examples, "openings": []}
    with tempfile.TemporaryDirectory() as folder:
        for kind in words.kinds.split(","):
            path = write(kind, Path(folder) / kind, words.examples)
            for time_of in ["first", *["again"] * words.again]:
                found = {"kind": kind, "opened": time_of} | in_a_process(kind, path, folder)
                result["openings"].append(found)
                print(json.dumps(found), flush=True)
    if words.output:
        words.output.write_text(json.dumps(result, indent=1) + "\n")


def machine() -> dict[str, str | int | None]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }


def names(count: int) -> Iterator[tuple[str, str]]:
    """Paths as ImageNet has them, and their labels, in no order of the classes."""
    for i in range(count):
        wnid = f"n{(i * 7919) % CLASSES:08d}"
        yield f"{wnid}/{wnid}_{i}.JPEG", wnid


def write(kind: str, folder: Path, count: int) -> Path:
    folder.mkdir()
    if kind == "folder":
        for number in range(CLASSES):
            (folder / f"n{number:08d}").mkdir()
        for path, _ in names(count):
            os.close(os.open(folder / path, os.O_CREAT))
        settled = time.time() - 60
        for each in (folder, *folder.iterdir()):
            os.utime(each, (settled, settled))
        return folder
    file = folder / f"table.{kind}"
    with file.open("w") as lines:
        if kind == "csv":
            lines.write("image,label\n")
            lines.writelines(f"{path},{label}\n" for path, label in names(count))
        else:
            lines.writelines(
                f'{{"image": "{path}", "label": "{label}"}}\n' for path, label in names(count)
            )
    return file


def in_a_process(kind: str, path: Path, cache: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--open", kind, str(path)]
    environment = os.environ | {"XDG_CACHE_HOME": cache}
    ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(ended.stdout)


def opened(kind: str, path: str) -> dict[str, float]:
    import numpy as np

    from imgclf.data import Folder, Order, Split, Table, checked_labels

    before, start = peak(), time.perf_counter()
    source = Folder(path) if kind == "folder" else Table(path)
    n, places = len(source), np.random.default_rng(0).integers(0, len(source), 1000)
    assert len(source.classes) == CLASSES and len(source.labels()) == n
    some = [source.ids()[i] for i in places]
    seconds, after = time.perf_counter() - start, peak()
    labels = checked_labels(source)
    assert [source.classes[labels[i]] for i in places] == [name.split("/")[0] for name in some]
    start = time.perf_counter()
    for part in ("train", "test"):
        split = Split(source, part)
        order = Order(len(split), seed=0)
        ids = [split.ids()[i] for i in order.ids(np.arange(1000))]
        assert len(set(ids)) == 1000 and len(checked_labels(split)) == len(split)
    return {
        "seconds": round(seconds, 3),
        "split_and_order_seconds": round(time.perf_counter() - start, 3),
        "peak_mb_before": before,
        "peak_mb": after,
        "peak_mb_with_split_and_order": peak(),
    }


def peak() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most * (1 if sys.platform == "darwin" else 1024) / 1e6)


if __name__ == "__main__":
    main()
