"""What a training step costs, on whatever device there is.

    python benchmarks/train_step.py --preset cpu
    python benchmarks/train_step.py --preset accelerator --peer-python /path/with/torch/bin/python
    python benchmarks/train_step.py --models resnet50 --batch-sizes 128 256 --dtypes bfloat16
    python benchmarks/train_step.py --models resnet50 --dtypes bfloat16 --deterministic
    python benchmarks/train_step.py --input recipe --recipe imagenette --data.train PATH
    python benchmarks/train_step.py --host

It is the step of a real run (`Recipe`, `resolve`, `Program`, `train_step`; SGD with momentum and
weight decay, cross-entropy), compiled ahead of time and fed with one batch that lies on the device;
with `--input recipe` with the recipe's own feed as well, round by round, so that a loop that is
starved of input can be told from a slow step. `--host` measures our own Python instead (host.py).

With synthetic input it needs jax, flax and optax, and this checkout on PYTHONPATH. A peer is a
script of peers/ under an interpreter of its own; its rounds alternate with ours. A round begins
with a step that is not timed: a virtual machine may have lost the memory that lay idle meanwhile.

Prints a table; writes JSON to `--output`, by default results/train_step_DEVICE.json.
"""

import argparse
import contextlib
import dataclasses
import gc
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hardware
import jax
from ours import ENDLESS, Ours, Round, calibrated
from peers.client import Peer, started

from imgclf import Data, Model, Preprocess, Recipe, Steps, UserError
from imgclf.augmentation import Crop, Flip
from imgclf.data import Synthetic
from imgclf.memory import ask_for_huge_pages
from imgclf.models import entry
from imgclf.optimizers import SGD
from imgclf.recipe.resolution import resolve
from imgclf.schedules import Constant
from imgclf.training.program import use_scan

STARVED = 0.1
"""A loop that waits more than this share of the time, and is slower by more, is called starved."""


