"""Whether a run gives the same bits again on this device, and where it first does not.

    python benchmarks/same_bits.py digits --deterministic True
    python benchmarks/same_bits.py imagenette --steps 200 --data.train PATH --deterministic True

Four runs of the recipe, each in processes of its own: one, the same again, one that is stopped by
SIGTERM half way and goes on, and one by SIGKILL. Every step's metrics and the last weights of the
others are compared with the first one's; status 1: they differ. Other options change the recipe, as
in `train`.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from imgclf.training.saved import load_classifier

SIGNALS = {"stopped": signal.SIGTERM, "killed": signal.SIGKILL}


def train(command: Sequence[str], stop_after: int = 0, by: signal.Signals | None = None) -> None:
    """Runs the command; sends the signal `by`, if any, when the line of that step is read."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if by and line.startswith(f"step {stop_after}/"):
                process.send_signal(by)
    if process.returncode not in ((0, 128 + by, -by) if by else (0,)):
        raise SystemExit(f"status {process.returncode}: {' '.join(command)}")


def metrics(run: Path) -> dict[int, dict[str, Any]]:
    """What was learned in each step, but for how fast."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {
        line["step"]: {name: x for name, x in line.items() if name != "images_per_second"}
        for line in lines
        if "train/loss" in line
    }


def compare(run: Path, whole: Path) -> str:
    """Nothing if both are the same, else where they differ."""
    expected = metrics(whole)
    for step, found in metrics(run).items():
        for name, x in found.items():
            if x != expected[step][name]:
                return f"step {step}: {name} {x} instead of {expected[step][name]}"
    a, b = (load_classifier(each)[2] for each in (run, whole))
    pairs = zip(
        jax.tree.leaves((a.params, a.model_state)),
        jax.tree.leaves((b.params, b.model_state)),
        strict=True,
    )
    differ = sum(not np.array_equal(x, y) for x, y in pairs)
    return f"{differ} arrays of the last weights" if differ else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", help="name or file")
    parser.add_argument("--steps", type=int, default=100)
    words, rest = parser.parse_known_args()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # this process has the device as well
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: Path(folder) / name for name in ("whole", "again", "stopped", "killed")}
        for name, run in runs.items():
            command = [sys.executable, "-m", "imgclf", "train", words.recipe, "--run", str(run)]
            command += ["--length", f"{words.steps}steps", "--log.every", "1steps"]
            command += ["--checkpoint.every", f"{max(1, words.steps // 5)}steps", *rest]
            if name in SIGNALS:
                train(command, words.steps // 2, SIGNALS[name])
            train(command)
        device = jax.devices()[0].device_kind
        whole = runs.pop("whole")
        found = {name: compare(run, whole) for name, run in runs.items()}
    print(f"{words.recipe}, {words.steps} steps, {device}, jax {jax.__version__}")
    for name, difference in found.items():
        print(f"{name}: {difference or 'the same bits'}")
    raise SystemExit(any(found.values()))


if __name__ == "__main__":
    main()
