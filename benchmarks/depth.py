"""What `scan=True` saves in compiling deep networks, and what a step costs then.

    python benchmarks/depth.py
    python benchmarks/depth.py --models resnet152 --programs forward --batch-size 8

The prediction (`forward`) and the training step of a real run, those of train_step.py, with blocks
one after another (`unrolled`) and in one loop over stacked ones (`scanned`). Each is compiled
`--compilations` times and then run in rounds; the two forms alternate in both.

Prints a table; writes JSON to `--output`, by default results/depth_DEVICE.json.
"""

import argparse
import dataclasses
import functools
import gc
import json
from pathlib import Path
from typing import Any

import hardware
import jax
from ours import Ours, Prediction, calibrated
from train_step import case

from imgclf import Recipe
from imgclf.memory import ask_for_huge_pages

PROGRAMS = {
    "forward": Prediction,
    "training": functools.partial(Ours, scan=False, own_feed=False),  # of steps, not of blocks
}


def forms(model: str, batch_size: int, dtype: str) -> dict[str, Recipe]:
    recipe = case(model, batch_size, dtype).recipe(augment=False)

    def with_scan(scan: bool) -> Recipe:
        options = {**recipe.model.options, "scan": scan}
        return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, options=options))

    return {"unrolled": with_scan(False), "scanned": with_scan(True)}


def measure(program: str, recipes: dict[str, Recipe], words: argparse.Namespace) -> dict[str, Any]:
    compile_seconds: dict[str, list[float]] = {form: [] for form in recipes}
    compiled: dict[str, Ours | Prediction] = {}
    for _ in range(words.compilations):
        for form, recipe in recipes.items():
            compiled.pop(form, None)
            jax.clear_caches()  # or what was traced before would not be traced again
            gc.collect()
            compiled[form] = PROGRAMS[program](recipe)
            compile_seconds[form].append(compiled[form].compile_seconds)
    milliseconds: dict[str, list[float]] = {form: [] for form in recipes}
    steps = {form: calibrated(each, words.seconds) for form, each in compiled.items()}
    for _ in range(words.rounds):
        for form, each in compiled.items():
            made = each.round(steps[form])
            milliseconds[form].append(1000 * made.wall / made.steps)
    return {
        form: {
            "compile_seconds": hardware.spread(compile_seconds[form]),
            "ms": hardware.spread(milliseconds[form]),
            "memory_bytes": compiled[form].memory(),
        }
        for form in recipes
    }


def run(words: argparse.Namespace) -> None:
    """Measures, prints and writes each program of each network."""
    jax.config.update("jax_enable_compilation_cache", False)  # or nothing would be compiled
    default = Path(__file__).parent / "results" / f"depth_{hardware.device_name()}.json"
    output = words.output or default
    report: dict[str, Any] = {
        "command": hardware.command(),
        "machine": hardware.machine(),
        "batch_size": words.batch_size,
        "dtype": words.dtype,
        "results": [],
    }
    print(
        f"{'network':<24} {'program':<9} {'compile s: unrolled, scanned':<34} ms: unrolled, scanned"
    )
    for model in words.models:
        for program in words.programs:
            found = measure(program, forms(model, words.batch_size, words.dtype), words)
            print(f"{model:<24} {program:<9} {compared(found, 'compile_seconds'):<34} ", end="")
            print(compared(found, "ms"), flush=True)
            report["results"].append({"model": model, "program": program, **found})
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {output}")


def compared(found: dict[str, Any], name: str) -> str:
    unrolled, scanned = (found[form][name]["median"] for form in ("unrolled", "scanned"))
    return f"{unrolled:.4g}, {scanned:.4g} ({unrolled / scanned:.2f} times as fast)"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    networks = ["vit_large_patch16_224", "resnet152"]
    parser.add_argument("--models", nargs="+", default=networks, help="that take `scan`")
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compilations", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="that a round takes, about")
    parser.add_argument("--output", type=Path)
    run(parser.parse_args())


if __name__ == "__main__":
    ask_for_huge_pages()  # as a run does; the peers have them, too
    main()
