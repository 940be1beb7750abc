"""How fast training images come from disk into batches, beside the bare decoder and other loaders.

    python benchmarks/input_pipeline.py --data FOLDER
    python benchmarks/input_pipeline.py --data FOLDER --peer-python TORCH/bin/python TF/bin/python

FOLDER has JPEGs at any depth, such as the 1,000 photographs of the public set "ImageNet sample
images" (github.com/EliSchwartz/imagenet-sample-images). They are laid out anew in a temporary
folder: class folders, a tar, what `imgclf data prepare` writes of them as they are, and with the
shorter side at 256 and 160 px. From each come batches of 64 with a random resized crop to 224 px,
in a process of its own; its rounds alternate with those of the bare decoder on the original files
(no reading, no crop, no batch: the limit), and, from the folder with as many threads as there are
CPUs, with those of the peers: `torch` is PyTorch's DataLoader with Pillow and a worker for each
CPU, `tf` is tf.data with `tf.io.decode_and_crop_jpeg`. A peer's interpreter is asked which of them
it has.

Per core means: for each second of CPU time, of all processes and threads. Prints tables; writes
JSON to `--output`, by default results/input_pipeline.json.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hardware
from peers.client import Peer, started

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
CLASSES = 10
SOURCES = {
    # what it is read as; what it is called
    "folder": ("folder", "files in class folders"),
    "tar": ("tar", "a tar"),
    "records": ("records", "ArrayRecord"),
    "256": ("records", "ArrayRecord, 256 px"),
    "160": ("records", "ArrayRecord, 160 px"),
}


def lay_out(files: Sequence[Path], root: Path) -> dict[str, Path]:
    """The same photographs in each layout, in ten classes."""
    images = [file.read_bytes() for file in files]
    for i, image in enumerate(images):
        folder = root / "folder" / f"class{i % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:05d}.jpg").write_bytes(image)
    (root / "tar").mkdir()
    with tarfile.open(root / "tar" / "images.tar", "w") as tar:
        for i, image in enumerate(images):
            for ending, content in (("jpg", image), ("cls", str(i % CLASSES).encode())):
                member = tarfile.TarInfo(f"{i:05d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for name, size in (("records", ()), ("256", ("--size", "256")), ("160", ("--size", "160"))):
        prepare = ["data", "prepare", str(root / "folder"), str(root / name), *size]
        command = [sys.executable, "-m", "imgclf", *prepare, "--workers", str(CPUS)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {name: root / name for name in SOURCES}


def cases(words: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Every number of workers and threads from the folder, and the quickest two of the others."""
    if "folder" in words.sources:
        for workers, threads in itertools.product(words.workers, words.threads):
            yield "folder", workers, threads
    for source in words.sources:
        if source != "folder":
            yield from ((source, 0, CPUS), (source, CPUS, 1))