@dataclass(frozen=True)
class Case:
    """What a line of the table is about."""

    model: str
    size: int
    channels: int
    classes: int
    batch_size: int
    dtype: str

    def recipe(self, augment: bool = False, deterministic: bool = False) -> Recipe:
        """The experiment whose step is measured, on as many images of noise as a batch has."""
        return Recipe(
            data=Data(
                train=Synthetic(self.batch_size, self.size, self.channels, self.classes),
                evaluate={},
                batch_size=self.batch_size,
            ),
            augment=(Crop(padding=max(1, self.size // 8)), Flip()) if augment else (),
            model=Model(self.model, self.dtype, preprocess=Preprocess(size=self.size)),
            optimizer=SGD(momentum=0.9, nesterov=False, weight_decay=1e-4),
            schedule=Constant(0.01),
            length=Steps(ENDLESS),
            deterministic=deterministic,
        )

    def words(self) -> Iterator[str]:
        """The same as options of a peer."""
        for name, value in dataclasses.asdict(self).items():
            yield from (f"--{name.replace('_', '-')}", str(value))


def case(model: str, batch_size: int, dtype: str = "float32", size: int = 0) -> Case:
    """Images like CIFAR-10's for its networks, like the digits' for those without a size of their
    own (`cnn`), else like ImageNet's."""
    own_size = entry(model).preprocess.size
    if not own_size:
        return Case(model, size or 8, 3 if size >= 16 else 1, 10, batch_size, dtype)
    classes = 10 if model.startswith("cifar") else 1000
    return Case(model, size or own_size, 3, classes, batch_size, dtype)


SMALL = (case("cnn", 128), case("cifar_resnet20", 128))
PRESETS = {
    "cpu": (
        *SMALL,
        case("resnet18", 16),
        *(case(m, 8) for m in ("resnet50", "resnext50_32x4d", "mobilenetv2_100", "convnext_tiny")),
    ),
    "accelerator": (
        *SMALL,
        *(case(m, b, "bfloat16") for m in ("resnet18", "resnet50") for b in (128, 256, 512)),
        case("resnet50", 128),
    ),
}


def measure(
    ours: Ours, peer: Peer | None, words: argparse.Namespace, peak: float
) -> dict[str, Any]:
    """Rounds of each kind of input, and of the peer, in turn; what came of them."""
    if peer and peer.ready["parameters"] != ours.parameters:
        raise RuntimeError(
            f"the peer's network has {peer.ready['parameters']:,} parameters, "
            f"ours {ours.parameters:,}: they are not the same"
        )
    steps = words.steps or calibrated(ours, words.seconds)
    rounds: dict[str, list[Round]] = {kind: [] for kind in ours.runners}
    theirs, busy = [], []
    for kind in ours.runners:
        ours.round(1, kind)
    for _ in range(words.rounds):
        for kind, made in rounds.items():
            ours.round(1, kind)  # untimed, as the peer's first one is
            made.append(ours.round(steps, kind))
        if peer:
            before = time.process_time()
            theirs.append(peer.round())
            busy.append((time.process_time() - before) / theirs[-1]["seconds"])
    found = figures(ours, rounds["synthetic"], peak)
    if "recipe" in rounds:
        found["recipe"] = fed(rounds["recipe"], found["ms_per_step"]["median"])
    if peer:
        found["peer"] = compared(ours, rounds["synthetic"], peer, theirs, max(busy))
    return found


def figures(ours: Ours, rounds: list[Round], peak: float) -> dict[str, Any]:
    milliseconds = [1000 * each.wall / each.steps for each in rounds]
    median = statistics.median(milliseconds) / 1000
    flops, counted_by, accessed = ours.cost()
    return {
        "parameters": ours.parameters,
        "ms_per_step": hardware.spread(milliseconds),
        "steps_per_round": rounds[0].steps,
        **hardware.rounded_values(
            images_per_second_per_device=ours.batch_size / ours.devices / median,
            tflops_per_device=flops / median / hardware.TERA,
            share_of_peak=flops / median / peak,
            gb_per_second=accessed / median / 1e9,
            gflop_per_step=flops / 1e9,
            compile_seconds=ours.compile_seconds,
            host_ms_per_step=1000 * statistics.median(each.host for each in rounds),
        ),
        "flops_counted_by": counted_by,
        "memory_bytes": ours.memory(),
    }


def fed(rounds: list[Round], alone: float) -> dict[str, Any]:
    """What the steps took with the recipe's own feed, beside the `alone` ms without one.

    A wait alone does not starve the device, which may be computing meanwhile.
    """
    milliseconds = hardware.spread([1000 * each.wall / each.steps for each in rounds])
    share = sum(each.waited for each in rounds) / sum(each.wall for each in rounds)
    slower = milliseconds["median"] / alone - 1
    return {
        "ms_per_step": milliseconds,
        "share_waited_for_input": hardware.rounded(share),
        "starved": min(share, slower) > STARVED,
    }


def compared(
    ours: Ours, rounds: list[Round], peer: Peer, theirs: list[dict[str, Any]], busy: float
) -> dict[str, Any]:
    """Our images/s over theirs, round by round."""
    seconds = [each["seconds"] / each["steps"] for each in theirs]
    ratios = [b * each.steps / each.wall for each, b in zip(rounds, seconds, strict=True)]
    return {
        **peer.ready,
        "ms_per_step": hardware.spread([1000 * each for each in seconds]),
        "ratio_of_images_per_second": hardware.spread(ratios),
        "cpus_busy_while_idle": {
            "ours": round(busy, 3),
            "theirs": round(max(each["busy_while_idle"] for each in theirs), 3),
        },
    }


def experiments(words: argparse.Namespace, rest: list[str]) -> Iterator[tuple[Case, Recipe]]:
    if words.recipe:
        from imgclf import load_recipe
        from imgclf.recipe.overrides import override

        recipe = override(load_recipe(words.recipe), rest).recipe
        resolved = resolve(recipe)
        size, _, channels = resolved.image_shape
        classes, network = len(resolved.classes), resolved.network
        batch_size = recipe.data.batch_size
        yield Case(network.name, size, channels, classes, batch_size, network.dtype), recipe
    else:
        product = itertools.product(words.models, words.batch_sizes, words.dtypes, words.sizes)
        for each in PRESETS[words.preset] if words.preset else itertools.starmap(case, product):
            yield each, each.recipe(words.augment, words.deterministic)


def run(words: argparse.Namespace, rest: list[str]) -> bool:
    """Measures, prints and writes everything; whether all of it could be measured."""
    jax.config.update("jax_enable_compilation_cache", False)  # or nothing would be compiled
    default = Path(__file__).parent / "results" / f"train_step_{hardware.device_name()}.json"
    output = words.output or default
    peaks: dict[str, tuple[float, str]] = {}
    report: dict[str, Any] = {
        "command": hardware.command(words.peer_python),
        "machine": hardware.machine(),
        "dispatch": words.dispatch,
        "augment": words.augment,
        "deterministic": words.deterministic,
        "peak": {},
        "results": [],
    }
    print(HEADING)
    for each, recipe in experiments(words, rest):
        if each.dtype not in peaks:
            peaks[each.dtype] = flops, source = hardware.peak(each.dtype)
            tera = hardware.rounded(flops / hardware.TERA)
            report["peak"][each.dtype] = {"tflops": tera, "source": source}
        found = dataclasses.asdict(each) | one(each, recipe, words, peaks[each.dtype][0])
        print("\n".join(lines(found)), flush=True)
        report["results"].append(found)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=1) + "\n")
        gc.collect()  # a state's device memory goes before the next one's is needed
    for dtype, (flops, source) in peaks.items():
        print(f"peak in {dtype}: {flops / hardware.TERA:.4g} TFLOP/s ({source})")
    print(f"written to {output}")
    return not any("error" in each for each in report["results"])


def one(case: Case, recipe: Recipe, words: argparse.Namespace, peak: float) -> dict[str, Any]:
    """The figures of one case, or why there are none: most often too little memory."""
    with contextlib.ExitStack() as stack:
        try:
            ours = Ours(recipe, use_scan(words.dispatch, True), own_feed=bool(words.recipe))
            stack.callback(ours.close)
            peer = None
            if words.peer_python:
                same = ("--seconds", str(words.seconds), "--steps", str(words.steps))
                options = (*case.words(), *same, "--compile", words.compile)
                peer = stack.enter_context(started(words.peer_python, "torch_step.py", *options))
            return measure(ours, peer, words, peak)
        except RuntimeError as error:
            return {"error": str(error).splitlines()[0]}


HEADING = (
    "network          px batch dtype      ms/step (quartiles)        img/s TFLOP/s  peak   GB/s"
    " compile s host ms    MiB  ours/peer (least..greatest)"
)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """A result as a row of the table, and what else is to be said of it."""
    head = f"{found['model']:<15} {found['size']:>3} {found['batch_size']:>5} {found['dtype']:<8} "
    if "error" in found:
        yield head + found["error"]
        return
    ms = found["ms_per_step"]
    quartiles = f"({ms['quartiles'][0]:.4g}-{ms['quartiles'][1]:.4g})"
    row = (
        f"{head} {ms['median']:>8.4g} {quartiles:<17} "
        f"{found['images_per_second_per_device']:>6.4g} {found['tflops_per_device']:>7.3g} "
        f"{found['share_of_peak']:>5.0%} {found['gb_per_second']:>6.3g} "
        f"{found['compile_seconds']:>9.1f} {found['host_ms_per_step']:>7.3g} "
        f"{found['memory_bytes']['program'] / 2**20:>6.0f}"
    )
    if "peer" not in found:
        yield row
    else:
        peer, ratio = found["peer"], found["peer"]["ratio_of_images_per_second"]
        spread = f"{ratio['median']:.3g} ({ratio['least']:.3g}..{ratio['greatest']:.3g})"
        yield f"{row}  {spread} torch {peer['torch']}, {peer['mode']}"
    if "recipe" in found:
        own = found["recipe"]
        yield (
            f"  with the recipe's own feed {own['ms_per_step']['median']:.4g} ms a step, the host "
            f"waits {own['share_waited_for_input']:.0%} of the time for input: "
            f"{'starved' if own['starved'] else 'not starved'}"
        )


def parsed() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--preset", choices=PRESETS, help="instead of --models, ..., --dtypes")
    parser.add_argument("--models", nargs="+", default=["resnet50"], help="see `imgclf models`")
    parser.add_argument("--sizes", nargs="+", type=int, default=[0], help="px; 0: the network's")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[128])
    parser.add_argument("--dtypes", nargs="+", default=["float32"], help="float32, bfloat16")
    parser.add_argument("--augment", action="store_true", help="random crop and flip in the step")
    parser.add_argument("--deterministic", action="store_true", help="as `--deterministic True`")
    parser.add_argument("--input", choices=("synthetic", "recipe"), default="synthetic")
    parser.add_argument("--recipe", help="name or file; other options change it, as in `train`")
    parser.add_argument("--dispatch", choices=("step", "scan"), default="step")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=0, help="of a round; 0: what --seconds take")
    parser.add_argument("--seconds", type=float, default=2.0, help="that a round takes, about")
    parser.add_argument("--peer-python", help="an interpreter with PyTorch, to compare with")
    parser.add_argument("--compile", choices=("auto", "yes", "no"), default="auto", help="the peer")
    parser.add_argument("--host", action="store_true", help="our own Python for each dispatch")
    parser.add_argument("--output", type=Path)
    words, rest = parser.parse_known_args()
    if (words.input == "recipe") != bool(words.recipe):
        parser.error("--input recipe and --recipe belong together")
    if rest and not words.recipe:
        parser.error(f"unknown: {' '.join(rest)}")
    return words, rest


def main() -> None:
    words, rest = parsed()
    if words.peer_python:  # or JAX would take most of the device's memory for itself
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    try:
        if words.host:
            import host

            host.run(words)
        elif not run(words, rest):
            raise SystemExit(1)
    except UserError as error:
        print(f"train_step.py: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    ask_for_huge_pages()  # as a run does; the peers have them, too
    main()
