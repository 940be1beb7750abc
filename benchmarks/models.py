"""How large and how fast every network of the table is, on whatever device there is.

    python benchmarks/models.py
    python benchmarks/models.py --filter 'resnet*' --batch-size 256 --dtype bfloat16
    python benchmarks/models.py --models vit_base_patch16_224 convnext_tiny

Of each: parameters, multiply-adds of one image, and of the prediction and the training step of a
real run (those of train_step.py) compile time, images/s and memory. Memory is the most that the
device held, or, where the backend does not count that (CPU), what the compiled program needs.

A network is measured in a process of its own: so memory is its alone and free before the next one's
is needed, and one that fails, or does not fit, is a row that says so.

Writes a row at a time to `--output`, by default results/models_DEVICE.csv. What has a row there is
not measured again: the same command goes on where it was stopped. Needs jax, flax and optax.
"""

import argparse
import csv
import fnmatch
import multiprocessing
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hardware
import jax
from ours import Ours, Prediction, calibrated
from train_step import Case, case

from imgclf import UserError
from imgclf.memory import ask_for_huge_pages
from imgclf.models import count_parameters, multiply_adds, names
from imgclf.models.network import Network
from imgclf.models.sizes import kept
from imgclf.recipe.resolution import resolve

LARGE = 50e9
"""Multiply-adds of an image."""
KEY = ("model", "size", "batch_size", "dtype")
"""Columns that say what a row is about."""
MEASURED = ("compile_seconds", "images_per_second", "memory_bytes")
MACHINE = ("device", "devices", "cpu", "cpus", "python", "jax", "jaxlib", "flax", "commit", "date")
COLUMNS = (
    *(*KEY, "parameters", "multiply_adds"),
    *(f"{program}_{name}" for program in ("inference", "training") for name in MEASURED),
    *("memory_counted_by", "error", *MACHINE, "command"),
)


def measured(case: Case, rounds: int, seconds: float) -> dict[str, Any]:
    """The columns of a network, as far as it came."""
    jax.config.update("jax_enable_compilation_cache", False)  # or nothing would be compiled
    machine = hardware.machine()
    found: dict[str, Any] = {name: machine[name] for name in MACHINE}
    recipe = case.recipe(augment=False)
    try:
        resolved = resolve(recipe)
        found |= sizes(resolved.network, resolved.image_shape)
        # Inference first and gone before training, whose memory is the greater.
        predicting = Prediction(recipe)
        found |= figures("inference", predicting, case.batch_size, rounds, seconds)
        weights = jax.device_get(predicting.weights)
        del predicting
        training = Ours(recipe, scan=False, own_feed=False, weights=weights)
        found |= figures("training", training, case.batch_size, rounds, seconds)
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        found["error"] = f"{type(error).__name__}: {reason[0]}"
    return found


def sizes(network: Network, image_shape: tuple[int, ...]) -> dict[str, int]:
    image = jax.ShapeDtypeStruct((1, *image_shape), "float32")
    params, _ = jax.eval_shape(network.initialise, jax.random.key(0), image)
    products = multiply_adds(network, image.shape)
    return {"parameters": count_parameters(params), "multiply_adds": products}


def figures(
    name: str, program: Ours | Prediction, batch_size: int, rounds: int, seconds: float
) -> dict[str, Any]:
    steps = calibrated(program, seconds)
    each = statistics.median(
        made.wall / made.steps for made in map(program.round, [steps] * rounds)
    )
    memory = program.memory()
    counted_by = "device" if "most_in_process" in memory else "memory_analysis"
    return {
        f"{name}_compile_seconds": hardware.rounded(program.compile_seconds),
        f"{name}_images_per_second": hardware.rounded(batch_size / each),
        f"{name}_memory_bytes": memory.get("most_in_process", memory["program"]),
        "memory_counted_by": counted_by,
    }


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns in a new process, with which all it held goes."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def cases(words: argparse.Namespace) -> list[Case]:
    chosen = words.models or [name for name in names() if fnmatch.fnmatch(name, words.filter)]
    return [
        case(name, words.batch_size or usual_batch_size(name), words.dtype, words.size)
        for name in chosen
    ]


def usual_batch_size(name: str) -> int:
    """What fills a device; on CPU so few that a step of most networks takes less than a second."""
    if jax.default_backend() != "cpu":
        return 128
    _, products = kept().get(name, (0, 0))
    return 1 if products > LARGE else 4


def run(words: argparse.Namespace) -> bool:
    """Measures, prints and writes what has no row yet; whether all of it could be measured."""
    # This process leaves the device alone, or it would keep memory from those that measure.
    chosen = apart(cases, words)
    results = Path(__file__).parent / "results"
    output = words.output or results / f"models_{apart(hardware.device_name)}.csv"
    output.parent.mkdir(parents=True, exist_ok=True)
    there, complete = rows(output), True
    with output.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if not file.tell():
            writer.writeheader()
        for each in chosen:
            row = {name: str(value) for name, value in asdict(each).items() if name in KEY}
            if tuple(row.values()) in there:
                continue
            try:
                found = apart(measured, each, words.rounds, words.seconds)
            except BrokenProcessPool:
                found = {"error": "its process was killed, most often for want of memory"}
            writer.writerow(row | found | {"command": hardware.command()})
            file.flush()
            print(line(row | found), flush=True)
            complete &= "error" not in found
    print(f"written to {output}")
    return complete


def rows(output: Path) -> set[tuple[str, ...]]:
    """What there is a row of."""
    if not output.exists():
        return set()
    with output.open(newline="") as file:
        return {tuple(row[name] for name in KEY) for row in csv.DictReader(file)}


def line(found: dict[str, Any]) -> str:
    head = f"{found['model']:<40} {found['size']:>4} px"
    if "error" in found:
        return f"{head}  {found['error']}"
    speeds = (found[f"{program}_images_per_second"] for program in ("inference", "training"))
    return (
        f"{head} {found['parameters'] / 1e6:>8.2f} M {found['multiply_adds'] / 1e9:>8.3f} GMACs"
        "  inference, training: {:.4g}, {:.4g} images/s".format(*speeds)
        + f", {found['training_memory_bytes'] / 2**20:.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--models", nargs="+", help="instead of all; see `imgclf models`")
    parser.add_argument("--filter", default="*", help="only names that match, such as 'resnet*'")
    parser.add_argument("--batch-size", type=int, help="4 on CPU, 1 for large networks; else 128")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--size", type=int, default=0, help="px; 0: the network's own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="that a round takes, about")
    parser.add_argument("--output", type=Path)
    try:
        if not run(parser.parse_args()):
            raise SystemExit(1)
    except UserError as error:
        print(f"models.py: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    ask_for_huge_pages()  # as a run does; the peers have them, too
    main()