def others(words: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Each peer that one of the interpreters has, and that interpreter."""
    for python in words.peer_python:
        for module, feed in (("torch", "torch"), ("tensorflow", "tf")):
            command = [python, "-c", f"import importlib.util as u; u.find_spec({module!r}).name"]
            if subprocess.run(command, capture_output=True).returncode == 0:
                yield feed, python


def feeding(
    feed: str, path: Path, words: argparse.Namespace, python: str = sys.executable, **options: Any
) -> contextlib.AbstractContextManager[Peer]:
    given = {"feed": feed, "data": path, "batch-size": words.batch_size, "seconds": words.seconds}
    flags = itertools.chain.from_iterable(
        (f"--{name}", str(value)) for name, value in (given | options).items()
    )
    return started(python, "input_feed.py", *flags)


def figures(rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    return {
        "images_per_second": hardware.spread([each["images"] / each["seconds"] for each in rounds]),
        "images_per_second_per_core": hardware.spread(
            [each["images"] / each["cpu_seconds"] for each in rounds]
        ),
        "peak_mib": round(max(each["peak_mib"] for each in rounds)),
    }


def ratios(ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Our rates over theirs, round by round."""

    def over(unit: str) -> list[float]:
        return [
            a["images"] / a[unit] / (b["images"] / b[unit])
            for a, b in zip(ours, theirs, strict=True)
        ]

    return {"images_per_second": hardware.spread(over("seconds"))} | {
        "images_per_second_per_core": hardware.spread(over("cpu_seconds"))
    }


def measure(mine: Peer, beside: dict[str, Peer], words: argparse.Namespace) -> dict[str, Any]:
    """Rounds of ours and of each beside it in turn."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in ("ours", *beside)}
    for _ in range(words.rounds):
        for name, peer in {"ours": mine, **beside}.items():
            rounds[name].append(peer.round())
    found = mine.ready | figures(rounds["ours"])
    found["beside"] = {
        name: beside[name].ready
        | figures(rounds[name])
        | {"ours_over_it": ratios(rounds["ours"], rounds[name])}
        for name in beside
    }
    return found


def run(words: argparse.Namespace) -> None:
    files = [f for f in sorted(words.data.rglob("*")) if f.suffix.lower() in (".jpg", ".jpeg")]
    if not files:
        raise SystemExit(f"no JPEG below {words.data}")
    files = files[:: max(1, len(files) // words.images)][: words.images]
    report: dict[str, Any] = {"command": hardware.command(), "machine": hardware.machine()}
    report |= {"images": len(files), "bytes": sum(f.stat().st_size for f in files), "results": []}
    output = words.output or Path(__file__).parent / "results" / "input_pipeline.json"
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        laid = lay_out(files, Path(scratch))
        limits = {
            n: stack.enter_context(feeding("bare", laid["folder"], words, threads=n))
            for n in {1, CPUS}
        }
        peers = {
            feed: stack.enter_context(
                feeding(feed, laid["folder"], words, python, workers=CPUS, threads=CPUS)
            )
            for feed, python in others(words)
        }
        print(f"{len(files)} photographs, {report['bytes'] / len(files) / 1e3:.0f} kB each\n{HEAD}")
        for source, workers, threads in cases(words):
            n = max(1, workers) * threads
            beside = {"bare": limits[CPUS if n >= CPUS else 1]}
            if source == "folder" and n == CPUS:
                beside |= peers
            options = {"source": SOURCES[source][0], "workers": workers, "threads": threads}
            with feeding("ours", laid[source], words, **options) as mine:
                found = measure(mine, beside, words)
            found = {"source": source, "workers": workers, "threads": threads} | found
            print("\n".join(lines(found)), flush=True)
            report["results"].append(found)
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {output}")


HEAD = (
    "| source | workers x threads | images/s | per core | of the bare decoder's images/s, per core "
    "| kB copied | peak MiB |\n|---|---|---|---|---|---|---|"
)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """A result as a row of the table, and the peers' below it."""
    bare = found["beside"]["bare"]["ours_over_it"]
    yield (
        f"| {SOURCES[found['source']][1]} | {found['workers']} x {found['threads']} "
        f"| {median(found['images_per_second'])} | {median(found['images_per_second_per_core'])} "
        f"| {spread(bare['images_per_second'])}, {spread(bare['images_per_second_per_core'])} "
        f"| {found['bytes_copied_per_image'] / 1e3:.0f} | {found['peak_mib']} |"
    )
    for name, peer in found["beside"].items():
        if name == "bare" and len(found["beside"]) == 1:
            continue
        ours = peer["ours_over_it"]
        yield (
            f"| beside it: {name} | | {median(peer['images_per_second'])} "
            f"| {median(peer['images_per_second_per_core'])} | ours over it: "
            f"{spread(ours['images_per_second'])}, {spread(ours['images_per_second_per_core'])} "
            f"| | {peer['peak_mib']} |"
        )


def median(values: dict[str, Any]) -> str:
    return f"{values['median']:,.0f}"


def spread(values: dict[str, Any]) -> str:
    return f"{values['median']:.2f} ({values['least']:.2f} to {values['greatest']:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a folder of JPEGs, at any depth")
    parser.add_argument("--images", type=int, default=1000, help="at most so many of them")
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2, 3, 4])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="that a round takes")
    parser.add_argument("--peer-python", nargs="+", default=[], help="with PyTorch, TensorFlow")
    parser.add_argument("--output", type=Path)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
