"""The first minute of a newcomer: how long `imgclf train digits` takes, and how good it gets.

    python benchmarks/digits.py [--seeds 10] [--starts 5]

Every run is a process of its own. The first has an empty compilation cache; the others are warm.
Writes results/digits.json beside this file, with device, versions and date.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="runs, each with its own seed")
    parser.add_argument("--starts", type=int, default=5, help="repetitions of what is timed")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        runs = [train(Path(folder) / f"run{seed}", seed) for seed in range(words.seeds)]
        found = {
            "accuracy": summary([run["accuracy"] for run in runs], 100),
            "seconds of the first run, nothing compiled yet": runs[0]["wall"],
            "seconds of the others": summary([run["wall"] for run in runs[1:]]),
            "seconds from the command to the first step, warm": summary(
                [first_step(Path(folder) / f"start{i}") for i in range(words.starts)]
            ),
            "seconds of imgclf --help": summary([timed_help() for _ in range(words.starts)]),
        }
    result = {
        "command": " ".join(["python benchmarks/digits.py", *sys.argv[1:]]),
        "machine": machine(),
        **found,
    }
    print(json.dumps(result, indent=1))
    words.output.mkdir(exist_ok=True)
    (words.output / "digits.json").write_text(json.dumps(result, indent=1) + "\n")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "imgclf", *words]


def train(folder: Path, seed: int) -> dict[str, Any]:
    before = time.perf_counter()
    words = command("train", "digits", "--run", str(folder), "--seed", str(seed), "--quiet")
    subprocess.run(words, check=True)
    wall = round(time.perf_counter() - before, 2)
    return json.loads((folder / "result.json").read_text()) | {"wall": wall}


def first_step(folder: Path) -> float:
    words = command("train", "digits", "--run", str(folder), "--log.every", "1steps")
    before = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("step 1/"):
            if process.poll() is not None:
                raise SystemExit("the run ended before its first step")
        seconds = time.perf_counter() - before
        process.kill()
    return seconds


def timed_help() -> float:
    before = time.perf_counter()
    subprocess.run(command("--help"), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - before


def summary(values: list[float], factor: float = 1) -> dict[str, float]:
    values = [factor * value for value in values]
    return {
        "n": len(values),
        "mean": round(statistics.mean(values), 3),
        "deviation": round(statistics.stdev(values), 3) if len(values) > 1 else 0.0,
        "least": round(min(values), 3),
        "median": round(statistics.median(values), 3),
        "greatest": round(max(values), 3),
    }


def machine() -> dict[str, Any]:
    packages = ("imgclf", "jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "cpu": platform.processor() or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    main()
